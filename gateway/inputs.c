/* Input pictures: see inputs.h. */
#include "gateway/inputs.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include <cjson/cJSON.h>

#include "common/base/clock.h"
#include "common/base/digest.h"
#include "common/base/log.h"
#include "common/base/panic.h"
#include "gateway/gateway_metrics.h"
#include "gateway/generation_request.h"
#include "gateway/input_id.h"
#include "proto/input.pb-c.h"

/* A PNG begins with its signature and the IHDR chunk: length, "IHDR", width, height. */
#define PNG_HEADER_SIZE 24

struct input_upload {
    Crafterse__V1__Input input; /* its sha256 is the next field */
    char sha256[DIGEST_HEX_SIZE];
    size_t bytes;
};

static uint32_t read_u32(const unsigned char *bytes)
{
    return (uint32_t)bytes[0] << 24 | (uint32_t)bytes[1] << 16 | (uint32_t)bytes[2] << 8 | bytes[3];
}

bool inputs_png_size(const void *bytes, size_t size, uint32_t *width, uint32_t *height)
{
    static const unsigned char begin[16] = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n',
                                            0,    0,   0,   13,  'I',  'H',  'D',  'R'};
    if (size < PNG_HEADER_SIZE || memcmp(bytes, begin, sizeof(begin)) != 0) {
        return false;
    }
    *width = read_u32((const unsigned char *)bytes + 16);
    *height = read_u32((const unsigned char *)bytes + 20);
    return true;
}

void inputs_begin(struct operation *op)
{
    const char *type = http_request_header(op->request, "Content-Type");
    if (type == NULL || strcmp(type, "image/png") != 0) {
        gateway_metrics_refused(REFUSAL_INVALID);
        http_answer_problem(op->request, 415, "unsupported_media_type", NULL,
                            "Send the picture itself as the body, with Content-Type: image/png.");
        return;
    }
    if (!operation_check_capacity(op)) { /* before the picture is there */
        return;
    }
    int64_t most = op->gateway->config->input_bytes_max;
    if (op->gateway->context->kafka->embedded && most > GENERATION_EMBEDDED_BYTES_MAX) {
        most = GENERATION_EMBEDDED_BYTES_MAX;
    }
    http_request_expect_body(op->request, (size_t)most);
}

/* Fills the upload from the body; false: answered. */
static bool read_picture(struct operation *op, struct input_upload *upload)
{
    const char *bytes = http_request_body(op->request, &upload->bytes);
    uint32_t width = 0, height = 0;
    crafterse__v1__input__init(&upload->input);
    if (!inputs_png_size(bytes, upload->bytes, &width, &height)) {
        gateway_metrics_refused(REFUSAL_INVALID);
        http_answer_problem(op->request, 422, "invalid_picture", NULL,
                            "The body is not a PNG (%zu bytes).", upload->bytes);
        return false;
    }
    if (width < 1 || width > INPUT_SIDE_MAX || height < 1 || height > INPUT_SIDE_MAX) {
        gateway_metrics_refused(REFUSAL_INVALID);
        http_answer_problem(op->request, 422, "invalid_picture", NULL,
                            "The picture has %" PRIu32 " x %" PRIu32
                            " pixels; 1 to %d a side are allowed.",
                            width, height, INPUT_SIDE_MAX);
        return false;
    }
    upload->input.width = width;
    upload->input.height = height;
    digest_sha256_hex(bytes, upload->bytes, upload->sha256);
    upload->input.sha256 = upload->sha256;
    return true;
}

static void answer_created(struct operation *op)
{
    const struct input_upload *upload = op->upload;
    char id[INPUT_ID_SIZE], expires[CLOCK_TEXT_SIZE];
    input_id_format(&upload->input, id);
    clock_format_utc(clock_unix_ms() + (uint64_t)topic_policy(TOPIC_INPUTS)->retention_ms, expires);
    cJSON *root = cJSON_CreateObject();
    cJSON_AddStringToObject(root, "id", id);
    cJSON_AddStringToObject(root, "sha256", upload->sha256);
    cJSON_AddNumberToObject(root, "width", upload->input.width);
    cJSON_AddNumberToObject(root, "height", upload->input.height);
    cJSON_AddNumberToObject(root, "bytes", (double)upload->bytes);
    cJSON_AddStringToObject(root, "expires_at", expires);
    char *printed = cJSON_PrintUnformatted(root);
    http_answer(op->request, 201, "application/json", xstrdup(printed));
    cJSON_free(printed);
    cJSON_Delete(root);
}

static void on_passed(struct operation *op)
{
    gateway_metrics_refused(REFUSAL_UNAVAILABLE);
    operation_answer_unavailable(op, "kafka_unavailable",
                                 "Kafka has not confirmed the picture in time. Send it again.");
}

static void on_delivered(void *user, const struct error *err, const struct producer_place *place)
{
    struct operation *op = user;
    if (err != NULL) {
        log_warn("input picture not accepted", "reason=%s", LOG_QUOTED(err->text));
    }
    if (operation_is_open(op)) {
        op->deadline_ms = 0;
        if (err == NULL) {
            op->upload->input.partition = place->partition;
            op->upload->input.offset = place->offset;
            answer_created(op);
        } else if (err->status == STATUS_TOO_LARGE) {
            gateway_metrics_refused(REFUSAL_INVALID);
            http_answer_problem(op->request, 413, "body_too_large", NULL,
                                "Kafka takes no picture of %zu bytes: its topic %s allows less.",
                                op->upload->bytes, "inputs");
        } else {
            on_passed(op);
        }
    }
    operation_release(op);
}

void inputs_handle(struct operation *op)
{
    struct input_upload *upload = xcalloc(1, sizeof(*upload));
    op->upload = upload;
    if (!read_picture(op, upload)) {
        return;
    }
    Crafterse__V1__Envelope envelope;
    Crafterse__V1__InputPicture message;
    struct error err;
    crafterse__v1__envelope__init(&envelope);
    crafterse__v1__input_picture__init(&message);
    /* protobuf-c's fields are not const; packing only reads. */
    union {
        const char *read_only;
        uint8_t *data;
    } bytes = {.read_only = http_request_body(op->request, &upload->bytes)};
    message.envelope = &envelope;
    message.key_id = op->key_id;
    message.sha256 = upload->sha256;
    message.png.data = bytes.data;
    message.png.len = upload->bytes;
    operation_retain(op);
    if (bus_send(op->gateway->bus, TOPIC_INPUTS, &message.base, on_delivered, op, &err) != 0) {
        on_delivered(op, &err, NULL);
        return;
    }
    op->passed = on_passed;
    op->deadline_ms = clock_monotonic_ms() + (uint64_t)op->gateway->config->accept_timeout_ms;
}
