/* Every form of the models alone: one forward of each UNet, both autoencoders in both directions,
 * and the text encoders' states, against diffusers and transformers
 * (tests/golden/golden_models.py).
 */
#include "tests/golden/golden.h"
#include "tests/support/scratch.h"
#include "worker/engine/config/json.h"
#include "worker/engine/kernels/gemm.h"
#include "worker/engine/models/clip_text.h"
#include "worker/engine/models/unet.h"
#include "worker/engine/models/vae.h"

#define FOLDER "tests/golden/models/"
#define TOLERANCE 1e-4

/* A fixture and what a model needs to load and run. */
struct fixture {
    const char *name;
    struct json *config;
    struct weights *weights;
    struct safetensors *expected;
    struct arena *model, *job;
    struct exec ex;
    struct loader loader;
};

static void require_ok(int result, const struct error *err)
{
    if (result < 0) {
        test_report(__FILE__, __LINE__, err->text);
        abort();
    }
}

/* weights_folder: in place of the fixture's own; NULL takes that. */
static struct fixture open_fixture_with(const char *name, const char *weights_folder)
{
    struct fixture fixture = {.name = name};
    struct error err;
    char path[256];
    require_ok(gemm_init(&err), &err);
    snprintf(path, sizeof(path), FOLDER "%s/config.json", name);
    require_ok(json_open(&fixture.config, path, &err), &err);
    snprintf(path, sizeof(path), FOLDER "%s/expected.safetensors", name);
    require_ok(safetensors_open(&fixture.expected, path, &err), &err);
    snprintf(path, sizeof(path), FOLDER "%s", name);
    weights_folder = weights_folder != NULL ? weights_folder : path;
    require_ok(weights_open(&fixture.weights, weights_folder, &err), &err);
    require_ok(arena_create(&fixture.model, "model", (size_t)1 << 30, &err), &err);
    require_ok(arena_create(&fixture.job, "job", (size_t)1 << 30, &err), &err);
    require_ok(arena_create(&fixture.ex.step, "step", (size_t)1 << 30, &err), &err);
    require_ok(parallel_create(&fixture.ex.pool, 2, &err), &err);
    fixture.loader = (struct loader){.weights = fixture.weights, .model = fixture.model};
    return fixture;
}

static struct fixture open_fixture(const char *name)
{
    return open_fixture_with(name, NULL);
}

static void close_fixture(struct fixture *fixture)
{
    json_close(fixture->config);
    weights_close(fixture->weights);
    safetensors_close(fixture->expected);
    arena_destroy(fixture->model);
    arena_destroy(fixture->job);
    arena_destroy(fixture->ex.step);
    parallel_destroy(fixture->ex.pool);
}

/* A tensor of the fixture in the job arena, maps as [n, h, w, c]; rank 0 when it is not there. */
static struct tensor input(struct fixture *fixture, const char *name)
{
    const struct safetensors_entry *entry = safetensors_find(fixture->expected, name);
    if (entry == NULL) {
        return (struct tensor){.rank = 0};
    }
    size_t count = 0;
    float *data = golden_tensor(fixture->expected, name, SAFETENSORS_F32, &count);
    struct tensor x = {
        .data = arena_floats(fixture->job, count), .rank = entry->rank, .shape = {1, 1, 1, 1}};
    memcpy(x.shape, entry->shape, (size_t)entry->rank * sizeof(*x.shape));
    if (x.rank == 4) {
        x = tensor_4d(fixture->job, entry->shape[0], entry->shape[2], entry->shape[3],
                      entry->shape[1]);
        tensor_nchw_to_nhwc(data, x);
    } else {
        memcpy(x.data, data, count * sizeof(*data));
    }
    xfree(data);
    return x;
}

static void check_equal(struct fixture *fixture, const char *name, struct tensor ours)
{
    struct tensor expected = input(fixture, name);
    double error = HUGE_VAL;
    if (expected.rank > 0 && tensor_count(expected) == tensor_count(ours)) {
        error = golden_relative_error(ours.data, expected.data, (size_t)tensor_count(ours));
    }
    printf("# %s: %s %.2g\n", fixture->name, name, error);
    CHECK(error <= TOLERANCE);
}

/* ---- UNets ----------------------------------------------------------------------------------- */

/* With the deep features of the very forward that is repeated, nothing may differ, whatever the
 * branch; and keeping them must not change it. */
static void check_cache(const struct unet *unet, struct fixture *fixture, double timestep,
                        const struct unet_condition *condition)
{
    struct tensor sample = input(fixture, "sample");
    struct tensor plain = unet_forward(unet, &fixture->ex, sample, timestep, condition);
    size_t size = (size_t)tensor_count(plain) * sizeof(float);
    for (int branch = 0; branch < unet->skip_count; branch++) {
        struct unet_cache cache = {
            .branch = branch, .batch_max = sample.shape[0], .arena = fixture->job};
        struct unet_shortcuts shortcuts = {.cache = &cache};
        double flop[3] = {fixture->ex.flop};
        for (int i = 0; i < 2; i++) {
            struct tensor y =
                unet_forward_shortened(unet, &fixture->ex, sample, timestep, condition, &shortcuts);
            CHECK(memcmp(y.data, plain.data, size) == 0);
            flop[i + 1] = fixture->ex.flop;
            shortcuts.reuse = true;
        }
        /* Without a middle the deepest connection has nothing below it. */
        CHECK(flop[2] - flop[1] < flop[1] - flop[0] || branch == unet->skip_count - 1);
    }
}

static void check_unet(const char *name)
{
    struct fixture fixture = open_fixture(name);
    struct error err;
    struct unet_config config;
    struct unet *unet = xcalloc(1, sizeof(*unet));
    require_ok(unet_config_read(&config, fixture.config, &err), &err);
    unet_load(unet, &fixture.loader, &config);
    require_ok(weights_finish(fixture.weights, &err), &err);

    struct unet_inputs inputs = {.text = input(&fixture, "text"),
                                 .pooled = input(&fixture, "pooled")};
    struct tensor time_ids = input(&fixture, "time_ids"), guidance = input(&fixture, "guidance");
    for (int i = 0; i < UNET_TIME_IDS && time_ids.rank > 0; i++) {
        inputs.time_ids[i] = (double)time_ids.data[i];
    }
    inputs.guidance = guidance.rank > 0 ? (double)guidance.data[0] : 0;
    CHECK(config.text_time == (time_ids.rank > 0));
    CHECK((config.time_cond_proj_dim > 0) == (guidance.rank > 0));
    struct unet_condition condition =
        unet_condition_create(unet, &fixture.ex, &inputs, fixture.job);
    double timestep = (double)input(&fixture, "timestep").data[0];
    check_equal(&fixture, "output",
                unet_forward(unet, &fixture.ex, input(&fixture, "sample"), timestep, &condition));
    check_cache(unet, &fixture, timestep, &condition);
    xfree(unet);
    close_fixture(&fixture);
}

TEST(unets_of_stable_diffusion_1_and_2_equal_diffusers)
{
    check_unet("unet-sd1");
    check_unet("unet-sd2");
}

TEST(unets_that_take_the_guidance_scale_equal_diffusers)
{
    check_unet("unet-lcm");
    check_unet("unet-sdxl-lcm-inpaint");
}

TEST(unets_of_distilled_shapes_equal_diffusers)
{
    check_unet("unet-tiny");
    check_unet("unet-ssd");
    check_unet("unet-vega");
}

TEST(unets_with_more_channels_in_equal_diffusers)
{
    check_unet("unet-inpaint");
    check_unet("unet-only-cross");
}

/* ---- Autoencoders ---------------------------------------------------------------------------- */

static struct vae *load_vae(struct fixture *fixture)
{
    struct error err;
    struct vae_config config;
    struct vae *vae = xcalloc(1, sizeof(*vae));
    require_ok(vae_config_read(&config, fixture->config, &err), &err);
    vae_load(vae, &fixture->loader, &config);
    require_ok(weights_finish(fixture->weights, &err), &err);
    return vae;
}

static void check_loaded_vae(struct fixture fixture, bool is_sampled)
{
    struct vae *vae = load_vae(&fixture);
    struct tensor decoded, code, noise = input(&fixture, "noise");
    CHECK(vae_is_sampled(vae) == is_sampled);
    REQUIRE(vae_decode(vae, &fixture.ex, input(&fixture, "latents"), NULL, NULL, &decoded));
    check_equal(&fixture, "decoded", decoded);
    REQUIRE(vae_encode(vae, &fixture.ex, input(&fixture, "picture"), NULL, NULL, &code));
    check_equal(&fixture, "code", code);
    struct tensor encoded = tensor_like(fixture.ex.step, noise, noise.shape[3]);
    vae_latents(vae, code, noise.data, encoded);
    check_equal(&fixture, "encoded", encoded);
    xfree(vae);
    close_fixture(&fixture);
}

static void check_vae(const char *name, bool is_sampled)
{
    check_loaded_vae(open_fixture(name), is_sampled);
}

TEST(autoencoders_equal_diffusers_in_both_directions)
{
    check_vae("vae-kl", true);
    check_vae("vae-kl-bare", true);
    check_vae("vae-kl-statistics", true);
}

TEST(tiny_autoencoders_equal_diffusers_in_both_directions)
{
    check_vae("vae-tiny", false);
    check_vae("vae-tiny-one-block", false);
}

/* The name that diffusers wrote before 0.15, in buffer, or name itself. */
static const char *old_name(const char *name, char *buffer, size_t size)
{
    static const char *const pairs[][2] = {
        {"to_q.", "query."}, {"to_k.", "key."}, {"to_v.", "value."}, {"to_out.0.", "proj_attn."}};
    for (size_t i = 0; i < sizeof(pairs) / sizeof(pairs[0]); i++) {
        const char *at = strstr(name, pairs[i][0]);
        if (at != NULL) {
            snprintf(buffer, size, "%.*s%s%s", (int)(at - name), name, pairs[i][1],
                     at + strlen(pairs[i][0]));
            return buffer;
        }
    }
    return name;
}

TEST(attention_under_its_old_names_is_read_in_both_directions)
{
    enum { TENSORS_MAX = 256, NAME_SIZE = 128 };
    static struct safetensors_entry entries[TENSORS_MAX];
    static char names[TENSORS_MAX][NAME_SIZE];
    struct error err;
    struct scratch scratch;
    struct safetensors *file = golden_open(FOLDER "vae-kl/diffusion_pytorch_model.safetensors");
    REQUIRE(file != NULL && safetensors_count(file) <= TENSORS_MAX);
    int renamed = 0;
    for (size_t i = 0; i < safetensors_count(file); i++) {
        entries[i] = *safetensors_entry_at(file, i);
        entries[i].name = old_name(entries[i].name, names[i], NAME_SIZE);
        renamed += entries[i].name == names[i];
    }
    CHECK_INT(renamed, 16); /* weight and bias, four layers, encoder and decoder */
    scratch_create(&scratch);
    const char *path = scratch_path(&scratch, "vae/diffusion_pytorch_model.safetensors");
    require_ok(safetensors_write(path, entries, safetensors_count(file), NULL, &err), &err);
    check_loaded_vae(open_fixture_with("vae-kl", scratch_path(&scratch, "vae")), true);
    scratch_remove(&scratch);
    safetensors_close(file);
}

struct stopper {
    int calls, allowed;
};

static bool stop_after(void *user, int step, int steps)
{
    struct stopper *stopper = user;
    CHECK(step >= 0 && step <= steps);
    return ++stopper->calls <= stopper->allowed;
}

TEST(an_autoencoder_stops_when_it_is_told_to)
{
    static const char *const names[] = {"vae-kl", "vae-tiny"};
    for (int i = 0; i < 2; i++) {
        struct fixture fixture = open_fixture(names[i]);
        struct vae *vae = load_vae(&fixture);
        struct tensor result, latents = input(&fixture, "latents");
        struct stopper counted = {.allowed = 1000};
        CHECK(vae_decode(vae, &fixture.ex, latents, stop_after, &counted, &result));
        for (int allowed = 0; allowed < counted.calls; allowed++) {
            struct stopper stopper = {.allowed = allowed};
            CHECK(!vae_decode(vae, &fixture.ex, latents, stop_after, &stopper, &result));
            CHECK_INT(stopper.calls, allowed + 1);
        }
        struct stopper at_once = {.allowed = 0};
        CHECK(!vae_encode(vae, &fixture.ex, input(&fixture, "picture"), stop_after, &at_once,
                          &result));
        xfree(vae);
        close_fixture(&fixture);
    }
}

/* ---- Text encoders --------------------------------------------------------------------------- */

static void check_text(const char *name, bool has_projection)
{
    struct fixture fixture = open_fixture(name);
    struct error err;
    struct clip_text_config config;
    struct clip_text text;
    size_t count = 0;
    require_ok(clip_text_config_read(&config, fixture.config, &err), &err);
    clip_text_load(&text, &fixture.loader, &config);
    require_ok(weights_finish(fixture.weights, &err), &err);
    CHECK(text.has_projection == has_projection);
    int32_t *ids = golden_tensor(fixture.expected, "ids", SAFETENSORS_I32, &count);
    REQUIRE(ids != NULL);
    for (int skip = 0; skip <= config.num_hidden_layers; skip++) {
        char tensor[32];
        /* In one batch: as it is, normalised, and another state beside them. */
        struct clip_text_prompt prompts[] = {
            {.ids = ids, .layers_left_out = skip, .pooled = has_projection},
            {.ids = ids, .layers_left_out = config.num_hidden_layers - skip},
            {.ids = ids, .layers_left_out = skip, .final_norm = true},
        };
        struct clip_text_batch batch = {3, (int)count, prompts};
        struct clip_text_output output = clip_text_forward(&text, &fixture.ex, &batch);
        struct tensor hidden = output.hidden;
        hidden.shape[0] = 1;
        snprintf(tensor, sizeof(tensor), "hidden.%d", skip);
        check_equal(&fixture, tensor, hidden);
        if (has_projection) {
            output.pooled.shape[0] = 1;
            check_equal(&fixture, "pooled", output.pooled);
        }
        hidden.data += tensor_count(hidden);
        snprintf(tensor, sizeof(tensor), "hidden.%d", config.num_hidden_layers - skip);
        check_equal(&fixture, tensor, hidden);
        hidden.data += tensor_count(hidden);
        snprintf(tensor, sizeof(tensor), "normed.%d", skip);
        check_equal(&fixture, tensor, hidden);
        if (skip == 0) {
            check_equal(&fixture, "last", hidden);
        }
    }
    xfree(ids);
    close_fixture(&fixture);
}

TEST(text_encoders_give_every_state_that_transformers_gives)
{
    check_text("text-clip-l", false);
    check_text("text-open-clip-h", true);
}

TEST_MAIN()
