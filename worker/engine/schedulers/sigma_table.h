/* The noise levels of samplers that count in sigmas: as spaced in training, or spaced anew between
 * two levels; with the timesteps that the model is told for them.
 */
#ifndef WORKER_ENGINE_SCHEDULERS_SIGMA_TABLE_H
#define WORKER_ENGINE_SCHEDULERS_SIGMA_TABLE_H

#include "worker/engine/schedulers/noise_schedule.h"

enum sigma_kind {
    SIGMAS_UNIFORM,     /* at the timesteps that timestep_spacing picks */
    SIGMAS_KARRAS,      /* arXiv 2206.00364, formula (5) with rho 7 */
    SIGMAS_EXPONENTIAL, /* a geometric series */
    SIGMAS_BETA,        /* quantiles of Beta(0.6, 0.6), arXiv 2407.12173 */
    SIGMAS_LU,          /* evenly in log sigma, as arXiv 2211.01095 proposes */
};

#define SIGMA_KINDS_RESPACED (1U << SIGMAS_KARRAS | 1U << SIGMAS_EXPONENTIAL | 1U << SIGMAS_BETA)

/* "uniform", "karras", "exponential", "beta", "lu_lambdas". False when text is none of them. */
bool sigma_table_parse_kind(const char *text, enum sigma_kind *out);
const char *sigma_table_kind_name(enum sigma_kind kind);

/* The kind that a config asks for by its use_..._sigmas keys; contradictions are recorded. */
enum sigma_kind sigma_table_read_kind(struct json *config, bool knows_lu);

/* Steps from levels high to low, both included, in sigmas[0..steps). kind is a respacing. */
void sigma_table_respace(enum sigma_kind kind, double high, double low, int steps, double *sigmas);

#endif
