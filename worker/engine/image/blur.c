#include "worker/engine/image/blur.h"

#include <math.h>
#include <string.h>

#include "common/base/panic.h"

#define PASSES 3
#define ONE (1 << 24) /* of the fixed point weights */

/* The half width of boxes that together have the variance radius * radius. In float, as Pillow
 * computes it. */
static float box_radius(float radius)
{
    float variance = radius * radius / PASSES;
    float length = (float)sqrt(12.0 * (double)variance + 1.0);
    float whole = (float)floor(((double)length - 1.0) / 2.0);
    float part = (2 * whole + 1) * (whole * (whole + 1) - 3 * variance);
    part /= 6 * (variance - (whole + 1) * (whole + 1));
    return whole + part;
}

struct box {
    int radius;            /* whole pixels on each side */
    uint32_t weight, edge; /* of a whole pixel, and of the two at the ends */
};

static int clamp(int i, int size)
{
    return i < 0 ? 0 : i >= size ? size - 1 : i;
}

static void blur_line(const struct box *box, const uint8_t *from, uint8_t *to, int size)
{
    uint32_t sum = 0;
    for (int i = -box->radius - 1; i < box->radius; i++) {
        sum += from[clamp(i, size)];
    }
    for (int i = 0; i < size; i++) { /* the sum is of the box one to the left of i */
        uint32_t before = from[clamp(i - box->radius - 1, size)];
        uint32_t after = from[clamp(i + box->radius + 1, size)];
        sum += from[clamp(i + box->radius, size)] - before;
        to[i] = (uint8_t)((sum * box->weight + (before + after) * box->edge + ONE / 2) / ONE);
    }
}

/* All passes over one line, which is in line; the result is there too. */
static void blur_passes(const struct box *box, uint8_t *line, uint8_t *scratch, int size)
{
    for (int pass = 0; pass < PASSES; pass++) {
        blur_line(box, line, scratch, size);
        memcpy(line, scratch, (size_t)size);
    }
}

void blur_gaussian(uint8_t *gray, int width, int height, double radius)
{
    float half = box_radius((float)radius);
    if (!(radius > 0)) {
        return;
    }
    struct box box = {.radius = (int)half, .weight = (uint32_t)((float)ONE / (half * 2 + 1))};
    box.edge = (ONE - ((uint32_t)box.radius * 2 + 1) * box.weight) / 2;
    size_t longest = (size_t)(width > height ? width : height);
    uint8_t *line = xmalloc(longest), *scratch = xmalloc(longest);
    for (int y = 0; y < height; y++) {
        blur_passes(&box, gray + (size_t)y * (size_t)width, scratch, width);
    }
    for (int x = 0; x < width; x++) {
        for (int y = 0; y < height; y++) {
            line[y] = gray[(size_t)y * (size_t)width + (size_t)x];
        }
        blur_passes(&box, line, scratch, height);
        for (int y = 0; y < height; y++) {
            gray[(size_t)y * (size_t)width + (size_t)x] = line[y];
        }
    }
    xfree(line);
    xfree(scratch);
}
