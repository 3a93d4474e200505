/* Configurations that would change the picture and are not supported are refused by name. */
#include "worker/engine/schedulers/scheduler.h"

#include <math.h>

#include "tests/harness/test.h"

static int open_text(struct scheduler **out, const char *text, const char *name, struct error *err)
{
    struct json *config = NULL;
    *out = NULL;
    int result = json_parse(&config, "scheduler_config.json", text, strlen(text), err);
    if (result == STATUS_OK) {
        result = scheduler_open(out, config, &(struct scheduler_choice){.name = name}, err);
    }
    json_close(config);
    return result;
}

static const char *open_error(const char *config, const char *name, enum status expected)
{
    static struct error err;
    struct scheduler *scheduler = NULL;
    CHECK_INT(open_text(&scheduler, config, name, &err), expected);
    CHECK(scheduler == NULL);
    return err.text;
}

static struct scheduler *open_config(const char *config, const char *name)
{
    struct error err;
    struct scheduler *scheduler = NULL;
    if (open_text(&scheduler, config, name, &err) < 0) {
        test_report(__FILE__, __LINE__, err.text);
        exit(1);
    }
    return scheduler;
}

static int set_steps(struct scheduler *scheduler, int steps, struct error *err)
{
    const struct scheduler_settings settings = {.steps = steps};
    return scheduler_set(scheduler, &settings, err);
}

TEST(the_config_names_the_scheduler_unless_the_caller_does)
{
    const char *config = "{\"_class_name\":\"EulerDiscreteScheduler\",\"skip_prk_steps\":true}";
    struct scheduler *scheduler = open_config(config, NULL);
    CHECK_STR(scheduler_name(scheduler), "euler");
    scheduler_close(scheduler);
    scheduler = open_config(config, "");
    CHECK_STR(scheduler_name(scheduler), "euler");
    scheduler_close(scheduler);
    for (const char *const *name = scheduler_names(); *name != NULL; name++) {
        scheduler = open_config(config, *name);
        CHECK_STR(scheduler_name(scheduler), *name);
        scheduler_close(scheduler);
    }
    CHECK_CONTAINS(open_error(config, "dpm++", STATUS_UNSUPPORTED), "\"dpm++\" is not supported");
    CHECK_CONTAINS(
        open_error("{\"_class_name\":\"DPMSolverSinglestepScheduler\"}", NULL, STATUS_UNSUPPORTED),
        "_class_name \"DPMSolverSinglestepScheduler\" (algorithm_type \"dpmsolver++\") is not "
        "supported; EulerDiscreteScheduler in its place");
    CHECK_CONTAINS(open_error("{\"_class_name\":\"DPMSolverMultistepScheduler\","
                              "\"algorithm_type\":\"dpmsolver\"}",
                              NULL, STATUS_UNSUPPORTED),
                   "(algorithm_type \"dpmsolver\") is not supported");
    scheduler = open_config("{\"_class_name\":\"DPMSolverMultistepScheduler\","
                            "\"algorithm_type\":\"sde-dpmsolver++\"}",
                            NULL);
    CHECK_STR(scheduler_name(scheduler), "dpmpp_2m_sde");
    scheduler_close(scheduler);
    CHECK_CONTAINS(open_error("{}", NULL, STATUS_INVALID), "_class_name: missing");
}

TEST(the_class_in_the_models_index_goes_before_the_configs)
{
    static const struct {
        const char *config, *class_name, *scheduler;
    } cases[] = {
        {"{\"_class_name\":\"PNDMScheduler\"}", "DDIMScheduler", "ddim"},
        {"{}", "DDIMScheduler", "ddim"},
        {"{\"algorithm_type\":\"sde-dpmsolver++\"}", "DPMSolverMultistepScheduler", "dpmpp_2m_sde"},
        {"{\"_class_name\":\"PNDMScheduler\"}", "", "pndm"},
        {"{\"_class_name\":\"DDIMScheduler\"}", "FlowMatchEulerDiscreteScheduler", NULL},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct error err = {.text = ""};
        struct json *config = NULL;
        struct scheduler *scheduler = NULL;
        const struct scheduler_choice choice = {.class_name = cases[i].class_name};
        const char *text = cases[i].config, *expected = cases[i].scheduler;
        CHECK_INT(json_parse(&config, "config", text, strlen(text), &err), STATUS_OK);
        CHECK_INT(scheduler_open(&scheduler, config, &choice, &err),
                  expected != NULL ? STATUS_OK : STATUS_UNSUPPORTED);
        CHECK_CONTAINS(err.text,
                       expected != NULL ? "" : "model_index.json's scheduler \"FlowMatch");
        CHECK(expected == NULL || strcmp(scheduler_name(scheduler), expected) == 0);
        scheduler_close(scheduler);
        json_close(config);
    }
}

TEST(options_that_are_not_supported_are_all_named_at_once)
{
    const char *text = open_error(
        "{\"beta_schedule\":\"sigmoid\",\"prediction_type\":\"flow\",\"timestep_spacing\":\"odd\","
        "\"trained_betas\":[0.1],\"use_beta_sigmas\":true,\"interpolation_type\":\"cubic\","
        "\"final_sigmas_type\":\"other\",\"timestep_type\":\"other\",\"sigma_min\":-1,"
        "\"use_karras_sigmas\":true,\"use_exponential_sigmas\":true,\"num_train_timesteps\":0}",
        "euler", STATUS_INVALID);
    CHECK_CONTAINS(text, "scheduler_config.json: 10 problems");
    CHECK_CONTAINS(text, "beta_schedule: \"sigmoid\" is not supported");
    CHECK_CONTAINS(text, "prediction_type: \"flow\"");
    CHECK_CONTAINS(text, "timestep_spacing: \"odd\"");
    CHECK_CONTAINS(text, "trained_betas: not supported");
    CHECK_CONTAINS(text, "interpolation_type: \"cubic\"");
    CHECK_CONTAINS(text, "only one can be true");
    CHECK_CONTAINS(text, "num_train_timesteps: expected a whole number");
    CHECK_CONTAINS(open_error("{\"thresholding\":true}", "ddim", STATUS_INVALID), "thresholding");
    CHECK_CONTAINS(
        open_error("{\"prediction_type\":\"sample\"}", "euler_ancestral", STATUS_INVALID),
        "not supported by euler_ancestral");
    CHECK_CONTAINS(open_error("{\"beta_start\":1.5}", "ddim", STATUS_INVALID), "beta_start");
    CHECK_CONTAINS(open_error("{\"beta_start\":", "ddim", STATUS_CORRUPT), "not valid JSON");
}

TEST(only_a_learned_variance_keeps_a_solver_from_a_ddpm_config)
{
    static const char *const names[] = {"dpmpp_2m", "dpmpp_2m_sde"};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        scheduler_close(open_config("{\"variance_type\":\"fixed_small\"}", names[i]));
        CHECK_CONTAINS(
            open_error("{\"variance_type\":\"learned_range\"}", names[i], STATUS_INVALID),
            "variance_type: \"learned_range\" is not supported");
    }
}

TEST(steps_outside_the_training_schedule_are_refused)
{
    struct error err;
    struct scheduler *scheduler = open_config("{\"num_train_timesteps\":50}", "ddim");
    CHECK_INT(set_steps(scheduler, 0, &err), STATUS_INVALID);
    CHECK_CONTAINS(err.text, "0 steps: this schedule can make 1 to 50");
    CHECK_INT(set_steps(scheduler, 51, &err), STATUS_INVALID);
    CHECK_INT(scheduler_count(scheduler), 0);
    CHECK_INT(set_steps(scheduler, 50, &err), STATUS_OK);
    CHECK_INT(scheduler_count(scheduler), 50);
    CHECK_INT(set_steps(scheduler, 1, &err), STATUS_OK);
    CHECK_INT(scheduler_count(scheduler), 1);
    scheduler_close(scheduler);
}

TEST(steps_that_have_no_solution_are_refused_with_the_reason)
{
    struct error err;
    struct scheduler *scheduler = open_config("{\"steps_offset\":1}", "ddim");
    CHECK_INT(set_steps(scheduler, 1000, &err), STATUS_INVALID);
    CHECK_CONTAINS(err.text,
                   "ddim with so many comes to timestep 1000, outside the 1000 trained ones");
    CHECK_INT(set_steps(scheduler, 20, &err), STATUS_OK);
    scheduler_close(scheduler);
    scheduler =
        open_config("{\"rescale_betas_zero_snr\":true,\"timestep_spacing\":\"trailing\"}", "ddim");
    CHECK_INT(set_steps(scheduler, 4, &err), STATUS_INVALID);
    CHECK_CONTAINS(err.text, "pure noise");
    scheduler_close(scheduler);
}

/* Trailing spacing rounds to a timestep of -1 with 974 steps of 1000: torch reads the other end of
 * its table there. */
TEST(a_timestep_before_the_first_is_refused_where_it_would_be_looked_up)
{
    const char *const names[] = {"ddim", "ddpm", "pndm"};
    for (int i = 0; i < 3; i++) {
        struct error err;
        struct scheduler *scheduler =
            open_config("{\"timestep_spacing\":\"trailing\",\"skip_prk_steps\":true}", names[i]);
        CHECK_INT(set_steps(scheduler, 974, &err), STATUS_INVALID);
        CHECK_CONTAINS(err.text, "timestep -1, outside the 1000 trained ones");
        CHECK_INT(set_steps(scheduler, 50, &err), STATUS_OK);
        scheduler_close(scheduler);
    }
}

static void expect_refused(const char *name, struct scheduler_settings settings, const char *text)
{
    struct error err;
    struct scheduler *scheduler = open_config("{\"skip_prk_steps\":true}", name);
    settings.steps = settings.steps != 0 ? settings.steps : 10;
    CHECK_INT(scheduler_check(scheduler, &settings, &err), STATUS_INVALID);
    CHECK_CONTAINS(err.text, text);
    CHECK_INT(scheduler_set(scheduler, &settings, &err), STATUS_INVALID);
    CHECK_INT(scheduler_count(scheduler), 0);
    scheduler_close(scheduler);
}

TEST(settings_that_a_sampler_has_no_use_for_are_refused_by_name)
{
    expect_refused("ddim", (struct scheduler_settings){.sigmas = "karras"},
                   "sigmas: \"karras\" is not supported by ddim (uniform, sgm_uniform)");
    expect_refused("tcd", (struct scheduler_settings){.sigmas = "beta"},
                   "sigmas: \"beta\" is not supported by tcd (uniform)");
    expect_refused(
        "euler", (struct scheduler_settings){.sigmas = "lu_lambdas"},
        "sigmas: \"lu_lambdas\" is not supported by euler (uniform, karras, exponential, "
        "beta, sgm_uniform)");
    expect_refused("euler", (struct scheduler_settings){.sigmas = "odd"},
                   "sigmas: \"odd\" is not one of uniform, karras");
    expect_refused("euler", (struct scheduler_settings){.timestep_spacing = "odd"},
                   "timestep_spacing: \"odd\" is not one of leading, trailing, linspace");
    expect_refused("lcm", (struct scheduler_settings){.timestep_spacing = "trailing"},
                   "timestep_spacing: lcm takes its timesteps from its model's training");
    expect_refused(
        "euler",
        (struct scheduler_settings){.sigmas = "sgm_uniform", .timestep_spacing = "leading"},
        "contradicts the sigmas sgm_uniform");
    expect_refused("euler", (struct scheduler_settings){.eta = 0.5},
                   "eta: 0.5 is not supported by euler (only by ddim and tcd)");
    expect_refused("ddim", (struct scheduler_settings){.eta = 1.5}, "eta: 1.5 is not from 0 to 1");
    expect_refused("ddim", (struct scheduler_settings){.begin = 10},
                   "of 10 steps, 10 cannot be left out");
    expect_refused("lcm", (struct scheduler_settings){.steps = 51},
                   "51 steps: lcm can make at most the 50 that its model was distilled on");
}

static void compare_timesteps(struct scheduler_settings one, struct scheduler_settings other)
{
    struct error err;
    struct scheduler *a = open_config("{}", "euler"), *b = open_config("{}", "euler");
    one.steps = other.steps = 7;
    CHECK_INT(scheduler_set(a, &one, &err), STATUS_OK);
    CHECK_INT(scheduler_set(b, &other, &err), STATUS_OK);
    CHECK_INT(scheduler_count(a), scheduler_count(b));
    for (int i = 0; i < scheduler_count(a); i++) {
        CHECK_NEAR(scheduler_timestep(a, i), scheduler_timestep(b, i), 0.0);
    }
    scheduler_close(a);
    scheduler_close(b);
}

TEST(settings_last_for_one_run_and_sgm_uniform_is_trailing)
{
    struct error err;
    struct scheduler *scheduler = open_config("{}", "euler");
    struct scheduler_settings settings = {.steps = 7};
    CHECK_INT(scheduler_set(scheduler, &settings, &err), STATUS_OK);
    double plain = scheduler_timestep(scheduler, 3);
    settings.sigmas = "karras";
    CHECK_INT(scheduler_set(scheduler, &settings, &err), STATUS_OK);
    CHECK(fabs(scheduler_timestep(scheduler, 3) - plain) > 1.0);
    settings.sigmas = "";
    CHECK_INT(scheduler_set(scheduler, &settings, &err), STATUS_OK);
    CHECK_NEAR(scheduler_timestep(scheduler, 3), plain, 0.0);
    scheduler_close(scheduler);
    compare_timesteps((struct scheduler_settings){.sigmas = "sgm_uniform"},
                      (struct scheduler_settings){.timestep_spacing = "trailing"});
}

/* The calls and the last timestep of ten steps; and *sample after the first of them, which began at
 * 3 and was predicted to be no noise. */
struct repaired_run {
    int count;
    double last;
    float sample;
};

static struct repaired_run run_repaired(const char *text, const char *name, bool is_repaired,
                                        bool has_mask)
{
    struct error err;
    struct json *config = NULL;
    struct arena *arena = NULL;
    struct scheduler *scheduler = NULL;
    struct repaired_run run = {.sample = 3.0F};
    const float no_noise = 0.0F;
    const struct scheduler_choice choice = {.name = name, .is_repaired = is_repaired};
    const struct scheduler_settings settings = {.steps = 10, .has_mask = has_mask};
    CHECK_INT(json_parse(&config, "config", text, strlen(text), &err), STATUS_OK);
    CHECK_INT(scheduler_open(&scheduler, config, &choice, &err), STATUS_OK);
    CHECK_INT(arena_create(&arena, "test", 1 << 20, &err), STATUS_OK);
    json_close(config);
    CHECK_INT(scheduler_set(scheduler, &settings, &err), STATUS_OK);
    run.count = scheduler_count(scheduler);
    run.last = scheduler_timestep(scheduler, run.count - 1);
    scheduler_begin(scheduler, arena, 1);
    scheduler_step(scheduler, 0, &no_noise, &run.sample, NULL, 1);
    scheduler_close(scheduler);
    arena_destroy(arena);
    return run;
}

TEST(old_stable_diffusion_configs_are_repaired_as_the_pictures_pipeline_does)
{
    const char *ddim = "{\"_class_name\":\"DDIMScheduler\",\"clip_sample\":true}";
    const char *pndm = "{\"_class_name\":\"PNDMScheduler\"}";
    struct repaired_run run = run_repaired(ddim, NULL, false, true);
    CHECK_INT(run.count, 10);
    CHECK_NEAR(run.last, 0.0, 0.0);
    CHECK(run.sample < 1.0F);
    run = run_repaired(ddim, NULL, true, false);
    CHECK_NEAR(run.last, 1.0, 0.0); /* steps_offset 1 */
    CHECK(run.sample > 1.0F);       /* not clipped */
    run = run_repaired(ddim, NULL, true, true);
    CHECK_NEAR(run.last, 1.0, 0.0);
    CHECK(run.sample < 1.0F); /* StableDiffusionInpaintPipeline leaves clip_sample */
    CHECK_INT(run_repaired(pndm, NULL, true, false).count, 3 * 4 + 7);
    run = run_repaired(pndm, NULL, true, true);
    CHECK_INT(run.count, 11); /* without the steps of Runge and Kutta */
    CHECK_NEAR(run.last, 1.0, 0.0);
    CHECK_INT(run_repaired(pndm, NULL, false, true).count, 3 * 4 + 7);
    /* A config that does not know the option is not given it. */
    CHECK_INT(run_repaired(ddim, "pndm", true, true).count, 3 * 4 + 7);
}

/* Timesteps as LCMScheduler's and TCDScheduler's set_timesteps(steps, strength=) give them. */
TEST(a_strength_spreads_all_steps_of_a_distilled_model_over_what_it_leaves)
{
    static const char *const names[] = {"lcm", "tcd"};
    static const struct {
        int steps;
        double strength;
        int timesteps[8];
    } cases[] = {{4, 1.0, {999, 759, 499, 259}},
                 {4, 0.5, {499, 379, 259, 139}},
                 {8, 0.3, {299, 279, 239, 199, 159, 119, 79, 39}},
                 {3, 0.07, {59, 39, 19}},
                 {1, 0.02, {19}}};
    for (size_t k = 0; k < sizeof(names) / sizeof(names[0]); k++) {
        struct error err;
        struct scheduler *scheduler = open_config("{}", names[k]);
        for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
            /* Where begin would leave out all of them. */
            struct scheduler_settings settings = {
                .steps = cases[i].steps, .begin = cases[i].steps, .strength = cases[i].strength};
            CHECK_INT(scheduler_set(scheduler, &settings, &err), STATUS_OK);
            CHECK_INT(scheduler_count(scheduler), cases[i].steps);
            for (int n = 0; n < scheduler_count(scheduler); n++) {
                CHECK_NEAR(scheduler_timestep(scheduler, n), cases[i].timesteps[n], 0.0);
            }
        }
        struct scheduler_settings settings = {.steps = 4, .strength = 0.07};
        CHECK_INT(scheduler_set(scheduler, &settings, &err), STATUS_INVALID);
        CHECK_CONTAINS(err.text, "strength: 0.07 leaves 3 of the 50 steps");
        scheduler_close(scheduler);
    }
    struct error err;
    struct scheduler *ddim = open_config("{}", "ddim");
    struct scheduler_settings settings = {.steps = 4, .begin = 2, .strength = 0.5};
    CHECK_INT(scheduler_set(ddim, &settings, &err), STATUS_OK);
    CHECK_INT(scheduler_count(ddim), 2);
    scheduler_close(ddim);
}

TEST(a_begin_leaves_the_first_steps_out)
{
    struct error err;
    for (const char *const *name = scheduler_names(); *name != NULL; name++) {
        struct scheduler *whole = open_config("{\"skip_prk_steps\":true}", *name);
        struct scheduler *part = open_config("{\"skip_prk_steps\":true}", *name);
        const struct scheduler_settings settings = {.steps = 8, .begin = 3};
        CHECK_INT(set_steps(whole, 8, &err), STATUS_OK);
        CHECK_INT(scheduler_set(part, &settings, &err), STATUS_OK);
        int all = scheduler_count(whole), left = scheduler_count(part);
        CHECK(all - left == 3 || all - left == 6); /* one or two evaluations a step */
        for (int i = 0; i < left; i++) {
            CHECK_NEAR(scheduler_timestep(part, i), scheduler_timestep(whole, all - left + i), 0.0);
        }
        scheduler_close(whole);
        scheduler_close(part);
    }
}

/* A model that always predicts the same clean picture (of one value), for a config that asks for
 * just that: every sampler must arrive there. */
TEST(every_sampler_arrives_at_the_picture_that_the_model_sees)
{
    struct error err;
    for (const char *const *name = scheduler_names(); *name != NULL; name++) {
        struct arena *arena = NULL;
        struct scheduler *scheduler = open_config("{\"clip_sample\":false,\"skip_prk_steps\":true,"
                                                  "\"prediction_type\":\"epsilon\"}",
                                                  *name);
        float sample = 1.0F, noise = 0.25F;
        const float picture = 0.5F;
        CHECK_INT(arena_create(&arena, "test", 1 << 16, &err), STATUS_OK);
        CHECK_INT(set_steps(scheduler, 12, &err), STATUS_OK);
        scheduler_begin(scheduler, arena, 1);
        sample *= (float)scheduler_init_noise_sigma(scheduler);
        for (int i = 0; i < scheduler_count(scheduler); i++) {
            /* The eps for which the clean estimate is the picture: linear, so two points do. */
            const float zero = 0.0F, one = 1.0F;
            float at_zero = 0.0F, at_one = 0.0F, denoised = 0.0F;
            scheduler_denoised(scheduler, i, &zero, &sample, &at_zero, 1);
            scheduler_denoised(scheduler, i, &one, &sample, &at_one, 1);
            float eps = (picture - at_zero) / (at_one - at_zero);
            scheduler_denoised(scheduler, i, &eps, &sample, &denoised, 1);
            CHECK_NEAR(denoised, picture, 1e-3);
            scheduler_step(scheduler, i, &eps, &sample,
                           scheduler_needs_noise(scheduler, i) ? &noise : NULL, 1);
        }
        CHECK_NEAR(sample, picture, 0.05);
        scheduler_close(scheduler);
        arena_destroy(arena);
    }
}

TEST_MAIN()
