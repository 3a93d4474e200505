/* Any JSON as the config of a component: the first byte says of which. Refused in words, or within
 * the limits that loading relies on. */
#include <string.h>

#include "common/base/panic.h"
#include "tests/fuzz/fuzz.h"
#include "worker/engine/models/clip_text.h"
#include "worker/engine/models/unet_config.h"
#include "worker/engine/models/vae_config.h"
#include "worker/engine/schedulers/scheduler.h"

static int read_unet(struct json *json, struct error *err)
{
    struct unet_config config;
    int result = unet_config_read(&config, json, err);
    for (int i = 0; result == STATUS_OK && i < config.blocks; i++) {
        ASSERT(config.blocks <= UNET_BLOCKS_MAX && config.block_out_channels[i] > 0);
        ASSERT(config.layers_per_block[i] >= 1 && config.layers_per_block[i] <= UNET_LAYERS_MAX);
    }
    return result;
}

static int read_vae(struct json *json, struct error *err)
{
    struct vae_config config;
    int result = vae_config_read(&config, json, err);
    ASSERT(result < 0 || (config.latent_channels >= 1 && config.factor >= 1));
    return result;
}

static int read_text(struct json *json, struct error *err)
{
    struct clip_text_config config;
    int result = clip_text_config_read(&config, json, err);
    ASSERT(result < 0 || config.hidden_size % config.num_attention_heads == 0);
    return result;
}

/* A scheduler by each name and by the config's own, with a few steps. */
static void open_schedulers(const char *text, size_t size)
{
    const char *const *names = scheduler_names();
    for (int i = -1; i < 0 || names[i] != NULL; i++) {
        struct error err;
        struct json *json = NULL;
        struct scheduler *scheduler = NULL;
        struct scheduler_settings settings = {.steps = 3, .has_mask = size % 2 == 0};
        const struct scheduler_choice choice = {.name = i < 0 ? NULL : names[i],
                                                .is_repaired = true};
        if (json_parse(&json, "scheduler", text, size, &err) == STATUS_OK &&
            scheduler_open(&scheduler, json, &choice, &err) == STATUS_OK &&
            scheduler_check(scheduler, &settings, &err) == STATUS_OK &&
            scheduler_set(scheduler, &settings, &err) == STATUS_OK) {
            for (int step = 0; step < scheduler_count(scheduler); step++) {
                (void)scheduler_timestep(scheduler, step);
            }
        }
        scheduler_close(scheduler);
        json_close(json);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static int (*const readers[])(struct json * json, struct error * err) = {read_unet, read_vae,
                                                                             read_text};
    struct error err;
    struct json *json = NULL;
    if (size == 0) {
        return -1;
    }
    const char *text = (const char *)data + 1;
    if (data[0] % 4 == 3) {
        open_schedulers(text, size - 1);
    } else if (json_parse(&json, "config.json", text, size - 1, &err) == STATUS_OK &&
               readers[data[0] % 4](json, &err) < 0) {
        ASSERT(strstr(err.text, "config.json") != NULL);
    }
    json_close(json);
    return 0;
}
