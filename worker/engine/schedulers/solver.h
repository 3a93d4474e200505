/* What the multistep solvers in lambda = log(alpha / sigma) share: dpmpp_2m, deis and unipc. Their
 * samples hold their variance, alpha^2 + sigma^2 = 1, and their timesteps are whole numbers. */
#ifndef WORKER_ENGINE_SCHEDULERS_SOLVER_H
#define WORKER_ENGINE_SCHEDULERS_SOLVER_H

#include "worker/engine/schedulers/sampler.h"

/* Outputs a step may combine. */
#define SOLVER_ORDER_MAX 3

/* Where on the way a level is. */
struct solver_level {
    float alpha, sigma, lambda;
};

/* The level that training's sigma = sigma / alpha stands for; lambda is infinite at 0. */
struct solver_level solver_level_of(float sigma);

/* Read the keys that the classes have, and refuse those of other uses of them. */
void solver_read_options(struct json *config, bool knows_lu, struct sampler_options *options);

/* How a class rounds the timesteps of respaced sigmas. */
enum solver_rounding { SOLVER_TRUNCATES, SOLVER_ROUNDS };

/* Records from noise to picture, their orders still 0. last: how many of the trained steps are
 * used; rounding: of SIGMAS_KARRAS and SIGMAS_LU; sigma_last: the level at the end. STATUS_INVALID
 * when two levels are the same. */
int solver_plan_levels(const struct noise_schedule *schedule, const struct sampler_options *options,
                       int last, int steps, enum solver_rounding rounding,
                       struct sampler_plan *plan, struct error *err);

/* How many outputs DPM-Solver++ and DEIS combine in step i of a plan whose levels are there: few at
 * the beginning, and at the end as the config says. */
int solver_order_of(const struct sampler_options *options, const struct sampler_plan *plan, int i);

#endif
