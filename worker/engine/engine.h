/* The diffusion engine as the rest of the worker sees it: open a model folder, make pictures.
 *
 * This is the only header of worker/engine that a service may include. The engine reads model
 * folders as the diffusers library writes them, computes in float32 on OpenBLAS, or coarser where
 * that is allowed, and knows nothing of Kafka, HTTP or object stores. The same seed gives the same
 * picture as diffusers on a CPU.
 *
 * An engine owns its memory (mapped weights, arenas) and its threads. Opening one maps the weights
 * and checks every tensor; after that a generation cannot fail for want of a tensor or a shape:
 * what can be wrong with a request is said by engine_check, before any work is done.
 *
 * Threads: an engine may be used from any thread, but by one at a time. Only one engine should be
 * computing in a process, as each takes all the processors it was given. engine_info and
 * engine_limits are constant after engine_open and may be read from anywhere.
 */
#ifndef WORKER_ENGINE_ENGINE_H
#define WORKER_ENGINE_ENGINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/error.h"

struct engine;
struct engine_dump;

/* How weights are held for products in float32; the pictures are the same but for rounding. Those
 * that a coarser arithmetic uses (engine_precision) are packed for it either way. */
enum engine_storage {
    ENGINE_STORAGE_FILE, /* used where they are mapped, f16 and bf16 converted while multiplying */
    /* Converted and repacked when the model is opened, which takes long: steps a few hundredths
     * faster for 2.3 times the memory (SDXL in f16; docs/SPEED.md). */
    ENGINE_STORAGE_F32,
};

/* How far the operands of matrix products and convolutions may be rounded. A permission: what is
 * computed in is the fastest within it, measured on this machine when the engine is opened
 * (engine_info.arithmetic). Layers that feel it most are rounded less: docs/ENGINE.md. */
enum engine_precision {
    ENGINE_PRECISION_F32,  /* as diffusers computes */
    ENGINE_PRECISION_F16,  /* to 11 bits, scaled so that nothing overflows */
    ENGINE_PRECISION_BF16, /* to 8 bits */
    ENGINE_PRECISION_INT8, /* also to bytes with a scale for each channel and row (W8A8) */
};

/* At most so many LoRAs in one picture, with weights from -ENGINE_LORA_WEIGHT_MAX to that. */
#define ENGINE_LORAS_MAX 16
#define ENGINE_LORA_WEIGHT_MAX 10

struct engine_options {
    const char *model_path; /* a diffusers folder, or a .safetensors checkpoint */
    /* A VAE to use in place of the model's own, with as many latent channels: a diffusers folder
     * (AutoencoderKL or AutoencoderTiny, which is TAESD), a .safetensors file in the original
     * code's names, or a model for its VAE. NULL or "" = the model's own. */
    const char *vae_path;
    int threads; /* 0 = as many as the cgroup's quota (else the affinity mask) allows */
    enum engine_storage storage;
    enum engine_precision precision;
    /* Compute in the arithmetic of the precision itself, also where another is faster; engine_open
     * fails with STATUS_UNSUPPORTED where the processor has none. For tests and measurements. */
    bool precision_is_forced;
    /* Bytes that the process may use; 0 = the control group's limit, or else the machine's memory.
     * Pictures that would take more are refused. */
    uint64_t memory_limit;
    /* Where packed weights are kept between starts (docs/OPERATIONS.md), and how many bytes all
     * that is kept there may take, 0 = 32 GiB. NULL or "": not kept. See engine_cache_folder. */
    const char *cache_folder;
    uint64_t cache_limit;
    /* Rows of the bands in which the VAE works on what is large; 0 = so many that they take some
     * megabytes. The picture does not depend on it, bit for bit. */
    int band_rows;
    /* LoRAs that requests may name: the *.safetensors of a folder, and further files; NULL: none.
     * A request names them by file stem. */
    const char *lora_folder;
    const char *const *lora_files;
    int lora_file_count;
    /* Textual inversion embeddings that prompts may call by their names (docs/PROMPTS.md): a folder
     * of .safetensors files, and single files, which must fit the model. NULL and 0: none. They are
     * mapped now; files that come later are not seen. */
    const char *embedding_folder;
    const char *const *embeddings; /* [embedding_count] paths */
    int embedding_count;
    /* Record where the time of every picture goes, for engine_profile_text. */
    bool profile;
};

/* What a picture takes at most at once, in bytes. */
struct engine_estimate {
    size_t weights;            /* all of the model's, mapped or converted, and of its LoRAs */
    size_t text, step, decode; /* activations of the stages */
    size_t encode;             /* and of the encoder, for an init_image */
    size_t activations;        /* the largest of those, and what lives for the whole picture */
    size_t others;             /* the process beside weights and activations */
    size_t peak;               /* all of it: weights + activations + others; less when: */
    bool drops_text;           /* the limit demands that mapped weights of the text encoders give
                                * back their memory as soon as the prompts are encoded */
    size_t limit;              /* what there is; see engine_options.memory_limit */
};

/* What a request must keep to; engine_check refuses the rest. */
struct engine_limits {
    int width_max, height_max; /* pixels */
    int size_multiple;         /* width and height are multiples of this (the VAE's factor) */
    int steps_max;
};

/* A LoRA file of the engine's. */
struct engine_lora {
    char name[244];  /* its file's stem */
    char digest[65]; /* of its content, as a model's (weights/model_digest.h) */
    char hash[13];   /* for the "Lora hashes" of a picture's parameters; see lora_library.c */
    char *problem;   /* why this model cannot use it; NULL: it can */
};

struct engine_info {
    char model_name[128]; /* see pipeline/model_name.h */
    char vae_name[128];   /* the same of engine_options.vae_path; "" without */
    /* SHA-256 in hex over every file's relative path, size and content (large files sampled): see
     * weights/model_digest.h; and over the arithmetic, where it is not float32. Engines with the
     * same digest make the same pictures. */
    char digest[65];
    const char *arithmetic; /* what most products are computed in: "f32", "f16", "bf16", "int8" */
    int default_width, default_height, default_steps;
    double default_guidance;
    char default_scheduler[32];      /* what "" means in a request: "ddim", "euler", ... */
    const char *const *schedulers;   /* that this model's config allows; NULL-terminated */
    const char *const *sigmas;       /* spacings that some of them know; NULL-terminated */
    uint64_t parameter_count;        /* over all components */
    const struct engine_lora *loras; /* by name; those with a problem too */
    int lora_count;
    const char *weight_cache; /* what came of keeping packed weights, in words; "": none are */
    bool weight_cache_amiss;  /* they should have been kept, and are not */
};

/* A LoRA to use, by name. Its change of the UNet is scaled by weight, that of the text encoders by
 * the same or by text_weight. */
struct engine_adapter_use {
    const char *name;
    double weight;
    bool has_text_weight;
    double text_weight;
};

/* Pixels from outside: any size to 16384 a side. */
struct engine_picture {
    int width, height;
    const uint8_t *rgb; /* [height, width, 3] */
};

struct engine_mask {
    int width, height;
    const uint8_t *gray; /* [height, width]; from one half up is painted anew, below is kept */
};

/* Called on the thread that called engine_generate, with its user, once for each sampling step
 * before its progress: what the picture looks like by now, at most 128 pixels a side, drawn from
 * the latents and not by the VAE. The picture is the engine's and valid until return. */
typedef void (*engine_preview)(void *user, int step, int steps,
                               const struct engine_picture *picture);

/* One picture to make. The strings and latents stay the caller's and are not kept. */
struct generation {
    const char *prompt;          /* UTF-8; may be empty; A1111's syntax: docs/PROMPTS.md */
    const char *negative_prompt; /* the same; "" or NULL = not given */
    /* Layers left out at the end of the text encoders, for the prompt alone, as diffusers does it;
     * 0 = the model's own way. */
    int clip_skip;
    int width, height; /* pixels */
    int steps;
    /* Classifier-free guidance scale; 1 or less turns guidance off. A latent consistency model
     * takes it as an input instead, and reads no negative prompt. */
    double guidance;
    /* Of the guided prediction's deviation back to that of the prompt's own, against overexposure:
     * 0 (none) to 1 (all). */
    double guidance_rescale;
    /* Guide only this part of the steps, in fractions of their number, for less work or less
     * saturation; an end of 0 is 1. Outside it the negative prompt is not read. */
    double guidance_start, guidance_end;
    /* Step caching (DeepCache): of each cache_interval calls of the UNet the first is computed
     * whole, the others take what is deeper than skip connection cache_branch_id from it; 0 and 1:
     * all are whole. Token merging: this part of the tokens, 0 (none) to 0.75, is merged away
     * before a self-attention at the first level that has any. docs/CONTROLS.md. */
    int cache_interval, cache_branch_id;
    double tome_ratio;
    uint64_t seed;
    const char *scheduler; /* "ddim", "Euler a", ...: docs/SAMPLERS.md; "" or NULL = the model's */
    const char *sigmas;    /* "karras", "exponential", ...; "" or NULL = the model's */
    const char *timestep_spacing; /* "leading", "trailing", "linspace"; "" or NULL = the model's */
    double eta;                   /* of ddim and tcd, 0 to 1; 0 adds no noise between the steps */
    /* Initial standard normal noise [latent_channels, height/8, width/8] in place of the one the
     * seed gives (scaled by the scheduler, as in diffusers); NULL = from the seed. */
    const float *latents;
    /* Seamless along an axis: every 3x3 convolution of the UNet and the VAE pads circularly there,
     * so that the left edge continues the right one (x), the top the bottom (y). */
    bool tile_x, tile_y;
    /* A picture to start from; NULL = none. Of any size: it is resized to width x height. */
    const struct engine_picture *init_image;
    /* How far from it to go, 0 to 1: this part of the steps is made. 0 = as diffusers' pipelines:
     * of SD 0.8, of SDXL 0.3; with a mask 1 and 0.9999. */
    double strength;
    /* What to paint anew in init_image; NULL = all of it. Of any size, as init_image. */
    const struct engine_mask *mask_image;
    double mask_blur; /* standard deviation in pixels of the mask, 0 to 256 */
    /* When to give up: a value of clock_monotonic_seconds; looked at between steps and within the
     * VAE. 0 = never. */
    double deadline;
    /* Past the deadline, end with what there is: the first step is always made, and the clean
     * picture that the last one implies is decoded. Says so in picture.steps_done. */
    bool partial;
    engine_preview preview; /* NULL = none */
    /* LoRAs on top of the model, for this picture only; they add up. Those that the prompt names,
     * "<lora:NAME:WEIGHT>", are added to these. */
    const struct engine_adapter_use *loras;
    int lora_count;
};

enum engine_stage { ENGINE_STAGE_TEXT, ENGINE_STAGE_DENOISE, ENGINE_STAGE_DECODE };

/* Called on the thread that called engine_generate: once when the text is encoded (TEXT, 1 of 1),
 * between the encoder's blocks when there is an init_image (DENOISE, 0 of steps), after each
 * sampling step (DENOISE, step of steps, counted from 1: calls of the UNet, of which some samplers
 * take two a step of the request), before the decode and again between its blocks (DECODE, step of
 * steps, from 0). Return false to stop: engine_generate then returns STATUS_CANCELLED. It must be
 * quick, and must not call back into the engine. */
typedef bool (*engine_progress)(void *user, enum engine_stage stage, int step, int steps);

struct engine_timings {
    /* The text encoders; the UNet's keys and values of the prompts and the steps; the VAE. */
    double text_seconds, denoise_seconds, decode_seconds, total_seconds;
    double flop; /* of all matrix products, multiply-add = 2; convolutions as plain sums */
    double text_flop, denoise_flop, decode_flop; /* of the encoders, the steps, the decode */
    size_t peak_bytes; /* most memory held for activations; the weights are not in it */
};

struct picture {
    int width, height;
    int steps_done; /* calls of the UNet until the deadline of a partial generation; 0 = all */
    uint8_t *rgb;   /* [height, width, 3], owned: picture_free */
    struct engine_timings timings;
    /* A prompt was longer than 8 chunks of 75 tokens: the rest is not used. */
    bool prompt_truncated;
    /* Syntax of A1111's web UI in a prompt that is not done here and was read as words, "[a|b]";
     * NULL: none. Static. */
    const char *literal_form;
};

/* Open the model: read its configs, map its weights, check all of them. On failure *out is NULL and
 * err names the file and every problem found in it: STATUS_NOT_FOUND (no such model),
 * STATUS_CORRUPT (a damaged file), STATUS_UNSUPPORTED (a model we cannot run). */
int engine_open(struct engine **out, const struct engine_options *options,
                struct error *err) MUST_CHECK;

/* The default cache_folder: $CRAFTERSE_CACHE_FOLDER, else $XDG_CACHE_HOME/crafterse, else
 * ~/.cache/crafterse; "" when none of them is set. */
void engine_cache_folder(char *path, size_t size);

/* Accepts NULL. Pictures outlive the engine. Waits for packed weights that are being written. */
void engine_close(struct engine *engine);

const struct engine_info *engine_info(const struct engine *engine);
const struct engine_limits *engine_limits(const struct engine *engine);

/* Say whether a request can be run: STATUS_INVALID with a message that names the field, its value
 * and what is allowed. Quick (it plans the steps), changes nothing, safe from any thread. */
int engine_check(const struct engine *engine, const struct generation *generation,
                 struct error *err) MUST_CHECK;

/* Say how much memory a picture will take: to within a tenth, side paths of LoRAs left out.
 * Prompts, size, guidance, shortcuts and LoRAs must be such that engine_check takes them, and are
 * refused as it does; steps, sampler and pictures may be anything. A few milliseconds, safe from
 * any thread. */
int engine_estimate(const struct engine *engine, const struct generation *generation,
                    struct engine_estimate *out, struct error *err) MUST_CHECK;

/* What is safe here for pictures of width x height: each quality with either way of holding the
 * weights, and with the precision int8, at that size or the largest of its shape that fits the
 * limit. Memory does not depend on the steps, only time does. Takes some tens of milliseconds. */
#define ENGINE_PRESETS 9

struct engine_preset {
    const char *name; /* "optimized", "high", "ultra" */
    int steps;
    double guidance;
    enum engine_storage storage; /* what to open the engine with */
    enum engine_precision precision;
    int width, height; /* 0: no picture fits */
    size_t peak;       /* bytes, as engine_estimate's */
};

void engine_presets(const struct engine *engine, int width, int height,
                    struct engine_preset presets[ENGINE_PRESETS]);

/* Make one picture. Checks the request first. progress and dump may be NULL. On success *out is
 * filled and the caller frees it; otherwise out->rgb is NULL. STATUS_CANCELLED when progress said
 * to stop, STATUS_TIMEOUT (not retriable) when the deadline passed: the text says after which step.
 * STATUS_CORRUPT when a stage comes to NaN or infinity, as weights that hold NaN make it.
 * One call at a time per engine. */
int engine_generate(struct engine *engine, const struct generation *generation,
                    engine_progress progress, void *user, struct engine_dump *dump,
                    struct picture *out, struct error *err) MUST_CHECK;

/* What a picture's parameters say of its LoRAs: tags of those that the request names beside the
 * prompt, "<lora:a:0.8> <lora:b:1>", and "a: HASH, b: HASH" for all of them; "" for none. For a
 * generation that engine_check has accepted. xfree both. */
void engine_lora_texts(const struct engine *engine, const struct generation *generation,
                       char **tags, char **hashes);

/* Where the time of all pictures so far went: tables of the model's parts, of the kinds of layers
 * and of their shapes, beside OpenBLAS's own rate, which is measured now (0.1 s and more). For an
 * engine opened with options.profile, between pictures. xfree it. */
char *engine_profile_text(const struct engine *engine);

void picture_free(struct picture *picture);

/* The strength that a generation with an init_image runs at, its default included; 0 without. */
double engine_strength(const struct engine *engine, const struct generation *generation);

/* Read the tensor "latents" [1, latent_channels, height/8, width/8] (or without the 1) from a
 * safetensors file, for generation.latents. *latents is the caller's (xfree); NULL on failure. */
int engine_load_latents(const struct engine *engine, const char *path, int width, int height,
                        float **latents, struct error *err) MUST_CHECK;

/* A dump collects every stage's tensors of one generation in diffusers' layouts: prompt_embeds
 * [1, 77 * chunks, d], pooled_prompt_embeds (of SDXL), negative_prompt_embeds and
 * negative_pooled_prompt_embeds (with guidance), timesteps [steps], noise_pred_uncond.<i> and
 * noise_pred_text.<i> (with guidance), noise_pred.<i> (guided), latents.<i> [1, 4, h, w] after step
 * i, image [1, 3, H, W] in [-1, 1]. */
struct engine_dump *engine_dump_create(void);
void engine_dump_destroy(struct engine_dump *dump); /* accepts NULL */

/* A tensor by name, or NULL. Fills *rank and shape[4]. Owned by the dump. */
const float *engine_dump_find(const struct engine_dump *dump, const char *name, int *rank,
                              int64_t shape[4]);

/* Write all of them into one safetensors file. */
int engine_dump_write(const struct engine_dump *dump, const char *path,
                      struct error *err) MUST_CHECK;

#endif
