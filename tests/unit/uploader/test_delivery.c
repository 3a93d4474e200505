/* What the uploader reads out of a result, and the terminal state that it writes. */
#include "uploader/delivery.h"

#include "common/base/panic.h"
#include "common/bus/codec.h"
#include "tests/harness/test.h"

#define JOB_ID "0192f3a4-0000-7000-8000-000000000001"
#define HASH_A "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
#define HASH_B "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"

static char job_id[] = JOB_ID, trace[] = "00-11-22-01", key_id[] = "studio", worker_id[] = "w1";
static char hash_a[] = HASH_A, hash_b[] = HASH_B, hash_bad[] = "../../etc/passwd";
static uint8_t png[] = "\x89PNG\r\n\x1a\n and the rest";

/* A result of picture `index` of two, that a test may spoil before it is packed. */
struct message {
    Crafterse__V1__Envelope envelope;
    Crafterse__V1__Image images[2], image;
    Crafterse__V1__Image *pointers[2];
    Crafterse__V1__Timings timings;
    Crafterse__V1__Result result;
};

static void message_init(struct message *m, uint32_t index)
{
    crafterse__v1__envelope__init(&m->envelope);
    crafterse__v1__timings__init(&m->timings);
    crafterse__v1__result__init(&m->result);
    m->envelope.job_id = job_id;
    m->envelope.attempt = 2;
    m->envelope.traceparent = trace;
    m->timings.denoise_ms = 1234;
    for (uint32_t i = 0; i < 2; i++) {
        crafterse__v1__image__init(&m->images[i]);
        m->images[i].index = i;
        m->images[i].seed = 40 + i;
        m->images[i].content_hash = i == 0 ? hash_a : hash_b;
        m->images[i].width = 128;
        m->pointers[i] = &m->images[i];
    }
    m->image = m->images[index];
    m->result.envelope = &m->envelope;
    m->result.image = &m->image;
    m->result.png = (ProtobufCBinaryData){.len = sizeof(png), .data = png};
    m->result.images = m->pointers;
    m->result.n_images = 2;
    m->result.timings = &m->timings;
    m->result.accepted_ms = 1000;
    m->result.rendered_ms = 9000;
    m->result.key_id = key_id;
    m->result.worker_id = worker_id;
}

static int create(struct delivery **out, const struct message *m, struct error *err)
{
    size_t size = 0;
    uint8_t *bytes = codec_pack(&m->result.base, &size);
    struct record record = {.topic = "results", .key = JOB_ID, .payload = bytes, .size = size};
    int rc = delivery_create(out, &record, "p/", err);
    xfree(bytes);
    return rc;
}

static void release(struct delivery *d)
{
    memset(&d->record, 0, sizeof(d->record));
    delivery_destroy(d);
}

TEST(a_result_knows_its_keys_and_whether_it_is_the_last)
{
    for (uint32_t index = 0; index < 2; index++) {
        struct message m;
        struct delivery *d = NULL;
        struct error err;
        message_init(&m, index);
        CHECK_INT(create(&d, &m, &err), 0);
        REQUIRE(d != NULL);
        CHECK_INT(d->index, index);
        CHECK_INT(d->is_last, index == 1);
        CHECK_CONTAINS(d->keys[0], HASH_A);
        CHECK_CONTAINS(d->keys[1], HASH_B);
        CHECK_INT(strncmp(d->keys[0], "p/", 2), 0);
        release(d);
    }
}

/* The Status as a reader of the topic gets it; codec_free. */
static Crafterse__V1__Status *status_read_back(struct delivery *d)
{
    struct delivery_status terminal;
    struct error err;
    size_t size = 0;
    delivery_status_init(&terminal, d);
    uint8_t *bytes = codec_pack(&terminal.status.base, &size);
    delivery_status_deinit(&terminal);
    Crafterse__V1__Status *status = (Crafterse__V1__Status *)codec_unpack(
        &crafterse__v1__status__descriptor, bytes, size, &err);
    xfree(bytes);
    return status;
}

TEST(the_last_picture_ends_the_job_with_all_of_them)
{
    struct message m;
    struct delivery *d = NULL;
    struct error err;
    message_init(&m, 1);
    REQUIRE(create(&d, &m, &err) == 0);
    d->sizes[0] = 111;
    d->sizes[1] = 222;
    d->stored_ms = 9500;
    Crafterse__V1__Status *status = status_read_back(d);
    REQUIRE(status != NULL);
    CHECK_INT(status->state, CRAFTERSE__V1__STATE__STATE_SUCCEEDED);
    CHECK_STR(status->envelope->job_id, JOB_ID);
    CHECK_STR(status->envelope->traceparent, "00-11-22-01");
    CHECK_INT(status->envelope->attempt, 2);
    CHECK_STR(status->key_id, "studio");
    CHECK_STR(status->worker_id, "w1");
    CHECK_INT(status->n_images, 2);
    for (size_t i = 0; i < status->n_images; i++) {
        CHECK_INT(status->images[i]->index, i);
        CHECK_INT(status->images[i]->seed, 40 + i);
        CHECK_STR(status->images[i]->object_key, d->keys[i]);
        CHECK_INT(status->images[i]->bytes, i == 0 ? 111 : 222);
        CHECK_INT(status->images[i]->width, 128);
    }
    CHECK_INT(status->timings->denoise_ms, 1234);
    CHECK_INT(status->timings->upload_ms, 500);
    CHECK_INT(status->timings->total_ms, 8500);
    codec_free(&status->base);
    release(d);
}

TEST(a_picture_that_the_store_never_takes_fails_the_job)
{
    struct message m;
    struct delivery *d = NULL;
    struct error err;
    message_init(&m, 0);
    REQUIRE(create(&d, &m, &err) == 0);
    d->end = DELIVERY_REFUSED;
    (void)ERROR(&d->error, STATUS_TOO_LARGE, "too large for the store");
    Crafterse__V1__Status *status = status_read_back(d);
    REQUIRE(status != NULL);
    CHECK_INT(status->state, CRAFTERSE__V1__STATE__STATE_FAILED);
    CHECK_STR(status->reason, "storage_refused");
    CHECK_STR(status->message, "too large for the store");
    CHECK_INT(status->n_images, 0);
    codec_free(&status->base);
    release(d);
}

TEST(clocks_that_disagree_give_no_negative_times)
{
    struct message m;
    struct delivery *d = NULL;
    struct error err;
    message_init(&m, 1);
    REQUIRE(create(&d, &m, &err) == 0);
    d->stored_ms = 500;
    Crafterse__V1__Status *status = status_read_back(d);
    REQUIRE(status != NULL);
    CHECK_INT(status->timings->upload_ms, 0);
    CHECK_INT(status->timings->total_ms, 0);
    codec_free(&status->base);
    release(d);
}

static void check_refused(const struct message *m, const char *message)
{
    struct delivery *d = NULL;
    struct error err;
    CHECK(create(&d, m, &err) < 0);
    CHECK_CONTAINS(err.text, message);
    CHECK(d == NULL);
}

TEST(results_that_cannot_be_used_are_refused_with_the_reason)
{
    struct message m;
    message_init(&m, 0);
    m.images[1].content_hash = hash_bad;
    check_refused(&m, "../../etc/passwd");
    message_init(&m, 0);
    m.image.index = 2;
    check_refused(&m, "none of its job's 2 pictures");
    message_init(&m, 0);
    m.image.index = 1;
    check_refused(&m, "content hash");
    message_init(&m, 0);
    m.result.image = NULL;
    check_refused(&m, "none of its job's");
    message_init(&m, 0);
    m.result.n_images = 0;
    check_refused(&m, "0 pictures");
    message_init(&m, 0);
    m.result.png.len = 8;
    check_refused(&m, "not a PNG");
    message_init(&m, 0);
    m.envelope.job_id = hash_bad + strlen(hash_bad);
    check_refused(&m, "job id");
}

TEST(bytes_that_are_no_message_are_corrupt)
{
    struct record record = {.topic = "results", .key = "", .payload = "\xff\xff\xff", .size = 3};
    struct delivery *d = NULL;
    struct error err;
    CHECK_INT(delivery_create(&d, &record, "", &err), STATUS_CORRUPT);
    CHECK_INT(record.size, 3);
    record = (struct record){.topic = "results", .key = "", .payload = NULL, .size = 0};
    CHECK_INT(delivery_create(&d, &record, "", &err), STATUS_CORRUPT);
}

TEST_MAIN()
