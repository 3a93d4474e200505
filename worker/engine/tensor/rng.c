#include "worker/engine/tensor/rng.h"

#include <math.h>

#define SHIFT_WORDS 397
#define BLOCK 16

void rng_seed(struct rng *rng, uint64_t seed)
{
    rng->state[0] = (uint32_t)seed;
    for (uint32_t i = 1; i < RNG_STATE_WORDS; i++) {
        uint32_t previous = rng->state[i - 1];
        rng->state[i] = 1812433253U * (previous ^ (previous >> 30)) + i;
    }
    rng->used = RNG_STATE_WORDS;
    rng->has_spare = false;
    rng->spare = 0.0;
}

static uint32_t mixed(uint32_t upper, uint32_t lower)
{
    uint32_t joined = (upper & 0x80000000U) | (lower & 0x7FFFFFFFU);
    return (joined >> 1) ^ ((lower & 1U) != 0 ? 0x9908B0DFU : 0U);
}

static void twist(struct rng *rng)
{
    uint32_t *s = rng->state;
    for (int i = 0; i < RNG_STATE_WORDS; i++) {
        uint32_t next = s[(i + 1) % RNG_STATE_WORDS];
        s[i] = s[(i + SHIFT_WORDS) % RNG_STATE_WORDS] ^ mixed(s[i], next);
    }
    rng->used = 0;
}

uint32_t rng_word(struct rng *rng)
{
    if (rng->used == RNG_STATE_WORDS) {
        twist(rng);
    }
    uint32_t y = rng->state[rng->used++];
    y ^= y >> 11;
    y ^= (y << 7) & 0x9D2C5680U;
    y ^= (y << 15) & 0xEFC60000U;
    return y ^ (y >> 18);
}

/* Uniform in [0, 1) with the 24 bits of a float's mantissa. */
static float uniform_float(struct rng *rng)
{
    return (float)(rng_word(rng) & 0xFFFFFFU) * 0x1p-24F;
}

/* Uniform in [0, 1) with the 53 bits of a double's mantissa. */
static double uniform_double(struct rng *rng)
{
    uint64_t high = rng_word(rng);
    uint64_t word = high << 32 | rng_word(rng);
    return (double)(word & ((1ULL << 53) - 1)) * 0x1p-53;
}

/* Box–Muller over 16 uniforms in place. The angle is rounded to float as torch does: at radius 5
 * that alone moves a value by more than 1e-6. */
static void normal_block(float *x)
{
    for (int j = 0; j < BLOCK / 2; j++) {
        double u1 = 1.0 - (double)x[j];
        float theta = 2.0F * (float)M_PI * x[j + BLOCK / 2];
        double radius = sqrt(-2.0 * log(u1));
        x[j] = (float)(radius * cos((double)theta));
        x[j + BLOCK / 2] = (float)(radius * sin((double)theta));
    }
}

static void fill_uniform(struct rng *rng, float *out, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        out[i] = uniform_float(rng);
    }
}

/* torch's normal_fill: all uniforms first, then whole blocks; a rest is covered by drawing the
 * last 16 values anew. */
static void fill_normal(struct rng *rng, float *out, size_t count)
{
    fill_uniform(rng, out, count);
    for (size_t i = 0; i + BLOCK <= count; i += BLOCK) {
        normal_block(out + i);
    }
    if (count % BLOCK != 0) {
        float *last = out + count - BLOCK;
        fill_uniform(rng, last, BLOCK);
        normal_block(last);
    }
}

/* torch's normal_distribution<double>: pairs, the second one kept for the next call. */
static double scalar_normal(struct rng *rng)
{
    if (rng->has_spare) {
        rng->has_spare = false;
        return rng->spare;
    }
    double u1 = uniform_double(rng);
    double u2 = uniform_double(rng);
    double radius = sqrt(-2.0 * log1p(-u2));
    double theta = 2.0 * M_PI * u1;
    rng->spare = radius * sin(theta);
    rng->has_spare = true;
    return radius * cos(theta);
}

void rng_normal(struct rng *rng, float *out, size_t count)
{
    if (count >= BLOCK) {
        fill_normal(rng, out, count);
        return;
    }
    for (size_t i = 0; i < count; i++) {
        out[i] = (float)scalar_normal(rng);
    }
}
