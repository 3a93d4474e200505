/* Schedulers equal diffusers': timesteps, the scale of the first noise, every step, add_noise. */
#include "worker/engine/schedulers/scheduler.h"

#include "common/base/panic.h"
#include "tests/golden/golden.h"

#define CONFIGS "tests/golden/schedulers/"
#define VALUES 4
#define KEPT 16 /* timesteps kept from each end of a long schedule */

/* Of a sample, ‖ours - reference‖ / ‖reference‖ after each evaluation of the model. */
#define TOLERANCE 1e-5

/* The reference's own rounding: zero terminal SNR starts at sigma 4096, where one float step of the
 * sample is 5e-4; DEIS takes differences of nearly equal integrals in float, and of many small
 * steps the more. */
#define TOLERANCE_ROUGH 3e-5

/* Timesteps from logarithms, which the reference takes in float: the last bit of one is 1e-4. */
#define TOLERANCE_TIMESTEP 5e-4

struct fixture {
    struct safetensors *file;
    struct arena *arena;
    float *outputs, *noises; /* [rows, VALUES] */
    size_t rows, noise_rows;
};

struct golden_case {
    const char *key;
    char config[64], name[32], spacing[16], sigmas[16];
    int steps, begin, eta; /* hundredths */
    bool ends;
};

/* CONFIG/NAME/SPACING/SIGMAS/STEPS/BEGIN/ETA or .../STEPS/ends */
static bool parse_key(const char *key, struct golden_case *test)
{
    char last[16] = "";
    *test = (struct golden_case){.key = key};
    int fields = sscanf(key, "%63[^/]/%31[^/]/%15[^/]/%15[^/]/%d/%15[^/]/%d", test->config,
                        test->name, test->spacing, test->sigmas, &test->steps, last, &test->eta);
    test->ends = strcmp(last, "ends") == 0;
    test->begin = (int)strtol(last, NULL, 10);
    return fields >= 6;
}

static const char *setting(const char *text)
{
    return strcmp(text, "-") == 0 ? NULL : text;
}

static struct scheduler *open_case(const struct golden_case *test)
{
    char path[256];
    struct json *config = NULL;
    struct scheduler *scheduler = NULL;
    struct error err;
    const struct scheduler_settings settings = {
        .steps = test->steps,
        .begin = test->begin,
        .sigmas = setting(test->sigmas),
        .timestep_spacing = setting(test->spacing),
        .eta = test->eta / 100.0,
    };
    const struct scheduler_choice choice = {.name = test->name};
    snprintf(path, sizeof(path), CONFIGS "%s.json", test->config);
    if (json_open(&config, path, &err) < 0 ||
        scheduler_open(&scheduler, config, &choice, &err) < 0 ||
        scheduler_check(scheduler, &settings, &err) < 0 ||
        scheduler_set(scheduler, &settings, &err) < 0) {
        printf("# %s\n", test->key);
        test_report(__FILE__, __LINE__, err.text);
        scheduler_close(scheduler);
        scheduler = NULL;
    }
    json_close(config);
    return scheduler;
}

static void check_timestep(const struct golden_case *test, const struct scheduler *scheduler, int i,
                           double expected)
{
    double ours = scheduler_timestep(scheduler, i);
    if (!(fabs(ours - expected) <= TOLERANCE_TIMESTEP)) {
        printf("# %s: timestep %d is %.9g, expected %.9g\n", test->key, i, ours, expected);
        CHECK(false);
    }
}

static void check_ends(const struct golden_case *test, const struct scheduler *scheduler,
                       const float *expected)
{
    int count = (int)expected[1];
    CHECK_NEAR(scheduler_init_noise_sigma(scheduler) / (double)expected[0], 1.0, 1e-6);
    CHECK_INT(scheduler_count(scheduler), count);
    int kept = count < KEPT ? count : KEPT;
    for (int i = 0; i < kept && scheduler_count(scheduler) == count; i++) {
        check_timestep(test, scheduler, i, (double)expected[2 + i]);
        check_timestep(test, scheduler, count - kept + i, (double)expected[2 + kept + i]);
    }
}

static void first_sample(const struct golden_case *test, const struct scheduler *scheduler,
                         const struct fixture *fixture, float *sample)
{
    const float *noise = fixture->noises + (fixture->noise_rows - 1) * VALUES;
    const float *clean = fixture->outputs + (fixture->rows - 1) * VALUES;
    float sigma = (float)scheduler_init_noise_sigma(scheduler);
    if (test->begin > 0) {
        scheduler_add_noise(scheduler, 0, clean, noise, sample, VALUES);
        return;
    }
    for (int k = 0; k < VALUES; k++) {
        sample[k] = noise[k] * sigma;
    }
}

static double check_run(const struct golden_case *test, struct scheduler *scheduler,
                        const struct fixture *fixture, const float *expected, size_t count)
{
    const size_t width = test->begin > 0 ? 1 + 2 * VALUES : 1 + VALUES;
    const float *last_noise = fixture->noises + (fixture->noise_rows - 1) * VALUES;
    const float *clean = fixture->outputs + (fixture->rows - 1) * VALUES;
    float sample[VALUES], mixed[VALUES];
    double worst = 0.0;
    int drawn = 0;
    CHECK_NEAR(scheduler_init_noise_sigma(scheduler) / (double)expected[0], 1.0, 1e-6);
    CHECK_INT(scheduler_count(scheduler), count / width - 1);
    if (scheduler_count(scheduler) != (int)(count / width) - 1) {
        printf("# %s\n", test->key);
        return worst;
    }
    first_sample(test, scheduler, fixture, sample);
    scheduler_begin(scheduler, fixture->arena, VALUES);
    for (int i = 0; i < scheduler_count(scheduler); i++) {
        const float *row = expected + (size_t)(i + 1) * width;
        check_timestep(test, scheduler, i, (double)row[0]);
        const float *noise =
            scheduler_needs_noise(scheduler, i) ? fixture->noises + (size_t)drawn++ * VALUES : NULL;
        scheduler_step(scheduler, i, fixture->outputs + (size_t)i * VALUES, sample, noise, VALUES);
        worst = fmax(worst, golden_relative_error(sample, row + 1, VALUES));
        if (test->begin > 0) {
            scheduler_add_noise(scheduler, i, clean, last_noise, mixed, VALUES);
            worst = fmax(worst, golden_relative_error(mixed, row + 1 + VALUES, VALUES));
        }
        if (!isfinite(sample[0])) {
            worst = HUGE_VAL;
        }
    }
    return worst;
}

static bool starts_with(const char *text, const char *start)
{
    return strncmp(text, start, strlen(start)) == 0;
}

/* Returns the largest relative error, for the line that sums up. */
static double check_case(const struct golden_case *test, const struct fixture *fixture)
{
    size_t count = 0;
    double worst = 0.0;
    struct scheduler *scheduler = open_case(test);
    float *expected = golden_tensor(fixture->file, test->key, SAFETENSORS_F32, &count);
    if (scheduler != NULL && expected != NULL) {
        if (test->ends) {
            check_ends(test, scheduler, expected);
        } else {
            worst = check_run(test, scheduler, fixture, expected, count);
        }
        bool rough = starts_with(test->config, "zero-snr") || strcmp(test->name, "deis") == 0;
        double most = rough ? TOLERANCE_ROUGH : TOLERANCE;
        if (!(worst <= most)) {
            printf("# %s: %.2g\n", test->key, worst);
            CHECK(false);
        }
    }
    arena_release(fixture->arena, 0);
    scheduler_close(scheduler);
    xfree(expected);
    return worst;
}

static void check_scheduler(const char *name)
{
    struct error err;
    struct fixture fixture = {.file = golden_open(GOLDEN_EXPECTED "schedulers.safetensors")};
    REQUIRE(fixture.file != NULL);
    REQUIRE(arena_create(&fixture.arena, "test", 1 << 20, &err) == STATUS_OK);
    fixture.outputs = golden_tensor(fixture.file, "outputs", SAFETENSORS_F32, &fixture.rows);
    fixture.noises = golden_tensor(fixture.file, "noises", SAFETENSORS_F32, &fixture.noise_rows);
    fixture.rows /= VALUES;
    fixture.noise_rows /= VALUES;
    int cases = 0;
    double worst = 0.0, worst_zero_snr = 0.0;
    for (size_t i = 0; i < safetensors_count(fixture.file); i++) {
        struct golden_case test;
        if (!parse_key(safetensors_entry_at(fixture.file, i)->name, &test) ||
            strcmp(test.name, name) != 0) {
            continue;
        }
        double error = check_case(&test, &fixture);
        bool zero_snr = starts_with(test.config, "zero-snr");
        worst = zero_snr ? worst : fmax(worst, error);
        worst_zero_snr = zero_snr ? fmax(worst_zero_snr, error) : worst_zero_snr;
        cases++;
    }
    printf("# %s: %d schedules, largest relative error of a step %.2g (zero SNR: %.2g)\n", name,
           cases, worst, worst_zero_snr);
    CHECK(cases >= 30);
    xfree(fixture.outputs);
    xfree(fixture.noises);
    arena_destroy(fixture.arena);
    safetensors_close(fixture.file);
}

TEST(ddim_equals_diffusers)
{
    check_scheduler("ddim");
}

TEST(ddpm_equals_diffusers_on_the_same_noise)
{
    check_scheduler("ddpm");
}

TEST(pndm_equals_diffusers)
{
    check_scheduler("pndm");
}

TEST(euler_equals_diffusers)
{
    check_scheduler("euler");
}

TEST(euler_ancestral_equals_diffusers_on_the_same_noise)
{
    check_scheduler("euler_ancestral");
}

TEST(heun_equals_diffusers)
{
    check_scheduler("heun");
}

TEST(dpm2_equals_diffusers)
{
    check_scheduler("dpm2");
}

TEST(dpm2_ancestral_equals_diffusers_on_the_same_noise)
{
    check_scheduler("dpm2_ancestral");
}

TEST(dpmpp_2m_equals_diffusers)
{
    check_scheduler("dpmpp_2m");
}

TEST(dpmpp_2m_sde_equals_diffusers_on_the_same_noise)
{
    check_scheduler("dpmpp_2m_sde");
}

TEST(dpmpp_sde_equals_diffusers_on_the_same_noise)
{
    check_scheduler("dpmpp_sde");
}

TEST(unipc_equals_diffusers)
{
    check_scheduler("unipc");
}

TEST(lcm_equals_diffusers_on_the_same_noise)
{
    check_scheduler("lcm");
}

TEST(tcd_equals_diffusers)
{
    check_scheduler("tcd");
}

TEST(lms_equals_diffusers)
{
    check_scheduler("lms");
}

TEST(deis_equals_diffusers)
{
    check_scheduler("deis");
}

TEST_MAIN()
