#include "worker/cli/options.h"

#include <errno.h>
#include <getopt.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/id.h"

#ifndef CRAFTERSE_VERSION
#define CRAFTERSE_VERSION "unknown"
#endif

#define EXIT_USAGE 2
#define BATCH_MAX 10000
#define SIDE_MAX (1 << 20)
#define STEPS_MAX (1 << 20)

/* How an option's value is read into the field at row->offset. Returns 0 or EXIT_USAGE. */
struct row;
typedef int (*read_value)(const struct row *row, const char *text, struct options *options);

struct row {
    const char *name;
    const char *value; /* as the help calls it; NULL: a flag */
    read_value read;
    size_t offset;
    const char *help;
    int min, max; /* of whole numbers */
};

/* ---- Values ---------------------------------------------------------------------------------- */

static int usage_error(const struct row *row, const char *expected, const char *text)
{
    fprintf(stderr, "txt2img: --%s: %s: \"%s\"\n", row->name, expected, text);
    return EXIT_USAGE;
}

static void *field(const struct row *row, struct options *options)
{
    return (char *)options + row->offset;
}

static int read_text(const struct row *row, const char *text, struct options *options)
{
    *(const char **)field(row, options) = text;
    return 0;
}

static int read_flag(const struct row *row, const char *text, struct options *options)
{
    (void)text;
    *(bool *)field(row, options) = true;
    return 0;
}

static int read_number(const struct row *row, const char *text, struct options *options)
{
    char *end = NULL;
    double value = strtod(text, &end);
    if (end == text || *end != '\0' || !(value >= 0)) {
        return usage_error(row, "expected a number of at least 0", text);
    }
    *(double *)field(row, options) = value;
    return 0;
}

static int parse_whole(const struct row *row, const char *text, int *value)
{
    char *end = NULL;
    errno = 0;
    long number = strtol(text, &end, 10);
    if (errno != 0 || end == text || *end != '\0' || number < row->min || number > row->max) {
        char expected[64];
        snprintf(expected, sizeof(expected), "expected a whole number from %d to %d", row->min,
                 row->max);
        return usage_error(row, expected, text);
    }
    *value = (int)number;
    return 0;
}

static int read_int(const struct row *row, const char *text, struct options *options)
{
    return parse_whole(row, text, field(row, options));
}

static int read_megabytes(const struct row *row, const char *text, struct options *options)
{
    int megabytes = 0, code = parse_whole(row, text, &megabytes);
    *(uint64_t *)field(row, options) = (uint64_t)megabytes * 1000000;
    return code;
}

/* A seed up to the character end; *rest is where that stands. */
static bool parse_seed(const char *text, char end, uint64_t *seed, const char **rest)
{
    char *stop = NULL;
    errno = 0;
    *seed = strtoull(text, &stop, 10);
    *rest = stop;
    return errno == 0 && stop != text && *stop == end && *text >= '0' && *text <= '9';
}

static int read_seed(const struct row *row, const char *text, struct options *options)
{
    const char *rest = NULL;
    if (!parse_seed(text, '\0', field(row, options), &rest)) {
        return usage_error(row, "expected a whole number from 0 to 2^64 - 1", text);
    }
    options->has_seed = true;
    return 0;
}

static int read_seeds(const struct row *row, const char *text, struct options *options)
{
    uint64_t *seeds = field(row, options);
    const char *rest = text;
    int count = 0;
    do {
        rest += count > 0; /* over the comma */
        char end = strchr(rest, ',') != NULL ? ',' : '\0';
        if (count == OPTIONS_SEEDS_MAX || !parse_seed(rest, end, &seeds[count], &rest)) {
            return usage_error(row, "expected up to 256 whole numbers, a comma between each", text);
        }
        count++;
    } while (*rest != '\0');
    options->seed_count = count;
    return 0;
}

static int read_precision(const struct row *row, const char *text, struct options *options)
{
    static const char *const names[] = {"f32", "f16", "bf16",
                                        "int8"}; /* by enum engine_precision */
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (strcmp(text, names[i]) == 0) {
            options->engine.precision = (enum engine_precision)i;
            return 0;
        }
    }
    return usage_error(row, "expected f32, f16, bf16 or int8", text);
}

static int read_storage(const struct row *row, const char *text, struct options *options)
{
    bool is_f32 = strcmp(text, "f32") == 0;
    if (!is_f32 && strcmp(text, "file") != 0) {
        return usage_error(row, "expected file or f32", text);
    }
    options->engine.storage = is_f32 ? ENGINE_STORAGE_F32 : ENGINE_STORAGE_FILE;
    return 0;
}

static int read_tile(const struct row *row, const char *text, struct options *options)
{
    struct generation *generation = &options->generation;
    generation->tile_x = strcmp(text, "x") == 0 || strcmp(text, "xy") == 0;
    generation->tile_y = strcmp(text, "y") == 0 || strcmp(text, "xy") == 0;
    return generation->tile_x || generation->tile_y ? 0
                                                    : usage_error(row, "expected x, y or xy", text);
}

static int read_embedding(const struct row *row, const char *text, struct options *options)
{
    if (options->engine.embedding_count == OPTIONS_EMBEDDINGS_MAX) {
        return usage_error(row, "too many, give them in a folder", text);
    }
    options->embeddings[options->engine.embedding_count++] = text;
    return 0;
}

static int read_lora(const struct row *row, const char *text, struct options *options)
{
    (void)row;
    struct error err;
    if (lora_options_add(&options->loras, text, &err) < 0) {
        fprintf(stderr, "txt2img: %s\n", err.text);
        return EXIT_USAGE;
    }
    return 0;
}

/* ---- The table ------------------------------------------------------------------------------- */

#define AT(field) offsetof(struct options, field)

#define TEXT(name, value, field, help) \
    { \
        name, value, read_text, AT(field), help, 0, 0 \
    }
#define INT(name, field, min, max, help) \
    { \
        name, "N", read_int, AT(field), help, min, max \
    }
#define NUMBER(name, field, help) \
    { \
        name, "F", read_number, AT(field), help, 0, 0 \
    }
#define FLAG(name, field, help) \
    { \
        name, NULL, read_flag, AT(field), help, 0, 0 \
    }
#define OTHER(name, value, kind, field, help) \
    { \
        name, value, read_##kind, AT(field), help, 0, 0 \
    }

static const struct row rows[] = {
    TEXT("model", "PATH", engine.model_path,
         "diffusers folder or .safetensors checkpoint (required)"),
    TEXT("vae", "PATH", engine.vae_path,
         "another VAE, folder (also TAESD) or .safetensors, in place of the model's"),
    TEXT("prompt", "TEXT", generation.prompt,
         "what to draw, weighted as (word:1.3) if need be (required)"),
    TEXT("negative", "TEXT", generation.negative_prompt, "what to keep out"),
    INT("width", generation.width, 1, SIDE_MAX, "pixels (default: the model's)"),
    INT("height", generation.height, 1, SIDE_MAX, "pixels (default: the model's)"),
    INT("steps", generation.steps, 1, STEPS_MAX, "sampling steps (default: the model's, 20 or 4)"),
    OTHER("seed", "N", seed, generation.seed, "picture number (default: random, printed)"),
    OTHER("seeds", "N,N,...", seeds, seeds,
          "one picture for each, into FILE-1.png, FILE-2.png, ..."),
    NUMBER("guidance", generation.guidance, "guidance scale, 1 = off (default: the model's)"),
    NUMBER("guidance-rescale", generation.guidance_rescale, "against overexposure, 0 (off) to 1"),
    NUMBER("guidance-start", generation.guidance_start,
           "guide from this part of the steps on, 0 to 1"),
    NUMBER("guidance-end", generation.guidance_end, "guide up to this part of the steps, 0 to 1"),
    INT("cache-interval", generation.cache_interval, 0, STEPS_MAX,
        "compute only each Nth step whole (DeepCache), 0 = all: faster, another picture"),
    INT("cache-branch-id", generation.cache_branch_id, 0, STEPS_MAX,
        "the other steps, down to skip connection N (0)"),
    NUMBER("tome-ratio", generation.tome_ratio,
           "merge this part of the tokens (ToMe), 0 (none) to 0.75"),
    TEXT("scheduler", "NAME", generation.scheduler,
         "euler, dpmpp_2m, \"DPM++ 2M Karras\", ...: see docs/SAMPLERS.md"),
    TEXT("sigmas", "NAME", generation.sigmas,
         "uniform, karras, exponential, beta, sgm_uniform, lu_lambdas (default: the model's)"),
    TEXT("timestep-spacing", "NAME", generation.timestep_spacing,
         "leading, trailing or linspace (default: the model's)"),
    NUMBER("eta", generation.eta, "noise between the steps of ddim and tcd, 0 (default) to 1"),
    INT("batch", batch, 1, BATCH_MAX,
        "make N pictures with seeds SEED, SEED+1, ... into FILE-1.png, ..."),
    INT("threads", engine.threads, 1, 256, "default: as many as the cgroup's CPU quota allows"),
    OTHER("precision", "NAME", precision, engine.precision,
          "how far products may be rounded for speed: f32 (default), f16, bf16 or int8"),
    FLAG("force-precision", engine.precision_is_forced,
         "compute in that precision, also where another one is faster here"),
    OTHER("storage", "NAME", storage, engine.storage,
          "weights as in their file (default) or expanded: file or f32"),
    {"memory-limit", "MB", read_megabytes, AT(engine.memory_limit),
     "refuse what takes more (default: what there is)", 1, 1 << 30},
    INT("band-rows", engine.band_rows, 1, SIDE_MAX,
        "rows of the VAE's bands; the picture is the same (default: few MB)"),
    TEXT("weight-cache", "DIR", engine.cache_folder,
         "where packed weights are kept between starts (~/.cache/crafterse); \"\": nowhere"),
    FLAG("estimate", estimate, "print how much memory pictures take, and make none"),
    INT("clip-skip", generation.clip_skip, 0, 256,
        "leave out the last N layers of the text encoders (0)"),
    OTHER("embedding", "FILE", embedding, embeddings,
          "textual inversion, called by its name; repeatable"),
    TEXT("embeddings", "DIR", engine.embedding_folder, "a folder of them"),
    TEXT("latents", "FILE", latents, "initial noise: safetensors with a tensor named latents"),
    TEXT("dump", "FILE", dump, "write every stage's tensors as safetensors"),
    OTHER("lora", "LORA[:W]", lora, loras,
          "file or name in the folder, weight W (or TEXT:UNET); repeatable"),
    TEXT("lora-folder", "DIR", engine.lora_folder,
         "where --lora NAME and <lora:NAME:W> look for NAME.safetensors"),
    TEXT("init-image", "FILE", pictures.init_path, "the PNG to start from, of any size"),
    NUMBER("strength", generation.strength,
           "how far to go from it, up to 1 (default: the model's)"),
    TEXT("mask", "FILE", pictures.mask_path,
         "PNG: white (or opaque) is painted anew in the init image"),
    NUMBER("mask-blur", generation.mask_blur, "blur the mask by so many pixels"),
    NUMBER("deadline", deadline_seconds,
           "give a picture up after so many seconds (default: never)"),
    FLAG("partial", generation.partial, "or take what there is by then, after one step at least"),
    TEXT("preview", "FILE", pictures.preview_path,
         "write a small PNG of what there is after each step"),
    OTHER("tile", "AXES", tile, generation.tile_x, "seamless along x, y or xy, for textures"),
    FLAG("timings", timings, "print one JSON line a picture on stdout"),
    FLAG("profile", engine.profile, "print where the time went, by part, kind and shape"),
    TEXT("output", "FILE", output, "the PNG to write (required)"),
};
#define ROW_COUNT (sizeof(rows) / sizeof(rows[0]))

static void print_help(void)
{
    printf("Usage: txt2img --model PATH --prompt TEXT --output FILE.png [options]\n\n");
    for (size_t i = 0; i < ROW_COUNT; i++) {
        char left[64];
        snprintf(left, sizeof(left), "--%s %s", rows[i].name,
                 rows[i].value != NULL ? rows[i].value : "");
        printf("  %-23s %s\n", left, rows[i].help);
    }
    printf("  %-23s %s\n  %-23s %s\n", "--help", "show this text", "--version", "show the version");
    printf("\nworker/models/demo is a small model to try. What each control computes is in\n"
           "docs/CONTROLS.md, samplers are in docs/SAMPLERS.md, prompts in docs/PROMPTS.md.\n");
}

int options_pictures(const struct options *options)
{
    int count = options->seed_count > 0 ? options->seed_count : options->batch;
    return count > 0 ? count : 1;
}

/* ---- The command line ------------------------------------------------------------------------ */

static int check(const struct options *options)
{
    const struct {
        const char *name, *value;
    } required[] = {{"model", options->engine.model_path},
                    {"prompt", options->generation.prompt},
                    {"output", options->output}};
    for (size_t i = 0; i < sizeof(required) / sizeof(required[0]); i++) {
        if (required[i].value == NULL && (i == 0 || !options->estimate)) {
            fprintf(stderr, "txt2img: --%s is required; see --help\n", required[i].name);
            return EXIT_USAGE;
        }
    }
    if (options->batch > 0 && options->seed_count > 0) {
        fprintf(stderr, "txt2img: --batch counts seeds up and --seeds lists them: give one\n");
        return EXIT_USAGE;
    }
    if (options->has_seed && options->seed_count > 0) {
        fprintf(stderr, "txt2img: --seed is one picture's and --seeds lists them: give one\n");
        return EXIT_USAGE;
    }
    if (options->generation.partial && options->deadline_seconds == 0) {
        fprintf(stderr, "txt2img: --partial says what --deadline does: give both\n");
        return EXIT_USAGE;
    }
    if (options_pictures(options) > 1 && (options->dump != NULL || options->latents != NULL)) {
        fprintf(stderr,
                "txt2img: --dump and --latents are for one picture, not with --batch or --seeds\n");
        return EXIT_USAGE;
    }
    return -1;
}

/* Point what engine and generation take at what was collected. */
static void connect(struct options *options)
{
    options->engine.embeddings = options->embeddings;
    options->engine.lora_files = options->loras.files;
    options->engine.lora_file_count = options->loras.file_count;
    options->generation.loras = options->loras.uses;
    options->generation.lora_count = options->loras.count;
}

int options_parse(struct options *options, int argc, char **argv)
{
    enum { KEY_ROWS = 256, KEY_VERSION = KEY_ROWS + ROW_COUNT };
    struct option long_options[ROW_COUNT + 3] = {{0}};
    for (size_t i = 0; i < ROW_COUNT; i++) {
        long_options[i] = (struct option){
            .name = rows[i].name,
            .has_arg = rows[i].value != NULL ? required_argument : no_argument,
            .val = KEY_ROWS + (int)i,
        };
    }
    long_options[ROW_COUNT] = (struct option){.name = "version", .val = KEY_VERSION};
    long_options[ROW_COUNT + 1] = (struct option){.name = "help", .val = 'h'};

    *options = (struct options){
        .generation = {.guidance = -1, .negative_prompt = "", .seed = id_random() >> 32},
    };
    engine_cache_folder(options->cache_folder, sizeof(options->cache_folder));
    options->engine.cache_folder = options->cache_folder;
    int key;
    while ((key = getopt_long(argc, argv, "h", long_options, NULL)) != -1) {
        if (key == 'h') {
            print_help();
            return EXIT_SUCCESS;
        }
        if (key == KEY_VERSION) {
            printf("txt2img %s\n", CRAFTERSE_VERSION);
            return EXIT_SUCCESS;
        }
        if (key < KEY_ROWS) {
            return EXIT_USAGE; /* getopt has said what is wrong */
        }
        const struct row *row = &rows[key - KEY_ROWS];
        int code = row->read(row, optarg, options);
        if (code != 0) {
            return code;
        }
    }
    if (optind < argc) {
        fprintf(stderr, "txt2img: \"%s\" is not an option; see --help\n", argv[optind]);
        return EXIT_USAGE;
    }
    connect(options);
    return check(options);
}

void options_deinit(struct options *options)
{
    picture_options_deinit(&options->pictures);
    lora_options_deinit(&options->loras);
}
