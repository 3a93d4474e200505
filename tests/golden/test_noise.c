/* Noise equals torch.randn on a CPU generator, call after call. */
#include "worker/engine/tensor/rng.h"

#include "common/base/panic.h"
#include "tests/golden/golden.h"

#define KEPT 32 /* values kept from each end of a long call */
#define TOLERANCE 1e-6

static double worst_of(const float *ours, const float *expected, size_t count)
{
    double worst = 0.0;
    for (size_t i = 0; i < count; i++) {
        worst = fmax(worst, fabs((double)ours[i] - (double)expected[i]));
    }
    return worst;
}

/* One call of count values: compares those kept of it at expected, and returns how many. */
static size_t check_call(struct rng *rng, size_t count, const float *expected, double expected_sum,
                         double *worst)
{
    float *values = xmalloc((count + 1) * sizeof(*values));
    double sum = 0.0;
    rng_normal(rng, values, count);
    for (size_t i = 0; i < count; i++) {
        sum += (double)values[i];
    }
    CHECK_NEAR(sum, expected_sum, TOLERANCE * (double)count);
    size_t kept = count > 2 * KEPT ? 2 * KEPT : count;
    size_t head = count > 2 * KEPT ? KEPT : count;
    *worst = fmax(*worst, worst_of(values, expected, head));
    *worst = fmax(*worst, worst_of(values + count - (kept - head), expected + head, kept - head));
    xfree(values);
    return kept;
}

/* name: "<seed>:<count>,<count>,…" */
static void check_case(const struct safetensors *file, const char *name)
{
    char sums_name[256];
    size_t count = 0, calls = 0, used = 0;
    struct rng rng;
    double worst = 0.0;
    snprintf(sums_name, sizeof(sums_name), "%s/sums", name);
    float *expected = golden_tensor(file, name, SAFETENSORS_F32, &count);
    double *sums = golden_tensor(file, sums_name, SAFETENSORS_F64, &calls);
    char *at;
    rng_seed(&rng, strtoull(name, &at, 10));
    for (size_t i = 0; i < calls; i++) {
        used += check_call(&rng, strtoul(at + 1, &at, 10), expected + used, sums[i], &worst);
    }
    CHECK_INT(used, count);
    CHECK(worst <= TOLERANCE);
    printf("# %s: largest difference %.2g\n", name, worst);
    xfree(expected);
    xfree(sums);
}

TEST(noise_equals_torch_for_every_count_and_sequence_of_calls)
{
    struct safetensors *file = golden_open(GOLDEN_EXPECTED "noise.safetensors");
    REQUIRE(file != NULL);
    int cases = 0;
    for (size_t i = 0; i < safetensors_count(file); i++) {
        const char *name = safetensors_entry_at(file, i)->name;
        if (strstr(name, "/sums") == NULL) {
            check_case(file, name);
            cases++;
        }
    }
    CHECK(cases >= 9);
    safetensors_close(file);
}

TEST(only_the_low_32_bits_of_a_seed_count)
{
    struct rng one, other;
    float a[20], b[20];
    rng_seed(&one, 5);
    rng_seed(&other, 5 + (1ULL << 32));
    rng_normal(&one, a, 20);
    rng_normal(&other, b, 20);
    CHECK(worst_of(a, b, sizeof(a) / sizeof(a[0])) == 0.0);
}

TEST(no_values_draw_nothing)
{
    struct rng one, other;
    float a[3], b[3];
    rng_seed(&one, 5);
    rng_seed(&other, 5);
    rng_normal(&one, a, 0);
    rng_normal(&one, a, 3);
    rng_normal(&other, b, 3);
    CHECK(worst_of(a, b, sizeof(a) / sizeof(a[0])) == 0.0);
}

TEST_MAIN()
