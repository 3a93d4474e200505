/* txt2img: the diffusion engine from the command line, without Kafka.
 *
 * One picture (or --batch of them) from one prompt into PNG files that say how to make them again,
 * with a progress bar on a terminal and plain lines elsewhere. stdout carries only what a program
 * may want to read: the --timings lines, and tables that were asked for. Exit code 0, 1 when
 * something failed, 2 for wrong usage.
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/error.h"
#include "common/base/id.h"
#include "common/base/panic.h"
#include "worker/cli/file.h"
#include "worker/cli/lora_options.h"
#include "worker/cli/estimate_table.h"
#include "worker/cli/picture_options.h"
#include "worker/cli/stopwatch.h"
#include "worker/engine/engine.h"
#include "worker/engine/image/parameters.h"
#include "worker/engine/image/png.h"

#ifndef CRAFTERSE_VERSION
#define CRAFTERSE_VERSION "unknown"
#endif

#define BATCH_MAX 10000
#define SEEDS_MAX 256
#define EXIT_USAGE 2
#define EMBEDDINGS_MAX 64

/* ---- Options --------------------------------------------------------------------------------- */

struct options {
    const char *model, *vae, *prompt, *negative, *scheduler, *sigmas, *timestep_spacing, *latents,
        *dump, *output;
    const char *embedding_folder, *embeddings[EMBEDDINGS_MAX];
    int embedding_count;
    int clip_skip;
    int width, height, steps; /* 0: the model's */
    double guidance;          /* negative: the model's */
    double guidance_rescale, guidance_start, guidance_end, eta;
    int cache_interval, cache_branch_id;
    double tome_ratio;
    uint64_t seed;
    bool has_seed, timings, profile;
    struct picture_options pictures;
    int batch, threads;
    uint64_t seeds[SEEDS_MAX]; /* of --seeds, in place of seed and batch */
    int seed_count;
    enum engine_storage storage;
    enum engine_precision precision;
    bool force_precision;
    int memory_limit_mb; /* 0: what there is */
    int band_rows;       /* 0: the engine's choice */
    bool estimate;
    const char *weight_cache; /* where packed weights are kept */
    char default_cache[PATH_MAX];
    const char *lora_folder;
    struct lora_options loras;
};

enum option_key {
    KEY_MODEL = 256,
    KEY_VAE,
    KEY_PROMPT,
    KEY_NEGATIVE,
    KEY_WIDTH,
    KEY_HEIGHT,
    KEY_STEPS,
    KEY_GUIDANCE,
    KEY_SEED,
    KEY_SEEDS,
    KEY_GUIDANCE_RESCALE,
    KEY_GUIDANCE_START,
    KEY_GUIDANCE_END,
    KEY_CACHE_INTERVAL,
    KEY_CACHE_BRANCH_ID,
    KEY_TOME_RATIO,
    KEY_SCHEDULER,
    KEY_SIGMAS,
    KEY_TIMESTEP_SPACING,
    KEY_ETA,
    KEY_BATCH,
    KEY_THREADS,
    KEY_PRECISION,
    KEY_FORCE_PRECISION,
    KEY_STORAGE,
    KEY_MEMORY_LIMIT,
    KEY_BAND_ROWS,
    KEY_WEIGHT_CACHE,
    KEY_ESTIMATE,
    KEY_CLIP_SKIP,
    KEY_EMBEDDING,
    KEY_EMBEDDINGS,
    KEY_LATENTS,
    KEY_DUMP,
    KEY_TILE,
    KEY_INIT_IMAGE,
    KEY_STRENGTH,
    KEY_MASK,
    KEY_MASK_BLUR,
    KEY_PREVIEW,
    KEY_LORA,
    KEY_LORA_FOLDER,
    KEY_TIMINGS,
    KEY_PROFILE,
    KEY_OUTPUT,
    KEY_VERSION,
};

/* One table for getopt and for the help text. */
static const struct {
    const char *name;
    int key;
    const char *value; /* NULL: a flag */
    const char *help;
} option_table[] = {
    {"model", KEY_MODEL, "PATH", "diffusers folder or .safetensors checkpoint (required)"},
    {"vae", KEY_VAE, "PATH",
     "another VAE, folder (also TAESD) or .safetensors, in place of the model's"},
    {"prompt", KEY_PROMPT, "TEXT", "what to draw, weighted as (word:1.3) if need be (required)"},
    {"negative", KEY_NEGATIVE, "TEXT", "what to keep out"},
    {"width", KEY_WIDTH, "N", "pixels (default: the model's)"},
    {"height", KEY_HEIGHT, "N", "pixels (default: the model's)"},
    {"steps", KEY_STEPS, "N", "sampling steps (default: the model's, 20 or 4)"},
    {"seed", KEY_SEED, "N", "picture number (default: random, printed)"},
    {"seeds", KEY_SEEDS, "N,N,...", "one picture for each, into FILE-1.png, FILE-2.png, ..."},
    {"guidance", KEY_GUIDANCE, "F", "guidance scale, 1 = off (default: the model's)"},
    {"guidance-rescale", KEY_GUIDANCE_RESCALE, "F", "against overexposure, 0 (off) to 1"},
    {"guidance-start", KEY_GUIDANCE_START, "F", "guide from this part of the steps on, 0 to 1"},
    {"guidance-end", KEY_GUIDANCE_END, "F", "guide up to this part of the steps, 0 to 1"},
    {"cache-interval", KEY_CACHE_INTERVAL, "N",
     "compute only each Nth step whole (DeepCache), 0 = all: faster, another picture"},
    {"cache-branch-id", KEY_CACHE_BRANCH_ID, "N", "the other steps, down to skip connection N (0)"},
    {"tome-ratio", KEY_TOME_RATIO, "F", "merge this part of the tokens (ToMe), 0 (none) to 0.75"},
    {"scheduler", KEY_SCHEDULER, "NAME",
     "euler, dpmpp_2m, \"DPM++ 2M Karras\", ...: see docs/SAMPLERS.md"},
    {"sigmas", KEY_SIGMAS, "NAME",
     "uniform, karras, exponential, beta, sgm_uniform (default: the model's)"},
    {"timestep-spacing", KEY_TIMESTEP_SPACING, "NAME",
     "leading, trailing or linspace (default: the model's)"},
    {"eta", KEY_ETA, "F", "noise between the steps of ddim and tcd, 0 (default) to 1"},
    {"batch", KEY_BATCH, "N", "make N pictures with seeds SEED, SEED+1, ... into FILE-1.png, ..."},
    {"threads", KEY_THREADS, "N", "default: as many as the cgroup's CPU quota allows"},
    {"precision", KEY_PRECISION, "NAME",
     "how far products may be rounded for speed: f32 (default), bf16 or int8"},
    {"force-precision", KEY_FORCE_PRECISION, NULL,
     "compute in that precision, also where another one is faster here"},
    {"storage", KEY_STORAGE, "NAME", "weights as in their file (default) or expanded: file or f32"},
    {"memory-limit", KEY_MEMORY_LIMIT, "MB", "refuse what takes more (default: what there is)"},
    {"band-rows", KEY_BAND_ROWS, "N",
     "rows of the VAE's bands; the picture is the same (default: few MB)"},
    {"weight-cache", KEY_WEIGHT_CACHE, "DIR",
     "where packed weights are kept between starts (~/.cache/crafterse); \"\": nowhere"},
    {"estimate", KEY_ESTIMATE, NULL, "print how much memory pictures take, and make none"},
    {"clip-skip", KEY_CLIP_SKIP, "N", "leave out the last N layers of the text encoders (0)"},
    {"embedding", KEY_EMBEDDING, "FILE", "textual inversion, called by its name; repeatable"},
    {"embeddings", KEY_EMBEDDINGS, "DIR", "a folder of them"},
    {"latents", KEY_LATENTS, "FILE", "initial noise: safetensors with a tensor named latents"},
    {"dump", KEY_DUMP, "FILE", "write every stage's tensors as safetensors"},
    {"lora", KEY_LORA, "LORA[:W]",
     "file or name in the folder, weight W (or TEXT:UNET); repeatable"},
    {"lora-folder", KEY_LORA_FOLDER, "DIR",
     "where --lora NAME and <lora:NAME:W> look for NAME.safetensors"},
    {"init-image", KEY_INIT_IMAGE, "FILE", "the PNG to start from, of any size"},
    {"strength", KEY_STRENGTH, "F", "how far to go from it, up to 1 (default: the model's)"},
    {"mask", KEY_MASK, "FILE", "PNG: white (or opaque) is painted anew in the init image"},
    {"mask-blur", KEY_MASK_BLUR, "F", "blur the mask by so many pixels"},
    {"preview", KEY_PREVIEW, "FILE", "write a small PNG of what there is after each step"},
    {"tile", KEY_TILE, "AXES", "seamless along x, y or xy, for textures"},
    {"timings", KEY_TIMINGS, NULL, "print one JSON line a picture on stdout"},
    {"profile", KEY_PROFILE, NULL, "print where the time went, by part, kind and shape"},
    {"output", KEY_OUTPUT, "FILE", "the PNG to write (required)"},
    {"help", 'h', NULL, "show this text"},
    {"version", KEY_VERSION, NULL, "show the version"},
};

#define OPTION_COUNT (sizeof(option_table) / sizeof(option_table[0]))

static void print_help(void)
{
    printf("Usage: txt2img --model PATH --prompt TEXT --output FILE.png [options]\n\n");
    for (size_t i = 0; i < OPTION_COUNT; i++) {
        char left[64];
        snprintf(left, sizeof(left), "--%s %s", option_table[i].name,
                 option_table[i].value != NULL ? option_table[i].value : "");
        printf("  %-23s %s\n", left, option_table[i].help);
    }
}

static int usage_error(const char *format, const char *name, const char *value)
{
    fprintf(stderr, "txt2img: ");
    fprintf(stderr, "--%s: %s: \"%s\"\n", name, format, value);
    return EXIT_USAGE;
}

static int parse_int(const char *name, const char *text, int min, int max, int *out)
{
    char *end = NULL;
    errno = 0;
    long value = strtol(text, &end, 10);
    if (errno != 0 || end == text || *end != '\0' || value < min || value > max) {
        char expected[64];
        snprintf(expected, sizeof(expected), "expected a whole number from %d to %d", min, max);
        return usage_error(expected, name, text);
    }
    *out = (int)value;
    return 0;
}

/* A seed up to the character end. */
static bool read_seed(const char *text, char end, uint64_t *seed, const char **rest)
{
    char *stop = NULL;
    errno = 0;
    *seed = strtoull(text, &stop, 10);
    *rest = stop;
    return errno == 0 && stop != text && *stop == end && *text >= '0' && *text <= '9';
}

static int parse_seed(const char *text, struct options *options)
{
    const char *rest = NULL;
    if (!read_seed(text, '\0', &options->seed, &rest)) {
        return usage_error("expected a whole number from 0 to 2^64 - 1", "seed", text);
    }
    options->has_seed = true;
    return 0;
}

static int parse_seeds(const char *text, struct options *options)
{
    const char *rest = text;
    options->seed_count = 0;
    do {
        rest += options->seed_count > 0; /* over the comma */
        char end = strchr(rest, ',') != NULL ? ',' : '\0';
        if (options->seed_count == SEEDS_MAX ||
            !read_seed(rest, end, &options->seeds[options->seed_count], &rest)) {
            return usage_error("expected up to 256 whole numbers, a comma between each", "seeds",
                               text);
        }
        options->seed_count++;
    } while (*rest != '\0');
    options->batch = options->seed_count;
    return 0;
}

static int parse_number(const char *name, const char *text, double *out)
{
    char *end = NULL;
    *out = strtod(text, &end);
    if (end == text || *end != '\0' || !(*out >= 0)) {
        return usage_error("expected a number of at least 0", name, text);
    }
    return 0;
}

static int add_embedding(const char *path, struct options *options)
{
    if (options->embedding_count == EMBEDDINGS_MAX) {
        return usage_error("too many, give them in a folder", "embedding", path);
    }
    options->embeddings[options->embedding_count++] = path;
    return 0;
}

static int parse_tile(const char *text, struct picture_options *options)
{
    options->tile_x = strcmp(text, "x") == 0 || strcmp(text, "xy") == 0;
    options->tile_y = strcmp(text, "y") == 0 || strcmp(text, "xy") == 0;
    return options->tile_x || options->tile_y ? 0
                                              : usage_error("expected x, y or xy", "tile", text);
}

/* The options about pictures that come in or are on the way. */
static int apply_picture_option(int key, const char *value, struct picture_options *options)
{
    switch (key) {
    case KEY_INIT_IMAGE:
        options->init_path = value;
        return 0;
    case KEY_MASK:
        options->mask_path = value;
        return 0;
    case KEY_PREVIEW:
        options->preview_path = value;
        return 0;
    case KEY_STRENGTH:
        return parse_number("strength", value, &options->strength);
    case KEY_MASK_BLUR:
        return parse_number("mask-blur", value, &options->mask_blur);
    case KEY_TILE:
        return parse_tile(value, options);
    default:
        return EXIT_USAGE; /* getopt has said what is wrong */
    }
}

static int parse_precision(const char *text, enum engine_precision *precision)
{
    static const char *const names[] = {"f32", "bf16", "int8"}; /* by enum engine_precision */
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (strcmp(text, names[i]) == 0) {
            *precision = (enum engine_precision)i;
            return 0;
        }
    }
    return usage_error("expected f32, bf16 or int8", "precision", text);
}

static int parse_storage(const char *text, enum engine_storage *storage)
{
    static const char *const names[] = {"file", "f32"}; /* by enum engine_storage */
    for (int i = 0; i < 2; i++) {
        if (strcmp(text, names[i]) == 0) {
            *storage = (enum engine_storage)i;
            return 0;
        }
    }
    return usage_error("expected file or f32", "storage", text);
}

static int parse_lora(const char *text, struct options *options)
{
    struct error err;
    if (lora_options_add(&options->loras, text, &err) < 0) {
        fprintf(stderr, "txt2img: %s\n", err.text);
        return EXIT_USAGE;
    }
    return 0;
}

/* The options that say how to sample. */
static int apply_sampling_option(int key, const char *value, struct options *options)
{
    switch (key) {
    case KEY_SCHEDULER:
        options->scheduler = value;
        return 0;
    case KEY_SIGMAS:
        options->sigmas = value;
        return 0;
    case KEY_TIMESTEP_SPACING:
        options->timestep_spacing = value;
        return 0;
    case KEY_STEPS:
        return parse_int("steps", value, 1, 1 << 20, &options->steps);
    case KEY_ETA:
        return parse_number("eta", value, &options->eta);
    case KEY_GUIDANCE:
        return parse_number("guidance", value, &options->guidance);
    case KEY_GUIDANCE_RESCALE:
        return parse_number("guidance-rescale", value, &options->guidance_rescale);
    case KEY_GUIDANCE_START:
        return parse_number("guidance-start", value, &options->guidance_start);
    case KEY_GUIDANCE_END:
        return parse_number("guidance-end", value, &options->guidance_end);
    case KEY_CACHE_INTERVAL:
        return parse_int("cache-interval", value, 0, 1 << 20, &options->cache_interval);
    case KEY_CACHE_BRANCH_ID:
        return parse_int("cache-branch-id", value, 0, 1 << 20, &options->cache_branch_id);
    case KEY_TOME_RATIO:
        return parse_number("tome-ratio", value, &options->tome_ratio);
    default:
        return apply_picture_option(key, value, &options->pictures);
    }
}

/* The options that say how the engine is to work, and what it is to tell. */
static int apply_machine_option(int key, const char *value, struct options *options)
{
    switch (key) {
    case KEY_THREADS:
        return parse_int("threads", value, 1, 256, &options->threads);
    case KEY_MEMORY_LIMIT:
        return parse_int("memory-limit", value, 1, 1 << 30, &options->memory_limit_mb);
    case KEY_BAND_ROWS:
        return parse_int("band-rows", value, 1, 1 << 20, &options->band_rows);
    case KEY_WEIGHT_CACHE:
        options->weight_cache = value;
        return 0;
    case KEY_ESTIMATE:
        options->estimate = true;
        return 0;
    case KEY_STORAGE:
        return parse_storage(value, &options->storage);
    case KEY_PRECISION:
        return parse_precision(value, &options->precision);
    case KEY_FORCE_PRECISION:
        options->force_precision = true;
        return 0;
    case KEY_TIMINGS:
        options->timings = true;
        return 0;
    case KEY_PROFILE:
        options->profile = true;
        return 0;
    default:
        return apply_sampling_option(key, value, options);
    }
}

/* One option into *options. Returns 0 or EXIT_USAGE. */
static int apply_option(int key, const char *value, struct options *options)
{
    switch (key) {
    case KEY_MODEL:
        options->model = value;
        return 0;
    case KEY_VAE:
        options->vae = value;
        return 0;
    case KEY_PROMPT:
        options->prompt = value;
        return 0;
    case KEY_NEGATIVE:
        options->negative = value;
        return 0;
    case KEY_LATENTS:
        options->latents = value;
        return 0;
    case KEY_DUMP:
        options->dump = value;
        return 0;
    case KEY_OUTPUT:
        options->output = value;
        return 0;
    case KEY_WIDTH:
        return parse_int("width", value, 1, 1 << 20, &options->width);
    case KEY_HEIGHT:
        return parse_int("height", value, 1, 1 << 20, &options->height);
    case KEY_BATCH:
        return parse_int("batch", value, 1, BATCH_MAX, &options->batch);
    case KEY_SEED:
        return parse_seed(value, options);
    case KEY_SEEDS:
        return parse_seeds(value, options);
    case KEY_LORA:
        return parse_lora(value, options);
    case KEY_LORA_FOLDER:
        options->lora_folder = value;
        return 0;
    case KEY_CLIP_SKIP:
        return parse_int("clip-skip", value, 0, 256, &options->clip_skip);
    case KEY_EMBEDDING:
        return add_embedding(value, options);
    case KEY_EMBEDDINGS:
        options->embedding_folder = value;
        return 0;
    default:
        return apply_machine_option(key, value, options);
    }
}

static int check_options(const struct options *options)
{
    const struct {
        const char *name, *value;
    } required[] = {
        {"model", options->model}, {"prompt", options->prompt}, {"output", options->output}};
    for (size_t i = 0; i < sizeof(required) / sizeof(required[0]); i++) {
        if (required[i].value == NULL && (i == 0 || !options->estimate)) {
            fprintf(stderr, "txt2img: --%s is required; see --help\n", required[i].name);
            return EXIT_USAGE;
        }
    }
    if (options->batch > 1 && (options->dump != NULL || options->latents != NULL)) {
        fprintf(stderr,
                "txt2img: --dump and --latents are for one picture, not with --batch or --seeds\n");
        return EXIT_USAGE;
    }
    return 0;
}

/* Returns -1 to go on, else the exit code. */
static int parse_options(int argc, char **argv, struct options *options)
{
    struct option long_options[OPTION_COUNT + 1] = {{0}};
    for (size_t i = 0; i < OPTION_COUNT; i++) {
        long_options[i] = (struct option){
            .name = option_table[i].name,
            .has_arg = option_table[i].value != NULL ? required_argument : no_argument,
            .val = option_table[i].key,
        };
    }
    for (;;) {
        int key = getopt_long(argc, argv, "h", long_options, NULL);
        if (key == -1) {
            break;
        }
        if (key == 'h') {
            print_help();
            return EXIT_SUCCESS;
        }
        if (key == KEY_VERSION) {
            printf("txt2img %s\n", CRAFTERSE_VERSION);
            return EXIT_SUCCESS;
        }
        int code = apply_option(key, optarg, options);
        if (code != 0) {
            return code;
        }
    }
    if (optind < argc) {
        fprintf(stderr, "txt2img: \"%s\" is not an option; see --help\n", argv[optind]);
        return EXIT_USAGE;
    }
    int code = check_options(options);
    return code != 0 ? code : -1;
}

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
    if (options->batch == 1) {
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
        .arithmetic = engine_info(engine)->arithmetic,
        .prompt = generation->prompt,
        .negative_prompt = generation->negative_prompt,
        .steps = (uint32_t)generation->steps,
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
        fprintf(stderr, "%s: %dx%d, seed %" PRIu64 ", %.1f s%s\n", path, picture.width,
                picture.height, generation->seed, picture.timings.total_seconds,
                picture.prompt_truncated ? " (the prompt was too long and was cut)" : "");
        if (options->timings) {
            stopwatch_print(watch, &picture, generation, stdout);
        }
    }
    engine_dump_destroy(dump);
    picture_free(&picture);
    xfree(path);
    return result;
}

static struct engine_options engine_options_of(const struct options *options)
{
    return (struct engine_options){
        .model_path = options->model,
        .vae_path = options->vae,
        .threads = options->threads,
        .storage = options->storage,
        .precision = options->precision,
        .precision_is_forced = options->force_precision,
        .memory_limit = (uint64_t)options->memory_limit_mb * 1000000,
        .cache_folder = options->weight_cache,
        .lora_folder = options->lora_folder,
        .lora_files = options->loras.files,
        .lora_file_count = options->loras.file_count,
        .embedding_folder = options->embedding_folder,
        .embeddings = options->embeddings,
        .embedding_count = options->embedding_count,
        .band_rows = options->band_rows,
        .profile = options->profile,
    };
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
    for (int i = 1; result == STATUS_OK && i <= options->batch; i++) {
        generation->seed = options->seed_count > 0 ? options->seeds[i - 1] : generation->seed;
        result = make_picture(engine, options, generation, i, watch, err);
        generation->seed++;
    }
    xfree(latents);
    return result;
}

static int run(const struct options *options, struct stopwatch *watch, struct error *err)
{
    struct engine *engine = NULL;
    const struct engine_options engine_options = engine_options_of(options);
    int result = engine_open(&engine, &engine_options, err);
    if (result < 0) {
        return result;
    }
    stopwatch_opened(watch);
    const struct engine_info *info = engine_info(engine);
    if (info->weight_cache[0] != '\0') {
        fprintf(stderr, "%s\n", info->weight_cache);
    }
    struct generation generation = {
        .prompt = options->prompt != NULL ? options->prompt : "",
        .negative_prompt = options->negative,
        .width = options->width,
        .height = options->height,
        .steps = options->steps > 0 ? options->steps : info->default_steps,
        .guidance = options->guidance >= 0 ? options->guidance : info->default_guidance,
        .seed = options->has_seed ? options->seed : id_random() >> 32,
        .guidance_rescale = options->guidance_rescale,
        .guidance_start = options->guidance_start,
        .guidance_end = options->guidance_end,
        .cache_interval = options->cache_interval,
        .cache_branch_id = options->cache_branch_id,
        .tome_ratio = options->tome_ratio,
        .scheduler = options->scheduler != NULL ? options->scheduler : info->default_scheduler,
        .sigmas = options->sigmas,
        .timestep_spacing = options->timestep_spacing,
        .eta = options->eta,
        .clip_skip = options->clip_skip,
        .loras = options->loras.uses,
        .lora_count = options->loras.count,
        .preview = options->pictures.preview_path != NULL ? on_preview : NULL,
    };
    picture_options_apply(&options->pictures, engine_limits(engine), &generation);
    generation.width = generation.width > 0 ? generation.width : info->default_width;
    generation.height = generation.height > 0 ? generation.height : info->default_height;
    if (options->estimate) {
        result = estimate_table_print(engine, &generation, err);
        engine_close(engine);
        return result;
    }
    result = make_pictures(engine, options, &generation, watch, err);
    if (result == STATUS_OK && options->profile) {
        print_profile(engine);
    }
    engine_close(engine);
    return result;
}

int main(int argc, char **argv)
{
    struct options options = {.negative = "", .guidance = -1, .batch = 1};
    engine_cache_folder(options.default_cache, sizeof(options.default_cache));
    options.weight_cache = options.default_cache;
    struct error err;
    struct stopwatch watch;
    stopwatch_start(&watch);
    int result, code = parse_options(argc, argv, &options);
    if (code >= 0) {
        goto out;
    }
    result = picture_options_load(&options.pictures, &err);
    if (result == STATUS_OK) {
        result = run(&options, &watch, &err);
    }
    if (result < 0) {
        fprintf(stderr, "txt2img: %s\n", err.text);
    }
    code = result < 0 ? EXIT_FAILURE : EXIT_SUCCESS;

out:
    picture_options_deinit(&options.pictures);
    lora_options_deinit(&options.loras);
    return code;
}
