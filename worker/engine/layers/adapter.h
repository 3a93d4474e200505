/* Low-rank adapters (LoRA, Hu et al. 2021): a layer computes y = W x + scale * up(down(x)), where
 * down leads to a few channels and up back.
 *
 * The side path is computed beside the layer, never added to its weights: a layer without adapters
 * gives bit for bit what it gave before it had any, whatever precision its weights are kept in. The
 * cost is about rank / width of the layer's own product. It is what diffusers computes with PEFT
 * when nothing is fused.
 *
 * Matrices stay in the adapter's file, in its precision, and are converted when they are used: they
 * are small beside the product, and an open adapter then takes no memory of its own.
 */
#ifndef WORKER_ENGINE_LAYERS_ADAPTER_H
#define WORKER_ENGINE_LAYERS_ADAPTER_H

#include "worker/engine/kernels/conv2d.h"
#include "worker/engine/layers/exec.h"
#include "worker/engine/tensor/stored.h"
#include "worker/engine/tensor/tensor.h"

/* One layer's matrices. Shapes were checked against the layer when the file was opened. */
struct low_rank {
    int64_t rank;
    struct stored down; /* [rank, channels_in], or [rank, channels_in, k, k] without mid */
    struct stored mid;  /* [rank, rank, k, k] of a convolution in three factors; else no data */
    struct stored up;   /* [channels_out, rank] */
    float scale;        /* alpha / rank */
};

/* A layer's adapters, in the order in which they were asked for. */
struct adapter {
    const struct adapter *next;
    const struct low_rank *change;
    float weight; /* what the request gives this adapter */
};

/* y [..., channels_out] += every adapter of the list for x [..., channels_in]; NULL is none. x and
 * y do not overlap. */
void adapter_linear_add(const struct adapter *adapters, struct exec *ex, struct tensor x,
                        struct tensor y);

/* The same beside a convolution of the given shape, over its x and y. */
void adapter_conv_add(const struct adapter *adapters, struct exec *ex, const struct conv2d *shape,
                      const float *x, float *y);

#endif
