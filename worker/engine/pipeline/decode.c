#include "worker/engine/pipeline/decode.h"

#include "common/base/panic.h"
#include "worker/engine/kernels/elementwise.h"
#include "worker/engine/pipeline/dump.h"

static bool decode_go_on(void *user, int step, int steps)
{
    return run_go_on(user, ENGINE_STAGE_DECODE, step, steps);
}

int decode(struct run *run, struct picture *out, struct error *err)
{
    const struct vae *vae = &run->components->vae;
    size_t mark = arena_mark(run->ex->step);
    struct tensor image; /* [1, height, width, 3] */
    if (!vae_decode(vae, run->ex, run->latents, decode_go_on, run, &image)) {
        arena_release(run->ex->step, mark);
        return run_stopped(run, err);
    }
    dump_add_map(run->dump, image, "image");
    int result = run_check_finite(run, image, "the picture from the VAE's decoder", err);
    if (result == STATUS_OK) {
        out->height = (int)image.shape[1];
        out->width = (int)image.shape[2];
        out->rgb = xmalloc((size_t)tensor_count(image));
        elementwise_to_rgb8(image.data, out->rgb, tensor_count(image));
    }
    arena_release(run->ex->step, mark);
    return result;
}
