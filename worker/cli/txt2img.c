/* txt2img: the diffusion engine from the command line, without Kafka.
 *
 * One picture (or --batch of them) from one prompt into PNG files that say how to make them again,
 * with a progress bar on a terminal and plain lines elsewhere. stdout carries only what a program
 * may want to read: the --timings lines, and tables that were asked for. Exit code 0, 1 when
 * something failed, 2 for wrong usage.
 */
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/error.h"
#include "common/base/panic.h"
#include "worker/cli/file.h"
#include "worker/cli/estimate_table.h"
#include "worker/cli/options.h"
#include "worker/cli/stopwatch.h"
#include "worker/engine/engine.h"
#include "worker/engine/image/parameters.h"
#include "worker/engine/image/png.h"

/* ---- Progress -------------------------------------------------------------------------------- */

#define BAR_WIDTH 30

struct progress {
    bool terminal;
    struct stopwatch *watch;
    const char *preview_path;
};

static void draw_bar(const char *what, int step, int steps, double seconds)
{
    char bar[BAR_WIDTH + 1];
    int filled = steps > 0 ? step * BAR_WIDTH / steps : 0;
    for (int i = 0; i < BAR_WIDTH; i++) {
        bar[i] = i < filled ? '#' : '.';
    }
    bar[BAR_WIDTH] = '\0';
    fprintf(stderr, "\r%-8s [%s] %d/%d  %.1f s ", what, bar, step, steps, seconds);
}

static bool on_progress(void *user, enum engine_stage stage, int step, int steps)
{
    static const char *const names[] = {"text", "denoise", "decode"};
    const struct progress *progress = user;
    double seconds = clock_monotonic_seconds() - progress->watch->begun;
    stopwatch_mark(progress->watch, stage, step);
    if (progress->terminal) {
        draw_bar(names[stage], step, steps, seconds);
    } else if (stage == ENGINE_STAGE_DENOISE && step > 0) {
        fprintf(stderr, "step %d of %d, %.1f s\n", step, steps, seconds);
    } else if (step == steps) {
        fprintf(stderr, "%s done, %.1f s\n", names[stage], seconds);
    }
    return true;
}

static void on_preview(void *user, int step, int steps, const struct engine_picture *picture)
{
    (void)step, (void)steps;
    const struct progress *progress = user;
    picture_options_write_preview(progress->preview_path, picture);
}

/* ---- Output ---------------------------------------------------------------------------------- */

/* "out.png" and 2 -> "out-2.png"; the path itself for a single picture. */
static char *picture_path(const struct options *options, int number)
{
    if (options_pictures(options) == 1) {
        return xstrdup(options->output);
    }
    size_t size = strlen(options->output) + 16;
    char *path = xmalloc(size);
    const char *slash = strrchr(options->output, '/');
    const char *dot = strrchr(slash != NULL ? slash : options->output, '.');
    int stem = dot != NULL ? (int)(dot - options->output) : (int)strlen(options->output);
    snprintf(path, size, "%.*s-%d%s", stem, options->output, number, dot != NULL ? dot : "");
    return path;
}

/* Write the PNG with the text that makes the picture again. */
static int write_png(const char *path, const struct picture *picture,
                     const struct generation *generation, const struct engine *engine,
                     struct error *err)
{
    const struct engine_info *info = engine_info(engine);
    char *tags, *hashes;
    engine_lora_texts(engine, generation, &tags, &hashes);
    struct picture_parameters parameters = {
        .arithmetic = info->arithmetic,
        .prompt = generation->prompt,
        .negative_prompt = generation->negative_prompt,
        .steps = (uint32_t)generation->steps,
        .steps_done = (uint32_t)picture->steps_done,
        .scheduler = generation->scheduler,
        .sigmas = generation->sigmas,
        .timestep_spacing = generation->timestep_spacing,
        .eta = generation->eta,
        .guidance = generation->guidance,
        .guidance_rescale = generation->guidance_rescale,
        .guidance_start = generation->guidance_start,
        .guidance_end = generation->guidance_end,
        .cache_interval = (uint32_t)generation->cache_interval,
        .cache_branch_id = (uint32_t)generation->cache_branch_id,
        .tome_ratio = generation->tome_ratio,
        .seed = generation->seed,
        .width = (uint32_t)generation->width,
        .height = (uint32_t)generation->height,
        .model_name = info->model_name,
        .vae_name = info->vae_name,
        .model_digest = info->digest,
        .clip_skip = generation->clip_skip,
        .lora_tags = tags,
        .lora_hashes = hashes,
        .strength = engine_strength(engine, generation),
        .mask_blur = generation->mask_blur,
        .tile_x = generation->tile_x,
        .tile_y = generation->tile_y,
    };
    char *text = parameters_text(&parameters);
    struct png_text texts[] = {
        {"parameters", text},
        {"model", info->model_name},
        {"digest", info->digest},
        {"Software", "crafterse txt2img"},
    };
    uint8_t *bytes = NULL;
    size_t length = 0;
    int result = png_encode(picture->rgb, picture->width, picture->height, texts,
                            sizeof(texts) / sizeof(texts[0]), &bytes, &length, err);
    if (result == STATUS_OK) {
        result = file_write(path, bytes, length, err);
    }
    xfree(bytes);
    xfree(text);
    xfree(tags);
    xfree(hashes);
    return result;
}

static void print_profile(const struct engine *engine)
{
    char *text = engine_profile_text(engine);
    printf("%s", text);
    xfree(text);
}

/* ---- Main ------------------------------------------------------------------------------------ */

static int make_picture(struct engine *engine, const struct options *options,
                        const struct generation *generation, int number, struct stopwatch *watch,
                        struct error *err)
{
    struct progress progress = {isatty(STDERR_FILENO) != 0, watch, options->pictures.preview_path};
    struct engine_dump *dump = options->dump != NULL ? engine_dump_create() : NULL;
    char *path = picture_path(options, number);
    struct picture picture;
    stopwatch_begin(watch);
    int result = engine_generate(engine, generation, on_progress, &progress, dump, &picture, err);
    stopwatch_generated(watch);
    if (progress.terminal) {
        fprintf(stderr, "\n");
    }
    if (result == STATUS_OK) {
        result = write_png(path, &picture, generation, engine, err);
    }
    if (result == STATUS_OK && dump != NULL) {
        result = engine_dump_write(dump, options->dump, err);
    }
    if (result == STATUS_OK) {
        if (picture.steps_done > 0) {
            fprintf(stderr, "the deadline cut it short after step %d\n", picture.steps_done);
        }
        fprintf(stderr, "%s: %dx%d, seed %" PRIu64 ", %.1f s%s\n", path, picture.width,
                picture.height, generation->seed, picture.timings.total_seconds,
                picture.prompt_truncated ? " (the prompt was too long and was cut)" : "");
        if (picture.literal_form != NULL) {
            fprintf(stderr, "%s in the prompt is not done here: it was read as words\n",
                    picture.literal_form);
        }
        if (options->timings) {
            stopwatch_print(watch, &picture, generation, stdout);
        }
    }
    engine_dump_destroy(dump);
    picture_free(&picture);
    xfree(path);
    return result;
}

/* The pictures, one after the other. generation->seed is the first's, and is used up. */
static int make_pictures(struct engine *engine, const struct options *options,
                         struct generation *generation, struct stopwatch *watch, struct error *err)
{
    float *latents = NULL;
    int result = engine_check(engine, generation, err);
    if (result == STATUS_OK && options->latents != NULL) {
        result = engine_load_latents(engine, options->latents, generation->width,
                                     generation->height, &latents, err);
        generation->latents = latents;
    }
    for (int i = 1; result == STATUS_OK && i <= options_pictures(options); i++) {
        generation->seed = options->seed_count > 0 ? options->seeds[i - 1] : generation->seed;
        if (options->deadline_seconds > 0) {
            generation->deadline = clock_monotonic_seconds() + options->deadline_seconds;
        }
        result = make_picture(engine, options, generation, i, watch, err);
        generation->seed++;
    }
    xfree(latents);
    return result;
}

/* Whether the files can be written, said before the hours that a picture may take. */
static int check_outputs(const struct options *options, struct error *err)
{
    const char *paths[] = {options->output, options->dump, options->pictures.preview_path};
    int result = STATUS_OK;
    for (size_t i = 0; result == STATUS_OK && i < sizeof(paths) / sizeof(paths[0]); i++) {
        if (paths[i] != NULL && !options->estimate) {
            result = file_check_writable(paths[i], err);
        }
    }
    return result;
}

/* What the options left unsaid is as the model has it. */
static struct generation complete_generation(const struct options *options,
                                             const struct engine *engine)
{
    const struct engine_info *info = engine_info(engine);
    struct generation generation = options->generation;
    if (generation.prompt == NULL) {
        generation.prompt = ""; /* of an estimate */
    }
    if (generation.steps == 0) {
        generation.steps = info->default_steps;
    }
    if (generation.guidance < 0) {
        generation.guidance = info->default_guidance;
    }
    if (generation.scheduler == NULL) {
        generation.scheduler = info->default_scheduler;
    }
    picture_options_apply(&options->pictures, engine_limits(engine), &generation);
    if (generation.width == 0) {
        generation.width = info->default_width;
    }
    if (generation.height == 0) {
        generation.height = info->default_height;
    }
    generation.preview = options->pictures.preview_path != NULL ? on_preview : NULL;
    return generation;
}

static int run(const struct options *options, struct stopwatch *watch, struct error *err)
{
    struct engine *engine = NULL;
    int result = engine_open(&engine, &options->engine, err);
    if (result < 0) {
        return result;
    }
    stopwatch_opened(watch);
    const char *note = engine_info(engine)->weight_cache;
    if (note[0] != '\0') {
        fprintf(stderr, "%s\n", note);
    }
    struct generation generation = complete_generation(options, engine);
    if (options->estimate) {
        result = estimate_table_print(engine, &generation, err);
    } else {
        result = make_pictures(engine, options, &generation, watch, err);
        if (result == STATUS_OK && options->engine.profile) {
            print_profile(engine);
        }
    }
    engine_close(engine);
    return result;
}

int main(int argc, char **argv)
{
    struct options options;
    struct error err;
    struct stopwatch watch;
    stopwatch_start(&watch);
    int code = options_parse(&options, argc, argv);
    if (code < 0) {
        int result = check_outputs(&options, &err);
        if (result == STATUS_OK) {
            result = picture_options_load(&options.pictures, &err);
        }
        if (result == STATUS_OK) {
            result = run(&options, &watch, &err);
        }
        if (result < 0) {
            fprintf(stderr, "txt2img: %s\n", err.text);
        }
        code = result < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
    }
    options_deinit(&options);
    return code;
}
