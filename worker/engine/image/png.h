/* RGB8 pixels to a PNG file in memory, with text that says how the picture was made.
 *
 * Text goes into tEXt chunks when it is plain Latin-1-safe ASCII and into iTXt (UTF-8) otherwise,
 * uncompressed in both cases, so that any tool can read it. The output is a pure function of the
 * input: no timestamps.
 */
#ifndef WORKER_ENGINE_IMAGE_PNG_H
#define WORKER_ENGINE_IMAGE_PNG_H

#include <stddef.h>
#include <stdint.h>

#include "common/base/error.h"

struct png_text {
    const char *keyword; /* 1 to 79 ASCII characters, for example "parameters" */
    const char *text;    /* UTF-8 */
};

/* Encode rgb [height, width, 3]. On success *bytes (xfree) and *size hold the file; on failure
 * *bytes is NULL. texts may be NULL when text_count is 0. */
int png_encode(const uint8_t *rgb, int width, int height, const struct png_text *texts,
               size_t text_count, uint8_t **bytes, size_t *size, struct error *err) MUST_CHECK;

/* The same without texts, several times faster for some more bytes: for previews. */
int png_encode_fast(const uint8_t *rgb, int width, int height, uint8_t **bytes, size_t *size,
                    struct error *err) MUST_CHECK;

#endif
