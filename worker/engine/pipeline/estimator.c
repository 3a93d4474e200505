#include "worker/engine/pipeline/estimator.h"

#include "worker/engine/pipeline/conditioning.h"
#include "worker/engine/pipeline/guidance.h"
#include "worker/engine/pipeline/memory.h"
#include "worker/engine/pipeline/run.h"

/* Address space, not memory. */
#define STEP_RESERVE ((size_t)64 << 30)
#define JOB_RESERVE ((size_t)4 << 30)

/* A scheduler keeps some earlier predictions, inpainting its originals, of the latents' size. */
#define SCHEDULER_MAPS 8

#define PICTURE_CHANNELS 3

/* What a thread of OpenBLAS touches of its buffers. */
#define BLAS_BYTES_A_THREAD ((uint64_t)5 << 19)

/* ---- Activations ----------------------------------------------------------------------------- */

static void count_step(struct run *run, struct engine_estimate *out)
{
    const struct components *components = run->components;
    struct arena *step = run->ex->step;
    int64_t n = guidance_batch(run_guidance(run));
    struct tensor input = run->latents;
    input.shape[0] = n;
    arena_reset_peak(step);
    size_t mark = arena_mark(step);
    input = tensor_like(step, input, components->unet.config.in_channels);
    shortcuts_init(&run->shortcuts, run->generation, n, run->job);
    (void)shortcuts_forward(&run->shortcuts, 0, &components->unet, run->ex, input, 1,
                            &run->condition);
    arena_release(step, mark);
    out->step = arena_peak(step);
}

static void count_decode(struct run *run, struct engine_estimate *out)
{
    struct tensor image;
    arena_reset_peak(run->ex->step);
    size_t mark = arena_mark(run->ex->step);
    (void)vae_decode(&run->components->vae, run->ex, run->latents, NULL, NULL, &image);
    arena_release(run->ex->step, mark);
    out->decode = arena_peak(run->ex->step);
}

/* A picture to start from. */
static void count_encode(struct run *run, struct engine_estimate *out)
{
    const struct generation *generation = run->generation;
    struct tensor code;
    arena_reset_peak(run->ex->step);
    size_t mark = arena_mark(run->ex->step);
    struct tensor image =
        tensor_4d(run->ex->step, 1, generation->height, generation->width, PICTURE_CHANNELS);
    (void)vae_encode(&run->components->vae, run->ex, image, NULL, NULL, &code);
    arena_release(run->ex->step, mark);
    out->encode = arena_peak(run->ex->step);
}

static int count_stages(struct run *run, struct engine_estimate *out, struct error *err)
{
    const struct generation *generation = run->generation;
    const struct vae_config *vae = &run->components->vae.config;
    int result = conditioning_encode(run, err);
    if (result < 0) {
        return result;
    }
    conditioning_project(run);
    out->text = arena_peak(run->ex->step);
    int64_t height = generation->height / vae->factor, width = generation->width / vae->factor;
    run->latents = tensor_4d(run->job, 1, height, width, vae->latent_channels);
    for (int i = 0; i < SCHEDULER_MAPS; i++) {
        (void)tensor_4d(run->job, 1, height, width, vae->latent_channels);
    }
    count_step(run, out);
    count_decode(run, out);
    if (generation->init_image != NULL) {
        count_encode(run, out);
    }
    size_t most = out->text > out->step ? out->text : out->step;
    most = most > out->decode ? most : out->decode;
    most = most > out->encode ? most : out->encode;
    out->activations = most + arena_peak(run->job);
    return STATUS_OK;
}

static int count_activations(const struct estimator *estimator, const struct generation *generation,
                             struct engine_estimate *out, struct error *err)
{
    struct exec ex = {.wrap_x = generation->tile_x, .wrap_y = generation->tile_y};
    struct run run = {.components = estimator->components, .ex = &ex, .generation = generation};
    int result = arena_create_counting(&ex.step, "step", STEP_RESERVE, err);
    if (result < 0 || (result = arena_create_counting(&run.job, "job", JOB_RESERVE, err)) < 0) {
        arena_destroy(ex.step);
        return result;
    }
    ex.pool = parallel_create_idle(estimator->threads);
    result = count_stages(&run, out, err);
    parallel_destroy(ex.pool);
    arena_destroy(ex.step);
    arena_destroy(run.job);
    return result;
}

/* ---- All of it ------------------------------------------------------------------------------- */

void estimator_init(struct estimator *estimator, const struct components *components, int threads,
                    uint64_t limit, uint64_t files)
{
    uint64_t anonymous, of_files, model = components_arena_bytes(components);
    memory_resident(&anonymous, &of_files);
    *estimator = (struct estimator){.components = components, .threads = threads, .limit = limit};
    estimator->others = files + (anonymous > model ? anonymous - model : 0) +
                        (uint64_t)threads * BLAS_BYTES_A_THREAD;
}

int estimator_run(const struct estimator *estimator, enum holding holding,
                  const struct generation *generation, size_t loras, struct engine_estimate *out,
                  struct error *err)
{
    *out = (struct engine_estimate){
        .weights = components_bytes(estimator->components, holding) + loras,
        .others = estimator->others,
        .limit = estimator->limit,
    };
    int result = count_activations(estimator, generation, out, err);
    out->peak = out->weights + out->activations + out->others;
    if (out->peak > out->limit && holding != HOLDING_F32) {
        /* Encoding the next prompts finds the other weights still there. */
        size_t encoding = out->weights + out->text + out->others;
        size_t drawing = out->peak - estimator->components->text_mapped_bytes;
        out->peak = encoding > drawing ? encoding : drawing;
        out->drops_text = true;
    }
    return result;
}

static bool fits(const struct estimator *estimator, enum holding holding,
                 const struct generation *generation)
{
    struct engine_estimate estimate;
    struct error err;
    return estimator_run(estimator, holding, generation, 0, &estimate, &err) == STATUS_OK &&
           estimate.peak <= estimate.limit;
}

bool estimator_fit(const struct estimator *estimator, enum holding holding, double guidance,
                   int *width, int *height)
{
    int factor = estimator->components->vae.config.factor;
    int across = *width / factor, down = *height / factor, longer = across > down ? across : down;
    /* A longer side of fits fits, one of too_large does not. */
    int fitting = 0, too_large = longer + 1;
    while (fitting + 1 < too_large) {
        /* The size asked for first: mostly it fits. */
        int side = too_large == longer + 1 ? longer : (fitting + too_large) / 2;
        struct generation generation = {.prompt = "", .guidance = guidance};
        generation.width = (across * side + longer - 1) / longer * factor;
        generation.height = (down * side + longer - 1) / longer * factor;
        if (fits(estimator, holding, &generation)) {
            fitting = side;
            *width = generation.width;
            *height = generation.height;
        } else {
            too_large = side;
        }
    }
    return fitting > 0;
}
