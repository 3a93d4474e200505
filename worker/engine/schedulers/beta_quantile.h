/* Quantiles of the Beta distribution, for the noise levels of that name. */
#ifndef WORKER_ENGINE_SCHEDULERS_BETA_QUANTILE_H
#define WORKER_ENGINE_SCHEDULERS_BETA_QUANTILE_H

/* The x in [0, 1] below which a Beta(a, b) variable falls with probability p; p in [0, 1], a and b
 * above 0. Exact to about 1e-14, as scipy.stats.beta.ppf. */
double beta_quantile(double p, double a, double b);

#endif
