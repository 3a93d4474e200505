#include "worker/engine/pipeline/model_cache.h"

#include <stdio.h>

#include "common/base/panic.h"
#include "worker/engine/kernels/conv_reduced.h"
#include "worker/engine/kernels/gemm.h"
#include "worker/engine/kernels/product.h"
#include "worker/engine/layers/loader.h"
#include "worker/engine/pipeline/precision.h"
#include "worker/engine/weights/model_digest.h"

/* Everything that decides a byte of what is packed. */
static void describe(const struct engine_options *options, const struct arithmetics *arithmetics,
                     const char *model, const char *vae, char identity[WEIGHT_CACHE_IDENTITY_MAX])
{
    int length = snprintf(identity, WEIGHT_CACHE_IDENTITY_MAX,
                          "model %s; vae %s; storage %s; %s %s %s; %s; product %d; conv %d; %.99s",
                          model, vae, options->storage == ENGINE_STORAGE_F32 ? "f32" : "file",
                          precision_name(arithmetics->unet), precision_name(arithmetics->fine),
                          precision_name(arithmetics->vae), LOADER_F32_LAYOUT,
                          PRODUCT_LAYOUT_VERSION, CONV_REDUCED_LAYOUT_VERSION, gemm_library());
    ASSERT(length > 0 && length < WEIGHT_CACHE_IDENTITY_MAX);
}

struct weight_cache *model_cache_open(const struct engine_options *options,
                                      const struct arithmetics *arithmetics)
{
    char model[MODEL_DIGEST_SIZE], vae[MODEL_DIGEST_SIZE] = "own";
    char identity[WEIGHT_CACHE_IDENTITY_MAX];
    struct error err;
    bool has_vae = options->vae_path != NULL && *options->vae_path != '\0';
    bool packs = options->storage == ENGINE_STORAGE_F32 || arithmetics->unet != ARITHMETIC_F32 ||
                 arithmetics->fine != ARITHMETIC_F32 || arithmetics->vae != ARITHMETIC_F32;
    if (!packs || options->cache_folder == NULL || *options->cache_folder == '\0' ||
        model_digest(options->model_path, model, &err) < 0 ||
        (has_vae && model_digest(options->vae_path, vae, &err) < 0)) {
        return NULL;
    }
    describe(options, arithmetics, model, vae, identity);
    return weight_cache_open(options->cache_folder, identity, options->cache_limit);
}
