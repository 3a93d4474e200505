#include "worker/engine/schedulers/noise_schedule.h"

#include <math.h>
#include <string.h>

#include "common/base/panic.h"

#define TRAIN_STEPS_MAX 100000

/* ---- Betas ---------------------------------------------------------------------------------- */

/* torch.linspace: from both ends towards the middle, in float. */
static void linspace_float(float start, float end, float *out, int count)
{
    float step = count > 1 ? (end - start) / (float)(count - 1) : 0.0F;
    for (int i = 0; i < count; i++) {
        out[i] = i < count / 2 ? start + step * (float)i : end - step * (float)(count - 1 - i);
    }
    if (count == 1) {
        out[0] = start;
    }
}

static double cosine_alpha_bar(double t)
{
    double c = cos((t + 0.008) / 1.008 * M_PI / 2.0);
    return c * c;
}

static void cosine_betas(float *betas, int count)
{
    const double beta_max = 0.999;
    for (int i = 0; i < count; i++) {
        double t1 = (double)i / count, t2 = (double)(i + 1) / count;
        betas[i] = (float)fmin(1.0 - cosine_alpha_bar(t2) / cosine_alpha_bar(t1), beta_max);
    }
}

static void cumulative_product(const float *betas, float *alpha_bar, int count)
{
    double product = 1.0;
    for (int i = 0; i < count; i++) {
        product *= (double)(1.0F - betas[i]);
        alpha_bar[i] = (float)product;
    }
}

/* Algorithm 1 of arXiv 2305.08891: shift and scale sqrt(alpha_bar) so that it ends at zero. */
static void rescale_to_zero_snr(float *betas, float *alpha_bar, int count)
{
    cumulative_product(betas, alpha_bar, count);
    float first = sqrtf(alpha_bar[0]), last = sqrtf(alpha_bar[count - 1]);
    float scale = first / (first - last);
    float previous = 1.0F;
    for (int i = 0; i < count; i++) {
        float root = (sqrtf(alpha_bar[i]) - last) * scale;
        betas[i] = 1.0F - root * root / previous;
        previous = root * root;
    }
}

static void make_alpha_bar(struct noise_schedule *schedule, struct json *config,
                           const struct noise_defaults *defaults)
{
    int count = schedule->train_steps;
    double start = json_number(config, "beta_start", defaults->beta_start);
    double end = json_number(config, "beta_end", defaults->beta_end);
    const char *kind = json_string(config, "beta_schedule", defaults->beta_schedule);
    if (!(start >= 0.0 && start < 1.0 && end >= 0.0 && end < 1.0)) {
        json_problem(config, "beta_start, beta_end: expected numbers from 0 to below 1");
        return;
    }
    float *betas = xcalloc((size_t)count, sizeof(*betas));
    if (strcmp(kind, "linear") == 0) {
        linspace_float((float)start, (float)end, betas, count);
    } else if (strcmp(kind, "scaled_linear") == 0) {
        linspace_float((float)sqrt(start), (float)sqrt(end), betas, count);
        for (int i = 0; i < count; i++) {
            betas[i] *= betas[i];
        }
    } else if (strcmp(kind, "squaredcos_cap_v2") == 0) {
        cosine_betas(betas, count);
        schedule->cosine = true;
    } else {
        json_problem(config,
                     "beta_schedule: \"%s\" is not supported (linear, scaled_linear, "
                     "squaredcos_cap_v2)",
                     kind);
    }
    if (schedule->zero_snr) {
        rescale_to_zero_snr(betas, schedule->alpha_bar, count);
    }
    cumulative_product(betas, schedule->alpha_bar, count);
    xfree(betas);
}

/* ---- Configuration -------------------------------------------------------------------------- */

bool noise_schedule_parse_spacing(const char *text, enum timestep_spacing *out)
{
    static const char *const names[] = {"leading", "trailing", "linspace"};
    for (int i = 0; i < 3; i++) {
        if (strcmp(text, names[i]) == 0) {
            *out = (enum timestep_spacing)i;
            return true;
        }
    }
    return false;
}

static enum prediction read_prediction(struct json *config)
{
    const char *text = json_string(config, "prediction_type", "epsilon");
    if (strcmp(text, "v_prediction") == 0) {
        return PREDICTION_V;
    }
    if (strcmp(text, "sample") == 0) {
        return PREDICTION_SAMPLE;
    }
    if (strcmp(text, "epsilon") != 0) {
        json_problem(config,
                     "prediction_type: \"%s\" is not supported (epsilon, v_prediction, "
                     "sample)",
                     text);
    }
    return PREDICTION_EPSILON;
}

void noise_schedule_init(struct noise_schedule *schedule, struct json *config,
                         const struct noise_defaults *defaults)
{
    *schedule = (struct noise_schedule){
        .train_steps = json_int(config, "num_train_timesteps", 2, TRAIN_STEPS_MAX, 1000),
        .zero_snr = defaults->can_rescale && json_bool(config, "rescale_betas_zero_snr", false),
        .steps_offset = json_int(config, "steps_offset", 0, TRAIN_STEPS_MAX, 0),
        .prediction = read_prediction(config),
    };
    if (json_has(config, "trained_betas")) {
        json_problem(config, "trained_betas: not supported");
    }
    schedule->alpha_bar = xcalloc((size_t)schedule->train_steps, sizeof(*schedule->alpha_bar));
    make_alpha_bar(schedule, config, defaults);
}

void noise_schedule_deinit(struct noise_schedule *schedule)
{
    xfree(schedule->alpha_bar);
    schedule->alpha_bar = NULL;
}

/* ---- Sigmas --------------------------------------------------------------------------------- */

float noise_schedule_sigma(const struct noise_schedule *schedule, int t)
{
    /* The reference puts this for zero here so that sigma stays finite, a little below 4096. */
    const float alpha_bar_of_zero_snr = 0x1p-24F;
    float alpha_bar = schedule->alpha_bar[t];
    if (schedule->zero_snr && t == schedule->train_steps - 1) {
        alpha_bar = alpha_bar_of_zero_snr;
    }
    return sqrtf((1.0F - alpha_bar) / alpha_bar);
}

double noise_schedule_sigma_at(const struct noise_schedule *schedule, double t)
{
    int last = schedule->train_steps - 1;
    if (!(t > 0.0)) {
        return (double)noise_schedule_sigma(schedule, 0);
    }
    if (t >= last) {
        return (double)noise_schedule_sigma(schedule, last);
    }
    int low = (int)t;
    double below = (double)noise_schedule_sigma(schedule, low);
    double above = (double)noise_schedule_sigma(schedule, low + 1);
    return below + (above - below) * (t - low);
}

/* The last trained step whose sigma is at most that of the logarithm wanted, but one that another
 * follows. */
static int level_below(const struct noise_schedule *schedule, double wanted)
{
    int low = 0, high = schedule->train_steps - 1;
    while (high - low > 1) {
        int middle = (low + high) / 2;
        if ((double)logf(noise_schedule_sigma(schedule, middle)) <= wanted) {
            low = middle;
        } else {
            high = middle;
        }
    }
    return low;
}

float noise_schedule_float_timestep_of(const struct noise_schedule *schedule, float sigma)
{
    float wanted = logf(fmaxf(sigma, 1e-10F));
    int low = level_below(schedule, (double)wanted);
    float below = logf(noise_schedule_sigma(schedule, low));
    float above = logf(noise_schedule_sigma(schedule, low + 1));
    float w = fminf(fmaxf((below - wanted) / (below - above), 0.0F), 1.0F);
    return (1.0F - w) * (float)low + w * (float)(low + 1);
}

double noise_schedule_timestep_of(const struct noise_schedule *schedule, double sigma)
{
    double wanted = log(fmax(sigma, 1e-10));
    int low = level_below(schedule, wanted);
    double below = (double)logf(noise_schedule_sigma(schedule, low));
    double above = (double)logf(noise_schedule_sigma(schedule, low + 1));
    double w = fmin(fmax((below - wanted) / (below - above), 0.0), 1.0);
    return (1.0 - w) * low + w * (low + 1);
}

/* ---- Timesteps ------------------------------------------------------------------------------ */

/* numpy.arange(last, 0, -ratio).round() - 1, with numpy's way of stepping: rounding decides whether
 * there is one more. */
static int trailing_timesteps(int train_steps, int last, int steps, double *timesteps)
{
    double ratio = (double)train_steps / steps;
    double delta = (last - ratio) - last;
    int count = (int)ceil(-(double)last / -ratio);
    ASSERT(count <= steps + 1);
    for (int i = 0; i < count; i++) {
        timesteps[i] = rint(last + i * delta) - 1.0;
    }
    return count;
}

int noise_schedule_timesteps(const struct noise_schedule *schedule, enum timestep_spacing spacing,
                             int steps, double *timesteps)
{
    int train_steps = schedule->train_steps, last = train_steps - 1;
    ASSERT(steps >= 1 && steps <= train_steps);
    if (spacing == SPACING_TRAILING) {
        return trailing_timesteps(train_steps, train_steps, steps, timesteps);
    }
    int ratio = train_steps / steps;
    double stride = steps > 1 ? (double)last / (steps - 1) : 0.0;
    for (int i = 0; i < steps; i++) {
        int k = steps - 1 - i;
        timesteps[i] = spacing == SPACING_LEADING ? k * ratio + schedule->steps_offset
                       : k == steps - 1 && k > 0  ? last
                                                  : k * stride;
    }
    return steps;
}

int noise_schedule_solver_timesteps(const struct noise_schedule *schedule,
                                    enum timestep_spacing spacing, int last, int steps,
                                    double *timesteps)
{
    if (spacing == SPACING_TRAILING) {
        return trailing_timesteps(schedule->train_steps, last, steps, timesteps);
    }
    int ratio = last / (steps + 1);
    double stride = (double)(last - 1) / steps;
    for (int i = 0; i < steps; i++) {
        int k = steps - i;
        timesteps[i] = spacing == SPACING_LEADING ? k * ratio + schedule->steps_offset
                       : k == steps               ? last - 1
                                                  : rint(k * stride);
    }
    return steps;
}
