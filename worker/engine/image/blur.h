/* Gaussian blur of 8-bit gray pictures, equal to Pillow's ImageFilter.GaussianBlur byte for byte:
 * what diffusers' VaeImageProcessor.blur does to a mask.
 *
 * Three box blurs a direction, of a width that is not whole (Gwosdek et al. 2011, "Theoretical
 * Foundations of Gaussian Convolution by Extended Box Filtering"); each pass rounds to bytes, and
 * the edge pixels stand for what lies outside.
 */
#ifndef WORKER_ENGINE_IMAGE_BLUR_H
#define WORKER_ENGINE_IMAGE_BLUR_H

#include <stdint.h>

/* In place, gray [height, width]; radius is the standard deviation in pixels, 0 does nothing. */
void blur_gaussian(uint8_t *gray, int width, int height, double radius);

#endif
