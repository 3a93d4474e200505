#include "worker/engine/engine.h"

#include <math.h>
#include <stdint.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/panic.h"
#include "tests/harness/test.h"
#include "worker/engine/weights/safetensors.h"

#define MODEL "tests/golden/tiny-sdxl"
#define WEIGHTS "diffusion_pytorch_model.safetensors"

static struct engine *open_model(void)
{
    struct engine *engine = NULL;
    struct error err;
    struct engine_options options = {.model_path = MODEL, .threads = 2};
    if (engine_open(&engine, &options, &err) < 0) {
        test_report(__FILE__, __LINE__, err.text);
    }
    return engine;
}

static struct generation request(void)
{
    return (struct generation){.prompt = "a flaming sword",
                               .negative_prompt = "blurry",
                               .width = 32,
                               .height = 24,
                               .steps = 3,
                               .guidance = 4,
                               .seed = 7,
                               .scheduler = ""};
}

static const char *const parts[] = {
    "model_index.json", "scheduler",   "text_encoder", "text_encoder_2",
    "tokenizer",        "tokenizer_2", "unet",         "vae"};

/* The picture of request() by an engine that holds its weights so. */
static struct picture picture_with(enum engine_storage storage)
{
    struct engine *engine = NULL;
    struct error err;
    struct picture picture = {.rgb = NULL};
    struct engine_options options = {.model_path = MODEL, .threads = 2, .storage = storage};
    struct generation generation = request();
    if (engine_open(&engine, &options, &err) < 0 ||
        engine_generate(engine, &generation, NULL, NULL, NULL, &picture, &err) < 0) {
        test_report(__FILE__, __LINE__, err.text);
    }
    engine_close(engine);
    return picture;
}

TEST(how_weights_are_held_changes_a_picture_by_no_more_than_rounding)
{
    struct picture in_place = picture_with(ENGINE_STORAGE_FILE);
    struct picture expanded = picture_with(ENGINE_STORAGE_F32);
    REQUIRE(in_place.rgb != NULL && expanded.rgb != NULL);
    for (int i = 0; i < 3 * in_place.width * in_place.height; i++) {
        CHECK_NEAR((double)in_place.rgb[i], (double)expanded.rgb[i], 1);
    }
    picture_free(&in_place);
    picture_free(&expanded);
}

/* A link at folder/name to a part of the golden model. */
static void link_part(const char *folder, const char *name, const char *part)
{
    char here[512], from[1024], to[1024];
    CHECK(getcwd(here, sizeof(here)) != NULL);
    snprintf(from, sizeof(from), "%s/" MODEL "/%s", here, part);
    snprintf(to, sizeof(to), "%s/%s", folder, name);
    CHECK_INT(symlink(from, to), 0);
}

/* A new folder from a mkdtemp template, linked to the golden model but for one part. */
static void make_model(char *folder, const char *own)
{
    CHECK(mkdtemp(folder) != NULL);
    for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
        if (strcmp(parts[i], own) != 0) {
            link_part(folder, parts[i], parts[i]);
        }
    }
}

static void remove_in(const char *folder, const char *name)
{
    char path[1024];
    snprintf(path, sizeof(path), "%s/%s", folder, name);
    CHECK_INT(remove(path), 0);
}

static void remove_model(const char *folder)
{
    for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
        remove_in(folder, parts[i]);
    }
    CHECK_INT(rmdir(folder), 0);
}

static void write_text(const char *folder, const char *name, const char *text)
{
    char path[600];
    snprintf(path, sizeof(path), "%s/%s", folder, name);
    FILE *file = fopen(path, "w");
    CHECK(file != NULL);
    if (file != NULL) {
        fputs(text, file);
        fclose(file);
    }
}

TEST(an_opened_model_says_what_it_is_and_what_it_takes)
{
    struct engine *engine = open_model();
    REQUIRE(engine != NULL);
    const struct engine_info *info = engine_info(engine);
    const struct engine_limits *limits = engine_limits(engine);
    CHECK_STR(info->model_name, "tiny-sdxl");
    CHECK_INT(strlen(info->digest), 64);
    CHECK(info->parameter_count > 10000);
    CHECK(info->default_width > 0 && info->default_width <= limits->width_max);
    CHECK_INT(info->default_width % limits->size_multiple, 0);
    CHECK(limits->steps_max >= info->default_steps);
    CHECK_STR(info->default_scheduler, "euler");
    CHECK_STR(info->schedulers[0], "ddim");
    CHECK_STR(info->sigmas[1], "karras");
    engine_close(engine);
    engine_close(NULL);
}

TEST(a_size_that_only_an_old_config_gives_is_repaired_as_diffusers_does)
{
    static const struct {
        const char *path;
        int latents;
    } cases[] = {{"tests/parity/models/sd15", 64},      /* 8, of diffusers 0.6 */
                 {"tests/parity/models/sd20-base", 8}}; /* 8, of 0.10 */
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct engine *engine = NULL;
        struct error err = {.text = ""};
        struct engine_options options = {.model_path = cases[i].path, .threads = 1};
        CHECK_INT(engine_open(&engine, &options, &err), STATUS_OK);
        CHECK_STR(err.text, "");
        CHECK_INT(engine_info(engine)->default_width,
                  cases[i].latents * engine_limits(engine)->size_multiple);
        engine_close(engine);
    }
}

TEST(a_request_that_cannot_be_run_is_refused_by_field_value_and_range)
{
    struct engine *engine = open_model();
    REQUIRE(engine != NULL);
    struct error err;
    struct generation g = request();
    CHECK_INT(engine_check(engine, &g, &err), 0);
    g.width = 33;
    CHECK_INT(engine_check(engine, &g, &err), STATUS_INVALID);
    CHECK_CONTAINS(err.text, "width: 33 is not a multiple of");
    g = request(), g.height = 1 << 20;
    CHECK_INT(engine_check(engine, &g, &err), STATUS_INVALID);
    CHECK_CONTAINS(err.text, "height: 1048576");
    g = request(), g.steps = 0;
    CHECK_INT(engine_check(engine, &g, &err), STATUS_INVALID);
    CHECK_CONTAINS(err.text, "steps: 0 is not from 1 to");
    g = request(), g.guidance = NAN;
    CHECK_INT(engine_check(engine, &g, &err), STATUS_INVALID);
    g = request(), g.scheduler = "dpm++";
    CHECK_INT(engine_check(engine, &g, &err), STATUS_INVALID);
    CHECK_CONTAINS(err.text, "scheduler: \"dpm++\" is not one of ddim, ddpm, pndm, euler, ");
    g = request(), g.scheduler = "DPM++ 2M Karras";
    CHECK_INT(engine_check(engine, &g, &err), 0);
    g = request(), g.scheduler = "DDIM Karras";
    CHECK_INT(engine_check(engine, &g, &err), STATUS_INVALID);
    CHECK_CONTAINS(err.text, "sigmas: \"karras\" is not supported by ddim");
    g = request(), g.guidance_end = 1.5;
    CHECK_INT(engine_check(engine, &g, &err), STATUS_INVALID);
    CHECK_CONTAINS(err.text, "guidance_end: 1.5 is not from 0 to 1");
    g = request(), g.prompt = "caf\xE9";
    CHECK_INT(engine_check(engine, &g, &err), STATUS_INVALID);
    CHECK_CONTAINS(err.text, "prompt: not valid UTF-8");

    struct picture picture;
    CHECK_INT(engine_generate(engine, &g, NULL, NULL, NULL, &picture, &err), STATUS_INVALID);
    CHECK(picture.rgb == NULL);
    engine_close(engine);
}

TEST(what_cannot_be_drawn_for_its_size_or_prompt_is_not_estimated_either)
{
    struct engine *engine = open_model();
    REQUIRE(engine != NULL);
    struct error err;
    struct engine_estimate estimate;
    struct generation g = request();
    g.steps = 0, g.scheduler = "none"; /* which take no memory */
    CHECK_INT(engine_estimate(engine, &g, &estimate, &err), STATUS_OK);
    g.width = 1;
    CHECK_INT(engine_estimate(engine, &g, &estimate, &err), STATUS_INVALID);
    CHECK_CONTAINS(err.text, "width: 1 is not a multiple of");
    g.width = 1 << 20, g.height = 1 << 20;
    CHECK_INT(engine_estimate(engine, &g, &estimate, &err), STATUS_INVALID);
    g = request(), g.clip_skip = 200;
    CHECK_INT(engine_estimate(engine, &g, &estimate, &err), STATUS_INVALID);
    CHECK_CONTAINS(err.text, "clip_skip: 200 is not from 0 to");
    engine_close(engine);
}

static uint32_t picture_of(struct engine *engine, const struct generation *generation)
{
    struct error err;
    struct picture picture;
    uint32_t sum = 0;
    CHECK_INT(engine_generate(engine, generation, NULL, NULL, NULL, &picture, &err), 0);
    for (size_t i = 0; picture.rgb != NULL && i < (size_t)picture.width * 3; i++) {
        sum = sum * 31 + picture.rgb[i];
    }
    picture_free(&picture);
    return sum;
}

TEST(a1111_names_ask_for_the_same_pictures)
{
    struct engine *engine = open_model();
    REQUIRE(engine != NULL);
    struct generation ours = request(), theirs = request(), plain = request();
    ours.scheduler = "dpmpp_2m", ours.sigmas = "karras";
    theirs.scheduler = "DPM++ 2M Karras";
    plain.scheduler = "dpmpp_2m";
    CHECK(picture_of(engine, &ours) == picture_of(engine, &theirs));
    CHECK(picture_of(engine, &ours) != picture_of(engine, &plain));
    theirs.sigmas = "uniform"; /* said by itself it counts before the name's */
    CHECK(picture_of(engine, &theirs) == picture_of(engine, &plain));
    engine_close(engine);
}

TEST(a_seed_is_a_picture)
{
    struct engine *engine = open_model();
    REQUIRE(engine != NULL);
    struct error err;
    struct generation g = request();
    struct picture one, same, other;
    REQUIRE(engine_generate(engine, &g, NULL, NULL, NULL, &one, &err) == 0);
    REQUIRE(engine_generate(engine, &g, NULL, NULL, NULL, &same, &err) == 0);
    g.seed++;
    REQUIRE(engine_generate(engine, &g, NULL, NULL, NULL, &other, &err) == 0);
    CHECK(one.width == 32 && one.height == 24);
    CHECK(memcmp(one.rgb, same.rgb, 32 * 24 * 3) == 0);
    CHECK(memcmp(one.rgb, other.rgb, 32 * 24 * 3) != 0);
    CHECK(one.timings.flop > 1e6 && one.timings.peak_bytes > 0);
    CHECK(one.timings.total_seconds >= one.timings.denoise_seconds);
    CHECK(!one.prompt_truncated);
    picture_free(&one), picture_free(&same), picture_free(&other);
    engine_close(engine);
}

TEST(a_prompt_too_long_for_the_model_is_cut_and_said_so)
{
    struct engine *engine = open_model();
    REQUIRE(engine != NULL);
    struct error err;
    struct generation g = request();
    char prompt[4096];
    for (size_t i = 0; i < 400; i++) {
        snprintf(prompt + i * 10, sizeof(prompt) - i * 10, "a red axe ");
    }
    g.prompt = prompt;
    g.steps = 1;
    struct picture picture;
    REQUIRE(engine_generate(engine, &g, NULL, NULL, NULL, &picture, &err) == 0);
    CHECK(picture.prompt_truncated);
    picture_free(&picture);
    prompt[1000] = '\0';
    REQUIRE(engine_generate(engine, &g, NULL, NULL, NULL, &picture, &err) == 0);
    CHECK(!picture.prompt_truncated);
    picture_free(&picture);
    engine_close(engine);
}

/* Stops at a given stage and step, and counts what was reported. */
struct stop {
    enum engine_stage stage;
    int step;
    int calls[3];
};

static bool stop_at(void *user, enum engine_stage stage, int step, int steps)
{
    struct stop *stop = user;
    stop->calls[stage]++;
    CHECK(step >= 0 && step <= steps);
    return !(stage == stop->stage && step == stop->step);
}

TEST(a_picture_can_be_cancelled_at_every_stage_and_the_next_one_is_right)
{
    struct engine *engine = open_model();
    REQUIRE(engine != NULL);
    struct error err;
    struct generation g = request();
    struct picture whole, picture;
    REQUIRE(engine_generate(engine, &g, NULL, NULL, NULL, &whole, &err) == 0);
    static const struct stop stops[] = {{ENGINE_STAGE_TEXT, 1, {0}},
                                        {ENGINE_STAGE_DENOISE, 1, {0}},
                                        {ENGINE_STAGE_DENOISE, 3, {0}},
                                        {ENGINE_STAGE_DECODE, 0, {0}},
                                        {ENGINE_STAGE_DECODE, 2, {0}}};
    for (size_t i = 0; i < sizeof(stops) / sizeof(stops[0]); i++) {
        struct stop stop = stops[i];
        CHECK_INT(engine_generate(engine, &g, stop_at, &stop, NULL, &picture, &err),
                  STATUS_CANCELLED);
        CHECK(picture.rgb == NULL);
    }
    struct stop never = {ENGINE_STAGE_DENOISE, -1, {0}};
    REQUIRE(engine_generate(engine, &g, stop_at, &never, NULL, &picture, &err) == 0);
    CHECK_INT(never.calls[ENGINE_STAGE_TEXT], 1);
    CHECK_INT(never.calls[ENGINE_STAGE_DENOISE], 3);
    CHECK(never.calls[ENGINE_STAGE_DECODE] > 3);
    CHECK(memcmp(whole.rgb, picture.rgb, 32 * 24 * 3) == 0);
    picture_free(&whole), picture_free(&picture);
    engine_close(engine);
}

TEST(noise_from_a_file_replaces_the_seeds)
{
    struct engine *engine = open_model();
    REQUIRE(engine != NULL);
    struct error err;
    int factor = engine_limits(engine)->size_multiple;
    float noise[4 * 24 * 32] = {0};
    int64_t count = 4 * (24 / factor) * (32 / factor);
    for (int64_t i = 0; i < count; i++) {
        noise[i] = (float)(i % 7) - 3;
    }
    char path[] = "/tmp/latents-XXXXXX";
    REQUIRE(mkstemp(path) >= 0);
    struct safetensors_entry entry = {.name = "latents",
                                      .dtype = SAFETENSORS_F32,
                                      .rank = 4,
                                      .shape = {1, 4, 24 / factor, 32 / factor},
                                      .data = noise,
                                      .size = (size_t)count * sizeof(float)};
    REQUIRE(safetensors_write(path, &entry, 1, NULL, &err) == 0);
    float *latents = NULL;
    REQUIRE(engine_load_latents(engine, path, 32, 24, &latents, &err) == 0);
    struct generation g = request();
    g.latents = latents;
    struct picture one, other;
    REQUIRE(engine_generate(engine, &g, NULL, NULL, NULL, &one, &err) == 0);
    g.seed++;
    REQUIRE(engine_generate(engine, &g, NULL, NULL, NULL, &other, &err) == 0);
    CHECK(memcmp(one.rgb, other.rgb, 32 * 24 * 3) == 0);
    picture_free(&one), picture_free(&other);
    free(latents);
    CHECK_INT(engine_load_latents(engine, path, 64, 64, &latents, &err), STATUS_INVALID);
    CHECK_CONTAINS(err.text, "another shape");
    CHECK(latents == NULL);
    noise[count - 1] = NAN;
    REQUIRE(safetensors_write(path, &entry, 1, NULL, &err) == 0);
    CHECK_INT(engine_load_latents(engine, path, 32, 24, &latents, &err), STATUS_CORRUPT);
    CHECK_CONTAINS(err.text, "latents holds NaN or infinity");
    CHECK(latents == NULL);
    unlink(path);
    engine_close(engine);
}

TEST(a_model_that_is_not_supported_is_refused_with_every_reason)
{
    struct engine *engine = NULL;
    struct error err;
    struct engine_options options = {.model_path = "/nonexistent"};
    CHECK_INT(engine_open(&engine, &options, &err), STATUS_NOT_FOUND);
    CHECK(engine == NULL);
    CHECK_CONTAINS(err.text, "/nonexistent/model_index.json");

    char folder[] = "/tmp/model-XXXXXX";
    make_model(folder, "model_index.json");
    write_text(folder, "model_index.json",
               "{\"_class_name\": \"StableDiffusionXLPipeline\","
               "\"unet\": [\"diffusers\", \"UNet3D\"], \"vae\": [\"diffusers\", \"VQModel\"]}");
    options.model_path = folder;
    CHECK(engine_open(&engine, &options, &err) < 0);
    CHECK_CONTAINS(err.text, "unet: \"UNet3D\" is not supported");
    CHECK_CONTAINS(err.text, "vae: \"VQModel\" is not supported");
    CHECK_CONTAINS(err.text, "tokenizer: missing");
    remove_model(folder);
}

TEST(components_that_make_no_difference_may_be_anything_or_null)
{
    struct engine *engine = NULL;
    struct error err;
    char folder[] = "/tmp/model-XXXXXX";
    make_model(folder, "model_index.json");
    write_text(folder, "model_index.json",
               "{\"_class_name\": \"StableDiffusionXLInpaintPipeline\","
               "\"requires_safety_checker\": true, \"safety_checker\": [null, null],"
               "\"feature_extractor\": [\"transformers\", \"CLIPImageProcessor\"],"
               "\"image_encoder\": null, \"tokenizer\": [\"transformers\", \"CLIPTokenizerFast\"],"
               "\"tokenizer_2\": [\"transformers\", \"CLIPTokenizer\"],"
               "\"text_encoder\": [\"transformers\", \"CLIPTextModel\"],"
               "\"text_encoder_2\": [\"transformers\", \"CLIPTextModelWithProjection\"],"
               "\"scheduler\": [\"diffusers\", \"DDIMScheduler\"],"
               "\"unet\": [\"diffusers\", \"UNet2DConditionModel\"],"
               "\"vae\": [\"diffusers\", \"AutoencoderKL\"]}");
    struct engine_options options = {.model_path = folder, .threads = 1};
    err.text[0] = '\0';
    CHECK_INT(engine_open(&engine, &options, &err), STATUS_OK);
    CHECK_STR(err.text, "");
    CHECK_STR(engine_info(engine)->default_scheduler, "ddim"); /* not the config's Euler */
    engine_close(engine);
    remove_model(folder);
}

TEST(another_vae_stands_in_for_the_models)
{
    struct error err;
    struct picture own = {0}, other = {0};
    struct generation generation = request();
    struct engine *first = open_model(), *second = NULL;
    struct engine_options options = {
        .model_path = MODEL, .vae_path = "tests/golden/models/vae-tiny", .threads = 2};
    REQUIRE(engine_open(&second, &options, &err) == STATUS_OK);
    CHECK_INT(engine_generate(first, &generation, NULL, NULL, NULL, &own, &err), STATUS_OK);
    CHECK_INT(engine_generate(second, &generation, NULL, NULL, NULL, &other, &err), STATUS_OK);
    CHECK_INT(other.width, own.width);
    CHECK_INT(other.height, own.height);
    CHECK(memcmp(own.rgb, other.rgb, (size_t)own.width * (size_t)own.height * 3) != 0);
    CHECK(strcmp(engine_info(first)->digest, engine_info(second)->digest) != 0);
    picture_free(&own);
    picture_free(&other);
    engine_close(first);
    engine_close(second);

    /* A whole model lends its VAE. */
    options.vae_path = MODEL;
    REQUIRE(engine_open(&first, &options, &err) == STATUS_OK);
    engine_close(first);
    options.vae_path = "tests/golden/models/unet-tiny";
    CHECK(engine_open(&first, &options, &err) < 0);
    CHECK_CONTAINS(err.text, "_class_name: \"UNet2DConditionModel\" is not supported");
    options.vae_path = "/nonexistent";
    CHECK_INT(engine_open(&first, &options, &err), STATUS_NOT_FOUND);
    CHECK_CONTAINS(err.text, "/nonexistent");
}

/* The picture of request() by the model, with another VAE. */
static struct picture picture_by(const char *model, const char *vae)
{
    struct engine *engine = NULL;
    struct error err;
    struct picture picture = {.rgb = NULL};
    struct engine_options options = {.model_path = model, .vae_path = vae, .threads = 1};
    struct generation generation = request();
    if (engine_open(&engine, &options, &err) < 0 ||
        engine_generate(engine, &generation, NULL, NULL, NULL, &picture, &err) < 0) {
        test_report(__FILE__, __LINE__, err.text);
    }
    engine_close(engine);
    return picture;
}

TEST(a_vae_that_does_not_say_its_scale_has_sdxls_in_an_sdxl_model_whose_own_is_a_taesd)
{
    char folder[] = "/tmp/vae-XXXXXX";
    REQUIRE(mkdtemp(folder) != NULL);
    write_text(folder, "config.json",
               "{\"block_out_channels\": [8, 16, 16, 16], \"norm_num_groups\": 4,"
               "\"down_block_types\": [\"DownEncoderBlock2D\", \"DownEncoderBlock2D\","
               "                       \"DownEncoderBlock2D\", \"DownEncoderBlock2D\"],"
               "\"up_block_types\": [\"UpDecoderBlock2D\", \"UpDecoderBlock2D\","
               "                     \"UpDecoderBlock2D\", \"UpDecoderBlock2D\"]}");
    link_part(folder, WEIGHTS, "vae/" WEIGHTS);
    struct picture silent = picture_by("tests/parity/models/taesdxl", folder);
    struct picture said = picture_by("tests/parity/models/taesdxl", MODEL "/vae"); /* 0.13025 */
    REQUIRE(silent.rgb != NULL && said.rgb != NULL);
    CHECK(memcmp(silent.rgb, said.rgb, (size_t)said.width * (size_t)said.height * 3) == 0);
    picture_free(&silent);
    picture_free(&said);
    remove_in(folder, "config.json");
    remove_in(folder, WEIGHTS);
    CHECK_INT(rmdir(folder), 0);
}

TEST(a_config_that_does_not_fit_is_refused_naming_key_and_value)
{
    struct engine *engine = NULL;
    struct error err;
    char folder[] = "/tmp/model-XXXXXX", unet[600];
    make_model(folder, "unet");
    snprintf(unet, sizeof(unet), "%s/unet", folder);
    REQUIRE(mkdir(unet, 0700) == 0);
    link_part(unet, WEIGHTS, "unet/" WEIGHTS);
    write_text(unet, "config.json",
               "{\"block_out_channels\": [32, 60], \"norm_num_groups\": 16, \"act_fn\": \"mish\","
               "\"down_block_types\": [\"DownBlock2D\", \"AttnDownBlock2D\"],"
               "\"up_block_types\": [\"UpBlock2D\"], \"class_embed_type\": \"timestep\"}");
    struct engine_options options = {.model_path = folder};
    CHECK(engine_open(&engine, &options, &err) < 0);
    CHECK_CONTAINS(err.text, "unet/config.json");
    CHECK_CONTAINS(err.text, "act_fn: \"mish\"");
    CHECK_CONTAINS(err.text, "\"AttnDownBlock2D\"");
    CHECK_CONTAINS(err.text, "up_block_types: 1 entries");
    CHECK_CONTAINS(err.text, "class_embed_type");
    CHECK_CONTAINS(err.text, "60 is not a multiple of norm_num_groups 16");
    remove_in(unet, "config.json");
    remove_in(unet, WEIGHTS);
    remove_model(folder);
}

/* from's tensors, one of them beginning with NaN. */
static void copy_with_nan(const char *from, const char *to, const char *damaged)
{
    enum { TENSORS_MAX = 1024 };
    static struct safetensors_entry entries[TENSORS_MAX];
    struct error err = {.text = ""};
    struct safetensors *file = NULL;
    CHECK_INT(safetensors_open(&file, from, &err), STATUS_OK);
    size_t count = safetensors_count(file);
    REQUIRE(count <= TENSORS_MAX);
    void *own = NULL;
    for (size_t i = 0; i < count; i++) {
        entries[i] = *safetensors_entry_at(file, i);
        if (strcmp(entries[i].name, damaged) == 0) {
            own = xmalloc(entries[i].size);
            memcpy(own, entries[i].data, entries[i].size);
            memset(own, 0xFF, sizeof(float)); /* NaN in f32, f16 and bf16 */
            entries[i].data = own;
        }
    }
    CHECK(own != NULL);
    CHECK_INT(safetensors_write(to, entries, count, NULL, &err), STATUS_OK);
    CHECK_STR(err.text, "");
    xfree(own);
    safetensors_close(file);
}

TEST(numbers_that_are_not_finite_fail_the_picture_and_name_the_stage)
{
    static const struct {
        const char *part, *file, *tensor, *text;
    } cases[] = {
        {"text_encoder", "model.safetensors", "encoder.layers.0.layer_norm1.bias",
         "the prompt's encoding is not all finite numbers"},
        {"unet", WEIGHTS, "conv_in.bias", "the UNet's output at step 1 of 3 is not all finite"},
        {"vae", WEIGHTS, "decoder.conv_out.bias", "the picture from the VAE's decoder is not"},
        {"vae", WEIGHTS, "encoder.conv_out.bias", NULL}, /* no init_image: not encoded */
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct engine *engine = NULL;
        struct picture picture = {.rgb = NULL};
        struct error err = {.text = ""};
        char folder[] = "/tmp/model-XXXXXX", part[600], from[600], name[600], to[1300];
        make_model(folder, cases[i].part);
        snprintf(part, sizeof(part), "%s/%s", folder, cases[i].part);
        CHECK_INT(mkdir(part, 0700), 0);
        snprintf(name, sizeof(name), "%s/config.json", cases[i].part);
        link_part(part, "config.json", name);
        snprintf(from, sizeof(from), MODEL "/%s/%s", cases[i].part, cases[i].file);
        snprintf(to, sizeof(to), "%s/%s", part, cases[i].file);
        copy_with_nan(from, to, cases[i].tensor);
        struct engine_options options = {.model_path = folder, .threads = 1};
        struct generation generation = request();
        CHECK_INT(engine_open(&engine, &options, &err), STATUS_OK);
        CHECK_STR(err.text, "");
        int result = engine_generate(engine, &generation, NULL, NULL, NULL, &picture, &err);
        CHECK_INT(result, cases[i].text != NULL ? STATUS_CORRUPT : STATUS_OK);
        CHECK((picture.rgb == NULL) == (cases[i].text != NULL));
        CHECK_CONTAINS(err.text, cases[i].text != NULL ? cases[i].text : "");
        CHECK(!err.retriable);
        picture_free(&picture);
        engine_close(engine);
        remove_in(part, "config.json");
        remove_in(part, cases[i].file);
        remove_model(folder);
    }
}

TEST_MAIN()
