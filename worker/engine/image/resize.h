/* Lanczos resampling of 8-bit pictures, equal to Pillow's resize(..., LANCZOS) byte for byte: what
 * diffusers' VaeImageProcessor does to a picture that is not of the asked size.
 *
 * Three lobes, widened by the scale when the picture shrinks; rows first, then columns, each
 * rounded to bytes; weights in fixed point of 22 bits. Source: Pillow 12, the description of its
 * filters; the numbers by comparison with it.
 */
#ifndef WORKER_ENGINE_IMAGE_RESIZE_H
#define WORKER_ENGINE_IMAGE_RESIZE_H

#include <stdint.h>

/* from [height, width, channels] -> [new_height, new_width, channels], xfree. Sides are from 1 to
 * 65535. The same size is a copy. */
uint8_t *resize_lanczos(const uint8_t *from, int width, int height, int channels, int new_width,
                        int new_height);

#endif
