#include "worker/engine/schedulers/unipc.h"

#include <math.h>
#include <string.h>

#include "worker/engine/schedulers/solver.h"

/* What is kept: the model's outputs, newest first, one more than a step combines, as the corrector
 * sees the newest beside those of the step before; and the sample that the last step began with. */
#define OUTPUTS (SOLVER_ORDER_MAX + 1)
#define BEGUN OUTPUTS
#define KEPT (OUTPUTS + 1)

/* The steps whose correction a config turns off. */
static void read_uncorrected(struct json *config, struct sampler_options *options)
{
    const struct json_value *list = json_member(json_root(config), "disable_corrector");
    for (const struct json_value *at = json_first(list); at != NULL; at = json_next(at)) {
        int64_t step = 0;
        if (!json_whole(at, 0, SAMPLER_STEPS_MAX, &step)) {
            json_problem(config, "disable_corrector: expected a list of steps from 0 to %d",
                         SAMPLER_STEPS_MAX);
            return;
        }
        options->uncorrected[step] = true;
    }
}

static void read_options(struct json *config, const struct noise_schedule *schedule,
                         struct sampler_options *options)
{
    static const char *const others[] = {"bh2", "midpoint", "heun", "logrho"};
    const char *solver = json_string(config, "solver_type", others[0]);
    (void)schedule;
    solver_read_options(config, false, options);
    options->end_repeats = true;
    read_uncorrected(config, options);
    options->predict_eps = !json_bool(config, "predict_x0", true);
    options->other_solver = strcmp(solver, "bh1") == 0;
    bool known = options->other_solver;
    for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
        known = known || strcmp(solver, others[i]) == 0;
    }
    if (!known) {
        json_problem(config, "solver_type: \"%s\" is not supported (bh1, bh2)", solver);
    }
    if (json_has(config, "solver_p")) {
        json_problem(config, "solver_p: not supported");
    }
    /* At sigma 0 the step is infinitely long, which only the first order of B2 can take. */
    bool finite = options->lower_order_final && !options->other_solver && !options->predict_eps;
    if (!options->end_at_sigma_min && !finite) {
        json_problem(config, "final_sigmas_type: \"zero\" needs lower_order_final, predict_x0 and "
                             "solver_type bh2");
    }
}

static int make_plan(const struct noise_schedule *schedule, const struct sampler_options *options,
                     int steps, struct sampler_plan *plan, struct error *err)
{
    int result = solver_plan_levels(schedule, options, schedule->train_steps, steps, SOLVER_ROUNDS,
                                    plan, err);
    for (int i = 0; result == STATUS_OK && i < plan->count; i++) {
        int known = i - plan->begin, left = plan->count - i;
        int most = options->solver_order;
        most = options->lower_order_final && left < most ? left : most;
        plan->steps[i].order = known + 1 < most ? known + 1 : most;
        plan->steps[i].corrects = known > 0 && !options->uncorrected[i - 1];
    }
    return result;
}

/* ---- The coefficients ----------------------------------------------------------------------- */

/* Solve the n equations R rho = b in float, by elimination with pivots. */
static void solve(float r[SOLVER_ORDER_MAX][SOLVER_ORDER_MAX], float *b, int n, float *rho)
{
    for (int column = 0; column < n; column++) {
        int pivot = column;
        for (int row = column + 1; row < n; row++) {
            pivot = fabsf(r[row][column]) > fabsf(r[pivot][column]) ? row : pivot;
        }
        for (int k = 0; k < n; k++) {
            float swapped = r[column][k];
            r[column][k] = r[pivot][k];
            r[pivot][k] = swapped;
        }
        float swapped = b[column];
        b[column] = b[pivot];
        b[pivot] = swapped;
        for (int row = column + 1; row < n; row++) {
            float factor = r[row][column] / r[column][column];
            for (int k = column; k < n; k++) {
                r[row][k] -= factor * r[column][k];
            }
            b[row] -= factor * b[column];
        }
    }
    for (int row = n - 1; row >= 0; row--) {
        float sum = b[row];
        for (int k = row + 1; k < n; k++) {
            sum -= r[row][k] * rho[k];
        }
        rho[row] = sum / r[row][row];
    }
}

/* x_t = of_sample x - of_output m0 - of_difference (sum of rho_k D_k), the form of the predictor
 * and the corrector both; D_k is a difference to m0 over rk_k, the corrector's last one over 1. */
struct update {
    float of_sample, of_output, of_difference;
    float rk[SOLVER_ORDER_MAX], rho[SOLVER_ORDER_MAX];
};

/* The step from steps[at] on, of that order. corrected: its end is known, for the corrector. */
static struct update update_of(const struct sampler_run *run, int at, int order, bool corrected)
{
    const struct sampler_step *step = &run->plan->steps[at];
    const struct sampler_options *options = run->options;
    const struct solver_level t = solver_level_of(step->sigma_next);
    const struct solver_level s0 = solver_level_of(step->sigma);
    const float h = t.lambda - s0.lambda, hh = options->predict_eps ? h : -h;
    const float phi_1 = expm1f(hh), b_h = options->other_solver ? hh : phi_1;
    const float scale = options->predict_eps ? t.sigma : t.alpha;
    struct update u = {
        .of_sample = options->predict_eps ? t.alpha / s0.alpha : t.sigma / s0.sigma,
        .of_output = scale * phi_1,
        .of_difference = scale * b_h,
    };
    for (int k = 0; k < order - 1; k++) {
        u.rk[k] = (solver_level_of(step[-1 - k].sigma).lambda - s0.lambda) / h;
    }
    u.rk[order - 1] = 1.0F;

    float r[SOLVER_ORDER_MAX][SOLVER_ORDER_MAX], b[SOLVER_ORDER_MAX];
    float phi_k = phi_1 / hh - 1.0F, factorial = 1.0F;
    for (int row = 0; row < order; row++) {
        for (int k = 0; k < order; k++) {
            r[row][k] = row == 0 ? 1.0F : r[row - 1][k] * u.rk[k];
        }
        b[row] = phi_k * factorial / b_h;
        factorial *= (float)(row + 2);
        phi_k = phi_k / hh - 1.0F / factorial;
    }
    int unknowns = corrected ? order : order - 1;
    if (order == (corrected ? 1 : 2)) {
        u.rho[0] = 0.5F; /* the paper's choice for the lowest order */
    } else {
        solve(r, b, unknowns, u.rho);
    }
    return u;
}

/* ---- Steps ---------------------------------------------------------------------------------- */

/* What the solver works with: the clean sample, or the noise when the config says so. */
static void convert(const struct sampler_run *run, const struct sampler_step *step,
                    const float *output, const float *sample, float *out)
{
    const struct sampler_step here = *step;
    for (size_t k = 0; k < run->count; k++) {
        out[k] = run->options->predict_eps
                     ? sampler_eps(&here, run->prediction, output[k], sample[k])
                     : sampler_clean(&here, run->prediction, output[k], sample[k]);
    }
}

/* The step from begun with the outputs m[0 .. order), newest first; next is the output at its end,
 * NULL for the predictor. */
static void move(const struct update *u, int order, float *const *m, const float *next,
                 const float *begun, float *sample, size_t count)
{
    for (size_t k = 0; k < count; k++) {
        float m0 = m[0][k], sum = 0.0F;
        for (int j = 0; j < order - 1; j++) {
            sum += u->rho[j] * ((m[j + 1][k] - m0) / u->rk[j]);
        }
        if (next != NULL) {
            sum += u->rho[order - 1] * (next[k] - m0);
        }
        sample[k] = u->of_sample * begun[k] - u->of_output * m0 - u->of_difference * sum;
    }
}

static void advance(struct sampler_run *run, int i, const float *output, const float *noise,
                    float *sample)
{
    const struct sampler_step *step = &run->plan->steps[i];
    float *m0 = sampler_keep(run, 0, OUTPUTS), *begun = run->kept[BEGUN];
    (void)noise;
    convert(run, step, output, sample, m0);
    if (step->corrects) {
        const struct update corrector = update_of(run, i - 1, step[-1].order, true);
        move(&corrector, step[-1].order, run->kept + 1, m0, begun, sample, run->count);
    }
    memcpy(begun, sample, run->count * sizeof(*begun));
    const struct update predictor = update_of(run, i, step->order, false);
    move(&predictor, step->order, run->kept, NULL, begun, sample, run->count);
}

const struct sampler unipc_sampler = {
    .name = "unipc",
    .class_name = "UniPCMultistepScheduler",
    .defaults = {0.0001, 0.02, "linear", "linspace", true},
    .sigma_kinds = SIGMA_KINDS_RESPACED,
    .evaluations = 1,
    .kept = KEPT,
    .read_options = read_options,
    .make_plan = make_plan,
    .advance = advance,
};
