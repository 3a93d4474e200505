/* The noise schedule that a model was trained with: beta -> alpha_bar -> sigma, and the timesteps
 * that an inference schedule picks from it.
 *
 * Numbers are made in the precision and order of diffusers (float32 betas, a cumulative product
 * accumulated in double and stored as float), so that timesteps are equal and sigmas differ in the
 * last bit at most. Source: diffusers 0.42, schedulers/scheduling_ddim.py,
 * scheduling_euler_discrete.py and scheduling_dpmsolver_multistep.py.
 */
#ifndef WORKER_ENGINE_SCHEDULERS_NOISE_SCHEDULE_H
#define WORKER_ENGINE_SCHEDULERS_NOISE_SCHEDULE_H

#include <stdbool.h>

#include "worker/engine/config/json.h"

/* How a sampler picks its steps from the trained ones: Table 2 of arXiv 2305.08891. */
enum timestep_spacing { SPACING_LEADING, SPACING_TRAILING, SPACING_LINSPACE };

/* What the model's output means for a sample x = sqrt(alpha_bar) x0 + sqrt(1 - alpha_bar) eps. */
enum prediction {
    PREDICTION_EPSILON, /* eps */
    PREDICTION_V,       /* sqrt(alpha_bar) eps - sqrt(1 - alpha_bar) x0 */
    PREDICTION_SAMPLE,  /* x0 */
};

struct noise_schedule {
    int train_steps;
    float *alpha_bar; /* [train_steps], falling from near 1 */
    bool zero_snr;    /* alpha_bar was rescaled to end at 0 */
    bool cosine;      /* made by the beta_schedule squaredcos_cap_v2 */
    int steps_offset;
    enum prediction prediction;
};

/* What a diffusers class takes where the config is silent. */
struct noise_defaults {
    double beta_start, beta_end;
    const char *beta_schedule;
    const char *spacing;
    bool can_rescale; /* knows rescale_betas_zero_snr; the others leave the key alone */
};

/* Read the keys that all schedulers share; problems are recorded in config. The schedule is usable
 * only when json_finish then succeeds, but may be freed in any case. */
void noise_schedule_init(struct noise_schedule *schedule, struct json *config,
                         const struct noise_defaults *defaults);
void noise_schedule_deinit(struct noise_schedule *schedule);

/* "leading", "trailing" or "linspace". False when text is none of them. */
bool noise_schedule_parse_spacing(const char *text, enum timestep_spacing *out);

/* sigma = sqrt((1 - alpha_bar) / alpha_bar) of training step t, in float as the reference. */
float noise_schedule_sigma(const struct noise_schedule *schedule, int t);

/* The sigma of a fractional timestep, linear between training steps and constant outside. */
double noise_schedule_sigma_at(const struct noise_schedule *schedule, double t);

/* The fractional timestep of a sigma, by interpolation of its logarithm. */
double noise_schedule_timestep_of(const struct noise_schedule *schedule, double sigma);

/* The same as the reference computes it where it does so in float: a few ten-thousandths apart. */
float noise_schedule_float_timestep_of(const struct noise_schedule *schedule, float sigma);

/* The timesteps of a schedule of steps steps, from noise to picture. timesteps holds steps + 1, as
 * trailing spacing may round to one more. Returns how many there are. */
int noise_schedule_timesteps(const struct noise_schedule *schedule, enum timestep_spacing spacing,
                             int steps, double *timesteps);

/* The same as the multistep solvers count them: whole numbers out of the first last trained steps,
 * with the end of the last step as one point more. */
int noise_schedule_solver_timesteps(const struct noise_schedule *schedule,
                                    enum timestep_spacing spacing, int last, int steps,
                                    double *timesteps);

#endif
