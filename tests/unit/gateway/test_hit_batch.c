#include "gateway/hit_batch.h"

#include <string.h>

#include "common/bus/codec.h"
#include "tests/harness/test.h"

static int add(struct hit_batch *batch, char *job_id, struct error *err)
{
    Crafterse__V1__Envelope envelope = CRAFTERSE__V1__ENVELOPE__INIT;
    Crafterse__V1__Status end = CRAFTERSE__V1__STATUS__INIT;
    Crafterse__V1__Image image = CRAFTERSE__V1__IMAGE__INIT, *images[] = {&image};
    char hash[] = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    char trace[] = "00-0123456789abcdef0123456789abcdef-0123456789abcdef-01";
    envelope.job_id = job_id;
    envelope.traceparent = trace;
    image.content_hash = image.object_key = hash;
    end.envelope = &envelope;
    end.images = images;
    end.n_images = 1;
    return hit_batch_add(batch, &end, err);
}

TEST(many_ends_are_read_back_from_one_record)
{
    struct hit_batch batch;
    struct error err;
    char id[] = "one";
    size_t size;
    hit_batch_init(&batch);
    CHECK_INT(add(&batch, id, &err), 0);
    memset(id, 'x', 3); /* what is kept outlives the message */
    CHECK_INT(add(&batch, id, &err), 0);
    CHECK_INT(batch.count, 2);
    const void *payload = hit_batch_payload(&batch, "gateway-1", &size);
    Crafterse__V1__Hits *hits =
        (Crafterse__V1__Hits *)codec_unpack(&crafterse__v1__hits__descriptor, payload, size, &err);
    REQUIRE(hits != NULL);
    CHECK_STR(hits->envelope->sender, "gateway-1");
    CHECK_INT(hits->n_ends, 2);
    CHECK_STR(hits->ends[0]->envelope->job_id, "one");
    CHECK_STR(hits->ends[1]->envelope->job_id, "xxx");
    codec_free(&hits->base);
    hit_batch_reset(&batch);
    CHECK_INT(batch.count, 0);
    CHECK_INT(add(&batch, id, &err), 0); /* an emptied one is as new */
    hit_batch_deinit(&batch);
}

TEST(a_full_batch_refuses_and_says_so_and_can_still_be_sent)
{
    struct hit_batch batch;
    struct error err;
    char id[] = "0190a0b0-0000-7000-8000-000000000000";
    size_t size;
    int result = 0;
    hit_batch_init(&batch);
    while (result == 0) {
        result = add(&batch, id, &err);
    }
    CHECK_INT(result, STATUS_TOO_LARGE);
    CHECK_CONTAINS(err.text, "wait for Kafka");
    const void *payload = hit_batch_payload(&batch, "gateway-1", &size);
    CHECK(size <= HIT_BATCH_BYTES_MAX);
    Crafterse__V1__Hits *hits =
        (Crafterse__V1__Hits *)codec_unpack(&crafterse__v1__hits__descriptor, payload, size, &err);
    REQUIRE(hits != NULL); /* readers' memory has room for a full one */
    CHECK_INT(hits->n_ends, batch.count);
    codec_free(&hits->base);
    hit_batch_deinit(&batch);
}

TEST_MAIN()
