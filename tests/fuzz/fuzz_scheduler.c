/* Any scheduler config with any settings: refused in words, or a run of it that ends. The first
 * bytes are the settings, the rest is the config's JSON. */
#include <math.h>
#include <string.h>

#include "common/base/panic.h"
#include "tests/fuzz/fuzz.h"
#include "worker/engine/schedulers/sampler_names.h"
#include "worker/engine/schedulers/scheduler.h"

#define SETTINGS_SIZE 8
#define VALUES 2

static const char *pick(const char *const *names, uint8_t byte)
{
    size_t count = 0;
    while (names[count] != NULL) {
        count++;
    }
    return byte % (count + 1) < count ? names[byte % (count + 1)] : NULL;
}

static struct scheduler_settings read_settings(const uint8_t *data)
{
    static const char *const spacings[] = {"leading", "trailing", "linspace", "odd", NULL};
    return (struct scheduler_settings){
        .steps = data[1] * 4 + data[2] % 4,
        .begin = data[3] * data[3] / 64,
        .sigmas = pick(scheduler_sigmas(), data[4]),
        .timestep_spacing = pick(spacings, data[5]),
        .strength = data[7] / 4 / 60.0,
        .has_mask = data[7] / 2 % 2 == 0,
        .eta = data[6] % 2 == 0 ? 0.0 : data[6] / 200.0,
    };
}

static void run(struct scheduler *scheduler, struct arena *arena)
{
    float sample[VALUES] = {1.0F, -0.5F}, noise[VALUES] = {0.25F, 1.0F}, other[VALUES];
    const float output[VALUES] = {0.5F, 0.125F};
    scheduler_begin(scheduler, arena, VALUES);
    ASSERT(scheduler_count(scheduler) > 0);
    for (int i = 0; i < scheduler_count(scheduler); i++) {
        ASSERT(isfinite(scheduler_timestep(scheduler, i)));
        scheduler_scale_input(scheduler, i, sample, other, VALUES);
        scheduler_add_noise(scheduler, i, sample, noise, other, VALUES);
        scheduler_denoised(scheduler, i, output, sample, other, VALUES);
        scheduler_step(scheduler, i, output, sample,
                       scheduler_needs_noise(scheduler, i) ? noise : NULL, VALUES);
    }
    arena_release(arena, 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct arena *arena;
    struct error err;
    struct json *json = NULL;
    struct scheduler *scheduler = NULL;
    if (size < SETTINGS_SIZE) {
        return -1;
    }
    if (arena == NULL && arena_create(&arena, "fuzz", 1 << 20, &err) < 0) {
        return 0;
    }
    const char *text = (const char *)data + SETTINGS_SIZE, *name = pick(scheduler_names(), data[0]);
    const struct scheduler_choice choice = {.name = name, .is_repaired = data[7] % 2 == 0};
    const struct scheduler_settings settings = read_settings(data);
    if (json_parse(&json, "config", text, size - SETTINGS_SIZE, &err) == STATUS_OK &&
        scheduler_open(&scheduler, json, &choice, &err) == STATUS_OK) {
        int checked = scheduler_check(scheduler, &settings, &err);
        ASSERT(scheduler_set(scheduler, &settings, &err) == checked);
        if (checked == STATUS_OK) {
            run(scheduler, arena);
        }
    }
    scheduler_close(scheduler);
    json_close(json);
    return 0;
}
