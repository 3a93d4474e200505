#include "worker/engine/models/autoencoder_tiny.h"

#include <math.h>
#include <string.h>

#include "common/base/panic.h"
#include "worker/engine/kernels/activation.h"
#include "worker/engine/kernels/elementwise.h"

/* ---- Weights --------------------------------------------------------------------------------- */

/* "decoder.layers" and the number of the next one: the modules have no names but their places, and
 * those without weights (activations, enlargements) have places too. */
struct places {
    const char *half;
    int next;
};

static struct weight_name place(struct places *places)
{
    return weight_name(places->half, "layers.%d", places->next++);
}

static void load_stage(struct tiny_stage *stage, struct loader *loader, struct places *places,
                       int count, int width)
{
    stage->count = count;
    for (int i = 0; i < count; i++) {
        struct tiny_block *block = &stage->blocks[i];
        struct weight_name prefix = place(places);
        conv_load(&block->conv0, loader, weight_name(prefix.text, "conv.0").text, width, width, 1);
        conv_load(&block->conv2, loader, weight_name(prefix.text, "conv.2").text, width, width, 1);
        conv_load(&block->conv4, loader, weight_name(prefix.text, "conv.4").text, width, width, 1);
    }
}

static void load_encoder(struct tiny_encoder *encoder, struct loader *loader,
                         const struct vae_config *config)
{
    struct places places = {.half = "encoder"};
    int width = config->encoder_width;
    conv_load(&encoder->conv_in, loader, place(&places).text, config->in_channels, width, 1);
    for (int i = 0; i < config->stages; i++) {
        if (i > 0) {
            conv_load_unbiased(&encoder->halving[i], loader, place(&places).text, width, width, 2);
        }
        load_stage(&encoder->stages[i], loader, &places, config->encoder_blocks[i], width);
    }
    conv_load(&encoder->conv_out, loader, place(&places).text, width, config->latent_channels, 1);
}

static void load_decoder(struct tiny_decoder *decoder, struct loader *loader,
                         const struct vae_config *config)
{
    struct places places = {.half = "decoder"};
    int width = config->decoder_width;
    conv_load(&decoder->conv_in, loader, place(&places).text, config->latent_channels, width, 1);
    places.next++; /* its ReLU */
    for (int i = 0; i < config->stages; i++) {
        load_stage(&decoder->stages[i], loader, &places, config->decoder_blocks[i], width);
        if (i < config->stages - 1) {
            places.next++; /* Upsample */
            conv_load_unbiased(&decoder->doubling[i].conv, loader, place(&places).text, width,
                               width, 1);
        }
    }
    conv_load(&decoder->conv_out, loader, place(&places).text, width, config->out_channels, 1);
}

void autoencoder_tiny_load(struct autoencoder_tiny *vae, struct loader *loader,
                           const struct vae_config *config)
{
    memset(vae, 0, sizeof(*vae));
    vae->config = *config;
    load_encoder(&vae->encoder, loader, config);
    load_decoder(&vae->decoder, loader, config);
}

/* ---- Forward --------------------------------------------------------------------------------- */

static void relu_in_place(struct exec *ex, struct tensor x)
{
    activation_run(ex->pool, ACTIVATION_RELU, x.data, tensor_count(x));
}

/* False when told to stop, which is asked before each block. */
static bool stage_in_place(const struct tiny_stage *stage, struct exec *ex, struct tensor x,
                           struct vae_progress *progress)
{
    for (int i = 0; i < stage->count; i++) {
        const struct tiny_block *block = &stage->blocks[i];
        if (!vae_progress_go_on(progress)) {
            return false;
        }
        size_t mark = arena_mark(ex->step);
        struct tensor h = conv_forward(&block->conv0, ex, x); /* [n, h, w, width] */
        relu_in_place(ex, h);
        h = conv_forward(&block->conv2, ex, h);
        relu_in_place(ex, h);
        conv_add(&block->conv4, ex, h, x);
        relu_in_place(ex, x);
        arena_release(ex->step, mark);
    }
    return true;
}

static int count_blocks(const int *blocks, int stages)
{
    int count = 0;
    for (int i = 0; i < stages; i++) {
        count += blocks[i];
    }
    return count;
}

/* 3 tanh(z / 3): latents are held within what the decoder was trained on. */
static struct tensor hold(struct exec *ex, struct tensor z)
{
    struct tensor held = tensor_like(ex->step, z, z.shape[3]);
    for (int64_t i = 0; i < tensor_count(z); i++) {
        held.data[i] = tanhf(z.data[i] / 3.0f) * 3.0f;
    }
    return held;
}

int autoencoder_tiny_steps(const struct autoencoder_tiny *vae)
{
    return count_blocks(vae->config.decoder_blocks, vae->config.stages);
}

bool autoencoder_tiny_decode(const struct autoencoder_tiny *vae, struct exec *ex, struct tensor z,
                             struct vae_progress *progress, struct tensor image)
{
    const struct tiny_decoder *decoder = &vae->decoder;
    size_t begin = arena_mark(ex->step);
    profile_part(ex->profile, "vae.decoder.conv_in");
    struct tensor held = hold(ex, z);
    struct tensor x = conv_forward(&decoder->conv_in, ex, held); /* [1, h, w, width] */
    relu_in_place(ex, x);
    for (int i = 0; i < vae->config.stages; i++) {
        profile_part(ex->profile, "vae.decoder.stage.%d", i);
        if (!stage_in_place(&decoder->stages[i], ex, x, progress)) {
            return false;
        }
        if (i < vae->config.stages - 1) {
            x = upsample_double_in_place(&decoder->doubling[i], ex, x);
        }
    }
    profile_part(ex->profile, "vae.decoder.conv_out");
    conv_forward_into(&decoder->conv_out, ex, x, image);
    elementwise_affine(ex->pool, 2.0f, -1.0f, image.data, image.data, tensor_count(image));
    profile_part(ex->profile, NULL);
    arena_release(ex->step, begin);
    return true;
}

bool autoencoder_tiny_encode(const struct autoencoder_tiny *vae, struct exec *ex,
                             struct tensor image, vae_continue go_on, void *user,
                             struct tensor *latents)
{
    const struct vae_config *config = &vae->config;
    const struct tiny_encoder *encoder = &vae->encoder;
    struct vae_progress progress = {.go_on = go_on, .user = user};
    progress.steps = count_blocks(config->encoder_blocks, config->stages);
    ASSERT(image.shape[1] % config->factor == 0 && image.shape[2] % config->factor == 0);
    *latents = tensor_4d(ex->step, image.shape[0], image.shape[1] / config->factor,
                         image.shape[2] / config->factor, config->latent_channels);
    size_t begin = arena_mark(ex->step);
    struct tensor unit = tensor_like(ex->step, image, image.shape[3]); /* in [0, 1] */
    elementwise_affine(ex->pool, 0.5f, 0.5f, image.data, unit.data, tensor_count(image));
    size_t mark = arena_mark(ex->step);
    struct tensor x = conv_forward(&encoder->conv_in, ex, unit); /* [n, h, w, width] */
    for (int i = 0; i < config->stages; i++) {
        if (i > 0) {
            x = tensor_settle(ex->step, mark, conv_forward(&encoder->halving[i], ex, x));
        }
        if (!stage_in_place(&encoder->stages[i], ex, x, &progress)) {
            return false;
        }
    }
    conv_forward_into(&encoder->conv_out, ex, x, *latents);
    arena_release(ex->step, begin);
    return vae_progress_go_on(&progress);
}
