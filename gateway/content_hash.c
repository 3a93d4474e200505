/* The canonical form of a picture and its hash: see content_hash.h. Written by hand, line by line,
 * instead of hashing a serialized message, because protobuf promises no canonical bytes. */
#include "gateway/content_hash.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/panic.h"

/* Prompts are limited long before this (generation_request.h). */
#define CANONICAL_BYTES_MAX (256 * 1024)

static void shortest_decimal(double value, char text[32])
{
    for (int precision = 1; precision <= 17; precision++) {
        snprintf(text, 32, "%.*g", precision, value);
        if (strtod(text, NULL) == value) {
            return;
        }
    }
}

static int append_text(struct buf *out, const char *name, const char *text, struct error *err)
{
    size_t size = strlen(text);
    int result = buf_printf(out, err, "%s %zu\n", name, size);
    if (result == 0) {
        result = buf_append(out, text, size, err);
    }
    return result == 0 ? buf_append(out, "\n", 1, err) : result;
}

int content_hash_canonical(const Crafterse__V1__Generation *generation, uint64_t seed,
                           struct buf *out, struct error *err)
{
    char guidance[32];
    shortest_decimal(generation->guidance_scale, guidance);
    const char *model =
        generation->model_digest[0] != '\0' ? generation->model_digest : generation->model;
    int result =
        buf_printf(out, err,
                   "crafterse picture 1\nmodel %s\nsize %" PRIu32 "x%" PRIu32 "\nsteps %" PRIu32
                   "\nguidance %s\nscheduler %s\nseed %" PRIu64 "\nformat png\n",
                   model, generation->width, generation->height, generation->steps, guidance,
                   generation->scheduler, seed);
    if (result == 0) {
        result = append_text(out, "prompt", generation->prompt, err);
    }
    return result == 0 ? append_text(out, "negative", generation->negative_prompt, err) : result;
}

void content_hash(const Crafterse__V1__Generation *generation, uint64_t seed,
                  char hex[DIGEST_HEX_SIZE])
{
    struct buf canonical;
    struct error err;
    buf_init(&canonical, CANONICAL_BYTES_MAX);
    if (content_hash_canonical(generation, seed, &canonical, &err) != 0) {
        PANIC("canonical form: %s", err.text);
    }
    digest_sha256_hex(canonical.data, canonical.size, hex);
    buf_deinit(&canonical);
}
