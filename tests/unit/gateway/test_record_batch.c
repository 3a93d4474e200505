#include "gateway/record_batch.h"

#include <string.h>

#include "common/bus/codec.h"
#include "proto/status.pb-c.h"
#include "tests/harness/test.h"

static int add(struct record_batch *batch, char *job_id, struct error *err)
{
    Crafterse__V1__Envelope envelope = CRAFTERSE__V1__ENVELOPE__INIT;
    Crafterse__V1__Status status = CRAFTERSE__V1__STATUS__INIT;
    envelope.job_id = job_id;
    status.envelope = &envelope;
    return record_batch_add(batch, "status", "gateway-1", &status.base, err);
}

TEST(what_is_kept_outlives_the_message)
{
    struct record_batch batch = {0};
    struct error err;
    char id[] = "one";
    CHECK_INT(add(&batch, id, &err), 0);
    memset(id, 'x', 3);
    CHECK_INT(add(&batch, id, &err), 0);
    CHECK_INT(batch.count, 2);
    record_batch_deinit(&batch);
    CHECK_INT(batch.count, 0);
    CHECK_INT(add(&batch, id, &err), 0); /* an emptied one is as new */
    record_batch_deinit(&batch);
}

TEST(a_full_batch_refuses_and_says_so)
{
    struct record_batch batch = {0};
    struct error err;
    char id[] = "one";
    for (int i = 0; i < RECORD_BATCH_MAX; i++) {
        CHECK_INT(add(&batch, id, &err), 0);
    }
    CHECK_INT(add(&batch, id, &err), STATUS_UNAVAILABLE);
    CHECK_CONTAINS(err.text, "wait for Kafka");
    CHECK_INT(batch.count, RECORD_BATCH_MAX);
    record_batch_deinit(&batch);
}

TEST_MAIN()
