#include "worker/engine/schedulers/sigma_table.h"

#include <math.h>
#include <string.h>

#include "worker/engine/schedulers/beta_quantile.h"

#define KARRAS_RHO 7.0
#define BETA_SHAPE 0.6

static const char *const names[] = {"uniform", "karras", "exponential", "beta", "lu_lambdas"};

bool sigma_table_parse_kind(const char *text, enum sigma_kind *out)
{
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (strcmp(text, names[i]) == 0) {
            *out = (enum sigma_kind)i;
            return true;
        }
    }
    return false;
}

const char *sigma_table_kind_name(enum sigma_kind kind)
{
    return names[kind];
}

enum sigma_kind sigma_table_read_kind(struct json *config, bool knows_lu)
{
    bool karras = json_bool(config, "use_karras_sigmas", false);
    bool exponential = json_bool(config, "use_exponential_sigmas", false);
    bool beta = json_bool(config, "use_beta_sigmas", false);
    bool lu = knows_lu && json_bool(config, "use_lu_lambdas", false);
    if (karras + exponential + beta > 1) {
        json_problem(config, "use_karras_sigmas, use_exponential_sigmas, use_beta_sigmas: only one "
                             "can be true");
    }
    return karras        ? SIGMAS_KARRAS
           : lu          ? SIGMAS_LU
           : exponential ? SIGMAS_EXPONENTIAL
           : beta        ? SIGMAS_BETA
                         : SIGMAS_UNIFORM;
}

static double respaced(enum sigma_kind kind, double high, double low, double ramp)
{
    switch (kind) {
    case SIGMAS_KARRAS: {
        double from = pow(high, 1.0 / KARRAS_RHO), to = pow(low, 1.0 / KARRAS_RHO);
        return pow(from + ramp * (to - from), KARRAS_RHO);
    }
    case SIGMAS_BETA:
        return low + beta_quantile(1.0 - ramp, BETA_SHAPE, BETA_SHAPE) * (high - low);
    case SIGMAS_EXPONENTIAL:
    case SIGMAS_LU:
    case SIGMAS_UNIFORM:
        break;
    }
    return exp(log(high) + ramp * (log(low) - log(high)));
}

void sigma_table_respace(enum sigma_kind kind, double high, double low, int steps, double *sigmas)
{
    for (int i = 0; i < steps; i++) {
        double ramp = steps > 1 ? (double)i / (steps - 1) : 0.0;
        sigmas[i] = respaced(kind, high, low, ramp);
    }
}
