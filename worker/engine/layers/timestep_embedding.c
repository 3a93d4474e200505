#include "worker/engine/layers/timestep_embedding.h"

#include <math.h>

#include "worker/engine/kernels/activation.h"

#define PERIOD_MAX 10000.0

void sinusoid_fill(const struct sinusoid *sinusoid, double value, float *out)
{
    int64_t half = sinusoid->channels / 2;
    int64_t sines = sinusoid->flip_sin_to_cos ? half : 0, cosines = half - sines;
    for (int64_t i = 0; i < half; i++) {
        float exponent = (float)-log(PERIOD_MAX) * (float)i;
        exponent /= (float)((double)half - sinusoid->freq_shift);
        float angle = (float)value * expf(exponent);
        out[sines + i] = sinf(angle);
        out[cosines + i] = cosf(angle);
    }
    if (sinusoid->channels % 2 != 0) {
        out[sinusoid->channels - 1] = 0.0f;
    }
}

void sinusoid_fill_guidance(int64_t channels, double w, float *out)
{
    int64_t half = channels / 2;
    float scaled = ((float)w - 1.0f) * 1000.0f;
    float rate = logf((float)PERIOD_MAX) / (float)(half - 1);
    for (int64_t i = 0; i < half; i++) {
        float angle = scaled * expf((float)i * -rate);
        out[i] = sinf(angle);
        out[half + i] = cosf(angle);
    }
    if (channels % 2 != 0) {
        out[channels - 1] = 0.0f;
    }
}

void timestep_embedding_load(struct timestep_embedding *embedding, struct loader *loader,
                             const char *prefix, int64_t channels_in, int64_t channels,
                             int64_t condition_channels)
{
    const struct linear_options biased = {.with_bias = true, .is_sensitive = true};
    const struct linear_options plain = {.is_sensitive = true};
    if (condition_channels > 0) {
        linear_load_with(&embedding->cond_proj, loader, weight_name(prefix, "cond_proj").text,
                         condition_channels, channels_in, &plain);
    }
    linear_load_with(&embedding->linear_1, loader, weight_name(prefix, "linear_1").text,
                     channels_in, channels, &biased);
    linear_load_with(&embedding->linear_2, loader, weight_name(prefix, "linear_2").text, channels,
                     channels, &biased);
}

struct tensor timestep_embedding_forward(const struct timestep_embedding *embedding,
                                         struct exec *ex, struct tensor x)
{
    struct tensor h = linear_forward(&embedding->linear_1, ex, x);
    activation_run(ex->pool, ACTIVATION_SILU, h.data, tensor_count(h));
    return linear_forward(&embedding->linear_2, ex, h);
}
