/* Any tensors as a checkpoint: refused in words, or a model whose configs are read without a fault
 * and whose every weight lies inside the file. */
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/fuzz_tensors.h"
#include "worker/engine/checkpoint/checkpoint.h"
#include "worker/engine/models/clip_text.h"
#include "worker/engine/models/unet_config.h"
#include "worker/engine/models/vae_config.h"

static const char *const components[] = {"unet", "vae", "text_encoder", "text_encoder_2"};

/* What is written must be JSON; a config may still be refused for its values. */
static void read_config(const struct checkpoint *checkpoint, int i)
{
    struct error err;
    struct json *json = NULL;
    struct unet_config unet;
    struct vae_config vae;
    struct clip_text_config text;
    int result = checkpoint_config(checkpoint, components[i], &json, &err);
    if (result < 0) {
        ASSERT(i == 3 && err.status == STATUS_NOT_FOUND);
        return;
    }
    result = i == 0   ? unet_config_read(&unet, json, &err)
             : i == 1 ? vae_config_read(&vae, json, &err)
                      : clip_text_config_read(&text, json, &err);
    ASSERT(result == STATUS_OK || err.text[0] != '\0');
    json_close(json);
}

static void read_weights(const struct checkpoint *checkpoint, int i)
{
    struct error err;
    struct weights *weights = NULL;
    struct weight_view view;
    if (checkpoint_weights(checkpoint, components[i], &weights, &err) == STATUS_OK) {
        if (weights_take(weights, "text_projection.weight", 2, (int64_t[]){16, 8}, &view)) {
            float values[128];
            weights_to_f32(view, values);
        }
        (void)!weights_finish(weights, &err);
    }
    weights_close(weights);
}

/* The same tensors as a file that is wanted for its VAE. */
static void read_vae_alone(const char *path)
{
    struct error err;
    struct checkpoint *checkpoint = NULL;
    if (checkpoint_open_vae(&checkpoint, path, &err) == STATUS_OK) {
        read_config(checkpoint, 1);
        read_weights(checkpoint, 1);
    } else {
        ASSERT(strstr(err.text, path) != NULL);
    }
    checkpoint_close(checkpoint);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct error err;
    struct json *json = NULL;
    struct fuzz_tensors file;
    struct checkpoint *checkpoint = NULL;
    if (!fuzz_tensors_open(&file, data, size)) {
        return -1;
    }
    if (checkpoint_open(&checkpoint, file.path, &err) < 0) {
        ASSERT(strstr(err.text, file.path) != NULL);
    } else {
        ASSERT(checkpoint_config(checkpoint, "", &json, &err) == STATUS_OK);
        json_close(json);
        ASSERT(checkpoint_config(checkpoint, "scheduler", &json, &err) == STATUS_OK);
        json_close(json);
        for (int i = 0; i < 4; i++) {
            read_config(checkpoint, i);
            read_weights(checkpoint, i);
        }
    }
    checkpoint_close(checkpoint);
    read_vae_alone(file.path);
    fuzz_tensors_close(&file);
    return 0;
}
