/* Any bytes as a PNG picture and as a mask: refused in words, or pixels of the size that was said.
 * Checksums of chunks are put right first, or no mutation would get past the first. */
#include <string.h>

#include "common/base/panic.h"
#include "tests/fuzz/fuzz.h"
#include "worker/engine/image/png_read.h"

#define SIGNATURE 8
#define CHUNK_FRAME 12 /* length, type, checksum */

static uint32_t big_endian(const uint8_t *at)
{
    return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

static uint32_t checksum(const uint8_t *at, size_t size)
{
    uint32_t sum = 0xFFFFFFFF;
    for (size_t i = 0; i < size; i++) {
        sum ^= at[i];
        for (int bit = 0; bit < 8; bit++) {
            sum = sum >> 1 ^ (0xEDB88320 & -(sum & 1));
        }
    }
    return ~sum;
}

static void mend(uint8_t *bytes, size_t size)
{
    for (size_t at = SIGNATURE; at + CHUNK_FRAME <= size;) {
        size_t length = big_endian(bytes + at);
        if (length > size - at - CHUNK_FRAME) {
            return;
        }
        uint32_t sum = checksum(bytes + at + 4, length + 4);
        for (int i = 0; i < 4; i++) {
            bytes[at + 8 + length + (size_t)i] = (uint8_t)(sum >> (24 - 8 * i));
        }
        at += CHUNK_FRAME + length;
    }
}

static unsigned touch(const uint8_t *pixels, size_t count)
{
    unsigned sum = 0;
    for (size_t i = 0; i < count; i++) {
        sum += pixels[i];
    }
    return sum;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct error err;
    int width = 0, height = 0, known_width = 0, known_height = 0;
    uint8_t *bytes = xmalloc(size + 1), *rgb = NULL, *gray = NULL;
    memcpy(bytes, data, size);
    mend(bytes, size);
    int known = png_read_size(bytes, size, &known_width, &known_height, &err);
    if (png_read_rgb(bytes, size, &width, &height, &rgb, &err) == STATUS_OK) {
        ASSERT(known == STATUS_OK && width == known_width && height == known_height);
        volatile unsigned sum = touch(rgb, (size_t)width * (size_t)height * 3);
        (void)sum;
    } else {
        ASSERT(rgb == NULL && err.text[0] != '\0');
    }
    if (png_read_mask(bytes, size, &width, &height, &gray, &err) == STATUS_OK) {
        ASSERT(known == STATUS_OK && width == known_width && height == known_height);
        volatile unsigned sum = touch(gray, (size_t)width * (size_t)height);
        (void)sum;
    } else {
        ASSERT(gray == NULL && err.text[0] != '\0');
    }
    xfree(rgb);
    xfree(gray);
    xfree(bytes);
    return 0;
}
