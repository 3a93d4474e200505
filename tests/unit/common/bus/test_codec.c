#include "common/bus/codec.h"

#include "common/base/panic.h"
#include "proto/result.pb-c.h"
#include "proto/worker.pb-c.h"
#include "tests/harness/test.h"

#define JOB crafterse__v1__job__descriptor

/* A small valid job; the caller frees the bytes. */
static uint8_t *pack_job(const char *job_id, const char *prompt, size_t *size)
{
    char id[128], text[256];
    snprintf(id, sizeof(id), "%s", job_id);
    snprintf(text, sizeof(text), "%s", prompt);
    Crafterse__V1__Envelope envelope = CRAFTERSE__V1__ENVELOPE__INIT;
    Crafterse__V1__Generation generation = CRAFTERSE__V1__GENERATION__INIT;
    Crafterse__V1__Job job = CRAFTERSE__V1__JOB__INIT;
    envelope.job_id = id;
    generation.prompt = text;
    job.envelope = &envelope;
    job.generation = &generation;
    return codec_pack(&job.base, size);
}

static bool is_refused(const void *bytes, size_t size, const char *why)
{
    struct error err = {0};
    ProtobufCMessage *message = codec_unpack(&JOB, bytes, size, &err);
    CHECK(message == NULL);
    CHECK_INT(err.status, STATUS_CORRUPT);
    CHECK_CONTAINS(err.text, why);
    codec_free(message);
    return message == NULL;
}

TEST(what_is_packed_is_read_back)
{
    size_t size = 0;
    struct error err = {0};
    uint8_t *bytes =
        pack_job("018f0000-0000-7000-8000-000000000000", "a sword \xF0\x9F\x97\xA1", &size);
    struct record record = {.payload = bytes, .size = size};
    Crafterse__V1__Job *job = CODEC_UNPACK(Crafterse__V1__Job, JOB, &record, &err);
    REQUIRE(job != NULL);
    CHECK_STR(job->envelope->job_id, "018f0000-0000-7000-8000-000000000000");
    CHECK_STR(job->generation->prompt, "a sword \xF0\x9F\x97\xA1");
    CHECK_STR(job->pool, "");
    codec_free(&job->base);
    codec_free(NULL);
    xfree(bytes);
}

TEST(bytes_that_are_no_message_are_refused)
{
    size_t size = 0;
    uint8_t *bytes = pack_job("a", "x", &size);
    is_refused(NULL, 0, "no payload");
    is_refused("hello world, this is text", 25, "protobuf cannot read");
    is_refused("\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF", 11, "protobuf cannot read");
    is_refused("\x0A\xFF\xFF\xFF\xFF\x0F", 6, "protobuf cannot read");
    for (size_t cut = 1; cut < size; cut++) {
        struct error err = {0};
        codec_free(codec_unpack(&JOB, bytes, cut, &err)); /* no crash; some cuts are valid */
    }
    xfree(bytes);
}

TEST(a_message_without_envelope_or_job_id_is_refused)
{
    size_t size = 0;
    Crafterse__V1__Job job = CRAFTERSE__V1__JOB__INIT;
    uint8_t *bytes = codec_pack(&job.base, &size);
    is_refused(bytes, size, "no envelope");
    xfree(bytes);
    bytes = pack_job("", "x", &size);
    is_refused(bytes, size, "no job id");
    xfree(bytes);
    bytes = pack_job("a/b\n", "x", &size);
    is_refused(bytes, size, "job id is not");
    xfree(bytes);
    bytes = pack_job("0123456789012345678901234567890123456789012345678901234567890123456789", "x",
                     &size);
    is_refused(bytes, size, "job id is not");
    xfree(bytes);
}

TEST(a_worker_announcement_needs_no_job_id)
{
    size_t size = 0;
    struct error err = {0};
    Crafterse__V1__Envelope envelope = CRAFTERSE__V1__ENVELOPE__INIT;
    Crafterse__V1__WorkerAnnouncement worker = CRAFTERSE__V1__WORKER_ANNOUNCEMENT__INIT;
    worker.envelope = &envelope;
    uint8_t *bytes = codec_pack(&worker.base, &size);
    ProtobufCMessage *message =
        codec_unpack(&crafterse__v1__worker_announcement__descriptor, bytes, size, &err);
    CHECK(message != NULL);
    codec_free(message);
    xfree(bytes);
}

TEST(text_that_is_not_utf8_is_refused_at_any_depth)
{
    size_t size = 0;
    uint8_t *bytes = pack_job("a", "bad \xFF prompt", &size);
    is_refused(bytes, size, "prompt is not valid UTF-8");
    xfree(bytes);

    char hash[] = "\xC3(";
    struct error err = {0};
    Crafterse__V1__Envelope envelope = CRAFTERSE__V1__ENVELOPE__INIT;
    Crafterse__V1__Image image = CRAFTERSE__V1__IMAGE__INIT, good = CRAFTERSE__V1__IMAGE__INIT;
    Crafterse__V1__Image *images[] = {&good, &image};
    Crafterse__V1__Result result = CRAFTERSE__V1__RESULT__INIT;
    char id[] = "a";
    envelope.job_id = id;
    image.content_hash = hash;
    result.envelope = &envelope;
    result.images = images;
    result.n_images = 2;
    bytes = codec_pack(&result.base, &size);
    CHECK(codec_unpack(&crafterse__v1__result__descriptor, bytes, size, &err) == NULL);
    CHECK_CONTAINS(err.text, "content_hash is not valid UTF-8");
    xfree(bytes);
}

TEST(a_small_record_cannot_ask_for_much_memory)
{
    /* A million empty sub-messages in two megabytes would be some hundred megabytes in memory. */
    size_t count = 1000000, size = 0;
    uint8_t *job = pack_job("a", "x", &size);
    uint8_t *bytes = xmalloc(size + 2 * count);
    memcpy(bytes, job, size);
    for (size_t i = 0; i < count; i++) {
        bytes[size + 2 * i] = 0x2A; /* field 5 (images), length-delimited */
        bytes[size + 2 * i + 1] = 0;
    }
    is_refused(bytes, size + 2 * count, "protobuf cannot read");
    xfree(bytes);
    xfree(job);
}

TEST(unknown_fields_survive_a_round_trip)
{
    size_t size = 0, again = 0;
    struct error err = {0};
    uint8_t *job = pack_job("a", "x", &size);
    uint8_t *bytes = xmalloc(size + 4);
    memcpy(bytes, job, size);
    memcpy(bytes + size, "\xA2\x06\x01z", 4); /* field 100: "z", of a later version */
    ProtobufCMessage *message = codec_unpack(&JOB, bytes, size + 4, &err);
    REQUIRE(message != NULL);
    uint8_t *packed = codec_pack(message, &again);
    CHECK_INT(again, size + 4);
    CHECK(memmem(packed, again, "\xA2\x06\x01z", 4) != NULL);
    codec_free(message);
    xfree(packed);
    xfree(bytes);
    xfree(job);
}

TEST_MAIN()
