/* What other people call the samplers and their noise levels: "DPM++ 2M Karras" is dpmpp_2m with
 * the sigmas karras. The names are those that A1111's web UI shows and writes into its pictures.
 */
#ifndef WORKER_ENGINE_SCHEDULERS_SAMPLER_NAMES_H
#define WORKER_ENGINE_SCHEDULERS_SAMPLER_NAMES_H

#include <stdbool.h>

/* Read our own name of a sampler, or theirs with or without a spacing behind it; capitals do not
 * matter. *name is our name, *sigmas our name of the spacing, "" when text says none; both are
 * constants. False, with both untouched, when text is neither. */
bool sampler_names_parse(const char *text, const char **name, const char **sigmas);

/* Their name for a sampler of ours ("Euler a"), and for a spacing ("SGM Uniform"); text itself when
 * they have none. */
const char *sampler_names_title(const char *text);
const char *sampler_names_sigmas_title(const char *text);

#endif
