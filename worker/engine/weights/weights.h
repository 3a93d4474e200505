/* The weights of one component of a model folder (unet, vae, text_encoder …), as named, checked
 * tensors.
 *
 * Loading a layer takes tensors by name with the shape that the config implies. A tensor that is
 * missing or different is recorded and the load goes on, so that weights_finish can name, in one
 * error, everything that is missing, everything that has another shape or type, and everything in
 * the file that no layer asked for: a config that does not fit its weights is never half-used.
 *
 * Data stays mapped in its own precision; nothing is copied or converted here.
 */
#ifndef WORKER_ENGINE_WEIGHTS_WEIGHTS_H
#define WORKER_ENGINE_WEIGHTS_WEIGHTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/error.h"
#include "worker/engine/tensor/stored.h"

#define WEIGHT_RANK_MAX 4

struct weights;

struct weight_view {
    const void *data; /* count elements, row-major; may be misaligned: see weights_f32_in_place */
    enum dtype dtype;
    size_t count;
    int rank;
    int64_t shape[WEIGHT_RANK_MAX];
};

/* Open the weights in component_dir: one file, or the shards named by *.safetensors.index.json.
 * The first of these that exists, with NAME diffusion_pytorch_model, then model:
 *   NAME.safetensors  NAME.safetensors.index.json
 *   NAME.V.safetensors  NAME.safetensors.index.V.json  NAME.V.safetensors.index.json
 * with the variant V fp16, bf16, fp32, ema or non_ema, the first that is there.
 * Fails with one error that names file and problems when a file is damaged (see safetensors.h),
 * a shard is missing, a tensor is in two shards or not in the shard that the index names.
 * Free with weights_close. */
int weights_open(struct weights **out, const char *component_dir, struct error *err) MUST_CHECK;

struct safetensors;
struct safetensors_entry;

/* Weights of some tensors of a file that holds more than one component, under names of the caller's
 * choice. The file, names and data stay the caller's and must outlive the weights; the entries are
 * copied. STATUS_CORRUPT when two have the same name. Free with weights_close. */
int weights_create(struct weights **out, const struct safetensors *file,
                   const struct safetensors_entry *entries, size_t count,
                   struct error *err) MUST_CHECK;

/* Accepts NULL. Views die with the weights. */
void weights_close(struct weights *weights);

/* Give back the memory of what was read so far; the data stays mapped and comes back from the
 * system's cache when it is read again. For after a copy was made of most of it, or for a while in
 * which others need the memory. From the thread that reads the weights. */
void weights_drop_pages(const struct weights *weights);

/* The same for one tensor's data, or a part of it. */
void weights_drop_data(const struct weights *weights, const void *data, size_t size);

/* The file (or index file) that was opened, for messages. */
const char *weights_path(const struct weights *weights);

/* Is there a tensor of this name? For architecture that the weights decide. Takes nothing. */
bool weights_has(const struct weights *weights, const char *name);

/* Take the tensor name with exactly this shape and a floating-point type. Returns false, with
 * *out zeroed, when it is missing or different; weights_finish then fails. */
bool weights_take(struct weights *weights, const char *name, int rank, const int64_t *shape,
                  struct weight_view *out);

/* 0 when every tensor asked for was there and every tensor there was taken ("*.position_ids"
 * buffers and "logit_scale", which old folders carry, are ignored); else STATUS_INVALID, with the
 * file and every missing, different and surplus tensor. */
int weights_finish(const struct weights *weights, struct error *err) MUST_CHECK;

/* The entry as a view; false when it is not f32, f16 or bf16 or has too many dimensions. */
bool weights_view_of(const struct safetensors_entry *entry, struct weight_view *out);

/* out[0..view.count) in float; f16 and bf16 convert exactly, subnormals, infinities and NaN
 * included. */
void weights_to_f32(struct weight_view view, float *out);

/* The mapped data itself when it is f32 and aligned, else NULL. */
const float *weights_f32_in_place(struct weight_view view);

#endif
