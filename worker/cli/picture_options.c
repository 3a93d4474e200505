#include "worker/cli/picture_options.h"

#include <stdio.h>

#include "common/base/panic.h"
#include "worker/cli/file.h"
#include "worker/engine/image/png.h"
#include "worker/engine/image/png_read.h"

#define FILE_BYTES_MAX ((size_t)256 << 20)

/* One of the functions of png_read.h. */
typedef int (*read_png)(const uint8_t *bytes, size_t size, int *width, int *height,
                        uint8_t **pixels, struct error *err);

/* Nothing when there is no path. */
static int load(const char *path, read_png read, int *width, int *height, uint8_t **pixels,
                struct error *err)
{
    uint8_t *bytes = NULL;
    size_t size = 0;
    if (path == NULL) {
        return STATUS_OK;
    }
    int result = file_read(path, FILE_BYTES_MAX, &bytes, &size, err);
    if (result == STATUS_OK && (result = read(bytes, size, width, height, pixels, err)) < 0) {
        error_wrap(err, "%s", path);
    }
    xfree(bytes);
    return result;
}

int picture_options_load(struct picture_options *options, struct error *err)
{
    struct engine_picture *init = &options->init_image;
    struct engine_mask *mask = &options->mask_image;
    int result =
        load(options->init_path, png_read_rgb, &init->width, &init->height, &options->rgb, err);
    if (result == STATUS_OK) {
        result = load(options->mask_path, png_read_mask, &mask->width, &mask->height,
                      &options->gray, err);
    }
    init->rgb = options->rgb;
    mask->gray = options->gray;
    return result;
}

void picture_options_deinit(struct picture_options *options)
{
    xfree(options->rgb);
    xfree(options->gray);
}

static int fit(int side, int multiple, int most)
{
    side = side < most ? side : most;
    return side > multiple ? side / multiple * multiple : multiple;
}

void picture_options_apply(const struct picture_options *options,
                           const struct engine_limits *limits, struct generation *generation)
{
    const struct engine_picture *init = options->init_path != NULL ? &options->init_image : NULL;
    generation->init_image = init;
    generation->mask_image = options->mask_path != NULL ? &options->mask_image : NULL;
    if (init != NULL && generation->width == 0) {
        generation->width = fit(init->width, limits->size_multiple, limits->width_max);
    }
    if (init != NULL && generation->height == 0) {
        generation->height = fit(init->height, limits->size_multiple, limits->height_max);
    }
}

void picture_options_write_preview(const char *path, const struct engine_picture *picture)
{
    struct error err;
    uint8_t *bytes = NULL;
    size_t size = 0;
    if (png_encode_fast(picture->rgb, picture->width, picture->height, &bytes, &size, &err) < 0 ||
        file_write(path, bytes, size, &err) < 0) {
        fprintf(stderr, "txt2img: %s\n", err.text);
    }
    xfree(bytes);
}
