#include "worker/inputs.h"

#include <string.h>

#include "common/base/digest.h"
#include "common/base/panic.h"
#include "common/bus/codec.h"
#include "common/bus/record_reader.h"
#include "common/bus/topics.h"
#include "proto/input.pb-c.h"

struct inputs_reader {
    const struct kafka_config *kafka;
    struct record_reader *records; /* NULL until the first order that names a picture */
};

struct inputs_reader *inputs_reader_create(const struct kafka_config *kafka)
{
    struct inputs_reader *reader = xcalloc(1, sizeof(*reader));
    reader->kafka = kafka;
    return reader;
}

void inputs_reader_destroy(struct inputs_reader *reader)
{
    if (reader != NULL) {
        record_reader_destroy(reader->records);
        xfree(reader);
    }
}

static int open_records(struct inputs_reader *reader, struct error *err)
{
    char topic[TOPIC_NAME_MAX];
    if (reader->records != NULL) {
        return STATUS_OK;
    }
    topic_name(reader->kafka, TOPIC_INPUTS, "", topic);
    return record_reader_create(&reader->records, reader->kafka, topic, err);
}

/* The order is only a claim: anybody can write an id. */
static int check(const Crafterse__V1__InputPicture *picture, const Crafterse__V1__Input *input,
                 const char *key_id, const char *field, struct error *err)
{
    char sha256[DIGEST_HEX_SIZE];
    if (strcmp(picture->key_id, key_id) != 0) {
        return ERROR(err, STATUS_DENIED, "%s: there is no such picture of this API key", field);
    }
    digest_sha256_hex(picture->png.data, picture->png.len, sha256);
    if (strcmp(sha256, input->sha256) != 0) {
        return ERROR(err, STATUS_CORRUPT,
                     "%s: the picture there has the SHA-256 %.12s..., the order names %.12s...",
                     field, sha256, input->sha256);
    }
    return STATUS_OK;
}

static int unpack(const uint8_t *payload, size_t size, const Crafterse__V1__Input *input,
                  const char *key_id, const char *field, uint8_t **png, size_t *png_size,
                  struct error *err)
{
    ProtobufCMessage *message =
        codec_unpack(&crafterse__v1__input_picture__descriptor, payload, size, err);
    if (message == NULL) {
        return error_wrap(err, "%s", field);
    }
    Crafterse__V1__InputPicture *picture = (Crafterse__V1__InputPicture *)message;
    int result = check(picture, input, key_id, field, err);
    if (result == STATUS_OK) {
        *png_size = picture->png.len;
        *png = xmalloc(*png_size);
        memcpy(*png, picture->png.data, *png_size);
    }
    codec_free(message);
    return result;
}

static int fetch(struct inputs_reader *reader, const Crafterse__V1__Input *input,
                 const char *key_id, const char *field, uint8_t **png, size_t *png_size,
                 struct error *err)
{
    uint8_t *payload = NULL;
    size_t size = 0;
    if (input == NULL) {
        return STATUS_OK;
    }
    int result = open_records(reader, err);
    if (result == STATUS_OK) {
        result = record_reader_read(reader->records, input->partition, input->offset,
                                    INPUTS_TIMEOUT_MS, &payload, &size, err);
    }
    if (result < 0) {
        return error_wrap(err, "%s", field);
    }
    result = unpack(payload, size, input, key_id, field, png, png_size, err);
    xfree(payload);
    return result;
}

int inputs_fetch(struct inputs_reader *reader, const Crafterse__V1__Job *job, struct inputs *out,
                 struct error *err)
{
    const Crafterse__V1__Generation *wanted = job->generation;
    memset(out, 0, sizeof(*out));
    int result = fetch(reader, wanted->init_image, job->key_id, "init_image", &out->init_png,
                       &out->init_size, err);
    if (result == STATUS_OK) {
        result = fetch(reader, wanted->mask_image, job->key_id, "mask_image", &out->mask_png,
                       &out->mask_size, err);
    }
    return result;
}

void inputs_deinit(struct inputs *inputs)
{
    xfree(inputs->init_png);
    xfree(inputs->mask_png);
    memset(inputs, 0, sizeof(*inputs));
}
