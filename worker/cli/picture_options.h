/* txt2img's pictures that come in and are on the way: --init-image, --mask, --preview. */
#ifndef WORKER_CLI_PICTURE_OPTIONS_H
#define WORKER_CLI_PICTURE_OPTIONS_H

#include "worker/engine/engine.h"

struct picture_options {
    const char *init_path, *mask_path, *preview_path; /* NULL: none */

    struct engine_picture init_image; /* what was read: picture_options_load */
    struct engine_mask mask_image;
    uint8_t *rgb, *gray; /* owned: their pixels */
};

/* Read the files; picture_options_deinit also after a failure. STATUS_NOT_FOUND, STATUS_IO,
 * STATUS_TOO_LARGE or STATUS_CORRUPT, naming the file. */
int picture_options_load(struct picture_options *options, struct error *err) MUST_CHECK;
void picture_options_deinit(struct picture_options *options);

/* Put them into a generation, which must not outlive the options. A size of 0 becomes that of the
 * picture to start from, cut to what the engine takes. */
void picture_options_apply(const struct picture_options *options,
                           const struct engine_limits *limits, struct generation *generation);

/* Write a preview over the file at path. What fails is said on stderr and is no reason to stop. */
void picture_options_write_preview(const char *path, const struct engine_picture *picture);

#endif
