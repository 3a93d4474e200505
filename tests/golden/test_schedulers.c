/* Schedulers equal diffusers': timesteps, the scale of the first noise, and every step. */
#include "worker/engine/schedulers/scheduler.h"

#include "common/base/panic.h"
#include "tests/golden/golden.h"

#define CONFIGS "tests/golden/schedulers/"
#define VALUES 8
#define NOISES 22 /* rows of the noise fixture; the last one is the first sample */
#define KEPT 16   /* timesteps kept from each end of a long schedule */

/* Zero terminal SNR starts at sigma 4096, where one float step of the sample is 5e-4: the
 * reference's own rounding. Everything else is a matter of last bits. */
static double tolerance(const char *config)
{
    return strcmp(config, "zero-snr") == 0 ? 1e-4 : 2e-6;
}

struct golden_case {
    const struct safetensors *file;
    char config[64];
    char name[32];
    int steps;
};

static void *case_tensor(const struct golden_case *test, const char *what,
                         enum safetensors_dtype dtype, size_t *count)
{
    char key[256];
    snprintf(key, sizeof(key), "%s/%s/%d/%s", test->config, test->name, test->steps, what);
    *count = 0;
    return safetensors_find(test->file, key) != NULL ? golden_tensor(test->file, key, dtype, count)
                                                     : NULL;
}

static void check_timesteps(const struct golden_case *test, const struct scheduler *scheduler)
{
    size_t kept = 0, counts = 0;
    double *expected = case_tensor(test, "timesteps", SAFETENSORS_F64, &kept);
    int64_t *whole = case_tensor(test, "count", SAFETENSORS_I64, &counts);
    int count = whole != NULL ? (int)whole[0] : (int)kept;
    CHECK_INT(scheduler_count(scheduler), count);
    for (int i = 0; i < (int)kept && scheduler_count(scheduler) == count; i++) {
        int at = whole != NULL && i >= KEPT ? count - 2 * KEPT + i : i;
        /* Timesteps from logarithms differ in the last bit of a float; the others are equal. */
        CHECK_NEAR(scheduler_timestep(scheduler, at), expected[i], 1e-4);
    }
    xfree(expected);
    xfree(whole);
}

static double check_samples(const struct golden_case *test, struct scheduler *scheduler,
                            struct arena *arena)
{
    size_t count = 0, output_count = 0, noise_count = 0;
    float *expected = case_tensor(test, "samples", SAFETENSORS_F32, &count);
    float *outputs = golden_tensor(test->file, "outputs", SAFETENSORS_F32, &output_count);
    float *noises = golden_tensor(test->file, "noises", SAFETENSORS_F32, &noise_count);
    float sample[VALUES];
    double worst = 0.0;
    for (int k = 0; k < VALUES; k++) {
        sample[k] =
            noises[(NOISES - 1) * VALUES + k] * (float)scheduler_init_noise_sigma(scheduler);
    }
    scheduler_begin(scheduler, arena, VALUES);
    for (int i = 0; expected != NULL && i < scheduler_count(scheduler); i++) {
        const float *noise = scheduler_needs_noise(scheduler, i) ? noises + i * VALUES : NULL;
        scheduler_step(scheduler, i, outputs + i * VALUES, sample, noise, VALUES);
        worst = fmax(worst, golden_relative_error(sample, expected + i * VALUES, VALUES));
    }
    xfree(expected);
    xfree(outputs);
    xfree(noises);
    return worst;
}

/* Returns the largest relative error, for the line that sums up. */
static double check_case(const struct golden_case *test)
{
    char path[256];
    struct scheduler *scheduler = NULL;
    struct error err;
    double worst = 0.0;
    size_t count = 0;
    snprintf(path, sizeof(path), CONFIGS "%s.json", test->config);
    struct json *config = NULL;
    if (json_open(&config, path, &err) < 0 ||
        scheduler_open(&scheduler, config, test->name, false, &err) < 0 ||
        scheduler_set(scheduler, &(struct scheduler_settings){.steps = test->steps}, &err) < 0) {
        test_report(__FILE__, __LINE__, err.text);
    } else {
        double *sigma = case_tensor(test, "sigma", SAFETENSORS_F64, &count);
        double ours = scheduler_init_noise_sigma(scheduler);
        CHECK_NEAR(ours / sigma[0], 1.0, 1e-6);
        xfree(sigma);
        check_timesteps(test, scheduler);
        struct arena *arena = NULL;
        CHECK_INT(arena_create(&arena, "test", 1 << 20, &err), STATUS_OK);
        worst = check_samples(test, scheduler, arena);
        arena_destroy(arena);
    }
    if (worst > tolerance(test->config)) {
        printf("# %s %s %d steps: %.2g\n", test->config, test->name, test->steps, worst);
    }
    CHECK(worst <= tolerance(test->config));
    scheduler_close(scheduler);
    json_close(config);
    return worst;
}

static void check_scheduler(const char *name)
{
    struct safetensors *file = golden_open(GOLDEN_EXPECTED "schedulers.safetensors");
    REQUIRE(file != NULL);
    int cases = 0;
    double worst = 0.0, worst_zero_snr = 0.0;
    for (size_t i = 0; i < safetensors_count(file); i++) {
        struct golden_case test = {.file = file};
        char what[32];
        const char *key = safetensors_entry_at(file, i)->name;
        int fields =
            sscanf(key, "%63[^/]/%31[^/]/%d/%31s", test.config, test.name, &test.steps, what);
        if (fields != 4 || strcmp(what, "timesteps") != 0 || strcmp(test.name, name) != 0) {
            continue;
        }
        double error = check_case(&test);
        bool zero_snr = strcmp(test.config, "zero-snr") == 0;
        worst = zero_snr ? worst : fmax(worst, error);
        worst_zero_snr = zero_snr ? fmax(worst_zero_snr, error) : worst_zero_snr;
        cases++;
    }
    printf("# %s: %d schedules, largest relative error of a step %.2g (zero SNR: %.2g)\n", name,
           cases, worst, worst_zero_snr);
    CHECK(cases >= 100);
    safetensors_close(file);
}

TEST(ddim_equals_diffusers)
{
    check_scheduler("ddim");
}

TEST(euler_equals_diffusers)
{
    check_scheduler("euler");
}

TEST(euler_ancestral_equals_diffusers_on_the_same_noise)
{
    check_scheduler("euler_ancestral");
}

TEST_MAIN()
