/* torch.nn.GroupNorm over channels-last maps, alone or with SiLU in the same pass.
 */
#ifndef WORKER_ENGINE_LAYERS_GROUP_NORM_H
#define WORKER_ENGINE_LAYERS_GROUP_NORM_H

#include "worker/engine/layers/exec.h"
#include "worker/engine/layers/loader.h"
#include "worker/engine/tensor/tensor.h"

struct group_norm {
    int64_t channels, groups;
    float epsilon;
    const float *weight, *bias; /* [channels] */
};

void group_norm_load(struct group_norm *norm, struct loader *loader, const char *prefix,
                     int64_t channels, int64_t groups, double epsilon);

/* x [n, h, w, channels] -> the same shape in ex->step. */
struct tensor group_norm_forward(const struct group_norm *norm, struct exec *ex, struct tensor x);

/* silu(group_norm(x)). */
struct tensor group_norm_silu_forward(const struct group_norm *norm, struct exec *ex,
                                      struct tensor x);

/* x = silu(group_norm(x)), for an x that nobody needs again. */
void group_norm_silu_in_place(const struct group_norm *norm, struct exec *ex, struct tensor x);

/* What the norm does to each channel of x, so many pixels stride floats apart: [2, channels] in
 * ex->step. With it the norm can be applied to a part at a time. */
struct tensor group_norm_measure_map(const struct group_norm *norm, struct exec *ex, const float *x,
                                     int64_t stride, int64_t pixels);

/* to [pixels, channels] = silu(norm(from)) for some pixels of that x. */
void group_norm_silu_pixels(const struct group_norm *norm, struct exec *ex, struct tensor measured,
                            const float *from, int64_t stride, float *to, int64_t pixels);

#endif
