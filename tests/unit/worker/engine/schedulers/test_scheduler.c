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
        result = scheduler_open(out, config, name, false, err);
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
    CHECK_CONTAINS(open_error("{\"_class_name\":\"PNDMScheduler\"}", NULL, STATUS_UNSUPPORTED),
                   "PNDMScheduler is not supported; choose one by name (ddim");
    CHECK_CONTAINS(open_error("{}", NULL, STATUS_INVALID), "_class_name: missing");
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
    CHECK_CONTAINS(err.text, "steps_offset puts timestep 1000 past the 1000 trained ones");
    CHECK_INT(set_steps(scheduler, 20, &err), STATUS_OK);
    scheduler_close(scheduler);
    scheduler =
        open_config("{\"rescale_betas_zero_snr\":true,\"timestep_spacing\":\"trailing\"}", "ddim");
    CHECK_INT(set_steps(scheduler, 4, &err), STATUS_INVALID);
    CHECK_CONTAINS(err.text, "pure noise");
    scheduler_close(scheduler);
}

TEST(the_last_step_ends_at_the_predicted_picture)
{
    struct error err;
    for (const char *const *name = scheduler_names(); *name != NULL; name++) {
        float sample[2] = {3.0F, -1.0F};
        const float output[2] = {0.5F, 0.25F}, noise[2] = {9.0F, 9.0F};
        struct scheduler *scheduler =
            open_config("{\"timestep_spacing\":\"linspace\",\"clip_sample\":false}", *name);
        CHECK_INT(set_steps(scheduler, 1, &err), STATUS_OK);
        /* One step of linspace is timestep 0, where there is next to no noise left. */
        CHECK_NEAR(scheduler_timestep(scheduler, 0), 0.0, 0.0);
        bool noisy = scheduler_needs_noise(scheduler, 0);
        CHECK(noisy == (strcmp(*name, "euler_ancestral") == 0));
        struct arena *arena = NULL;
        CHECK_INT(arena_create(&arena, "test", 1 << 16, &err), STATUS_OK);
        scheduler_begin(scheduler, arena, 2);
        scheduler_step(scheduler, 0, output, sample, noisy ? noise : NULL, 2);
        CHECK_NEAR(sample[0], 3.0, 0.02);
        CHECK_NEAR(sample[1], -1.0, 0.02);
        arena_destroy(arena);
        scheduler_close(scheduler);
    }
}

TEST_MAIN()
