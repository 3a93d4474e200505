/* A PNG file in memory to 8-bit pixels: the pictures and masks that a request brings.
 *
 * Every kind of PNG is read: gray, palette and RGB of 1 to 16 bits, with or without alpha or a
 * transparent colour, interlaced or not. 16 bits become the upper 8, as Pillow does. Colour
 * profiles and gamma are not applied, as in Pillow and diffusers.
 *
 * The file comes from outside: its size in pixels is checked against the limits below, and against
 * what so many bytes can unpack to, before anything of that size is allocated; of the chunks that
 * are not needed none is kept.
 */
#ifndef WORKER_ENGINE_IMAGE_PNG_READ_H
#define WORKER_ENGINE_IMAGE_PNG_READ_H

#include <stddef.h>
#include <stdint.h>

#include "common/base/error.h"

#define PNG_READ_SIDE_MAX 16384
#define PNG_READ_PIXELS_MAX ((int64_t)32 << 20)

/* Width and height without unpacking the pixels. Errors as below. */
int png_read_size(const uint8_t *bytes, size_t size, int *width, int *height,
                  struct error *err) MUST_CHECK;

/* *rgb [height, width, 3] (xfree). What is transparent shows white, as A1111 does it by default
 * (Pillow's convert("RGB") would drop the alpha and show what editors leave below it).
 * STATUS_CORRUPT: not a PNG, or damaged; STATUS_TOO_LARGE: over the limits. On failure *rgb is
 * NULL. */
int png_read_rgb(const uint8_t *bytes, size_t size, int *width, int *height, uint8_t **rgb,
                 struct error *err) MUST_CHECK;

/* *gray [height, width] (xfree), the mask that the file stands for, as A1111 reads masks: the alpha
 * channel when any pixel is less than opaque, else the brightness (Pillow's convert("L"), ITU-R
 * 601). Errors as above. */
int png_read_mask(const uint8_t *bytes, size_t size, int *width, int *height, uint8_t **gray,
                  struct error *err) MUST_CHECK;

#endif
