/* Normal random numbers equal to torch's on a CPU: rng_seed(r, seed) and rng_normal(r, out, n) give
 * the values of torch.randn(n, generator=torch.Generator("cpu").manual_seed(seed)) within 1e-6,
 * call after call, so that a seed means the same picture here as in diffusers.
 *
 * Source: torch 2.9, ATen/core/MT19937RNGEngine.h, ATen/core/DistributionsHelper.h and
 * ATen/native/cpu/DistributionTemplates.h (normal_fill).
 */
#ifndef WORKER_ENGINE_TENSOR_RNG_H
#define WORKER_ENGINE_TENSOR_RNG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define RNG_STATE_WORDS 624

struct rng {
    uint32_t state[RNG_STATE_WORDS]; /* mt19937 */
    int used;                        /* words of state handed out; all used: twist first */
    bool has_spare;                  /* the second normal of a pair, kept between short calls */
    double spare;
};

/* Only the low 32 bits of the seed count, as in torch. */
void rng_seed(struct rng *rng, uint64_t seed);

/* The next 32 random bits: torch.randint(n) on a CPU is this modulo n, for n below 2^32. */
uint32_t rng_word(struct rng *rng);

/* out[0..count): the next count values of standard normal noise. Calls of fewer than 16 values
 * take torch's scalar path (doubles, pairs), longer ones its block path; so two calls of 16 are
 * not one call of 32, exactly as in torch. count 0 draws nothing. */
void rng_normal(struct rng *rng, float *out, size_t count);

#endif
