#include "worker/cli/estimate_table.h"

#include <stdio.h>

static double gigabytes(size_t bytes)
{
    return (double)bytes * 1e-9;
}

/* The options that a preset asks for. */
static const char *options_of(const struct engine_preset *preset)
{
    if (preset->precision == ENGINE_PRECISION_INT8) {
        return "--precision int8";
    }
    return preset->storage == ENGINE_STORAGE_F32 ? "--storage f32" : "--storage file";
}

/* "8.61 GB", or the size that would fit. */
static void print_cell(const struct engine_preset *preset, int width, int height)
{
    char text[40];
    if (preset->width == 0) {
        snprintf(text, sizeof(text), "no picture fits");
    } else if (preset->width == width && preset->height == height) {
        snprintf(text, sizeof(text), "%.2f GB", gigabytes(preset->peak));
    } else {
        snprintf(text, sizeof(text), "up to %dx%d", preset->width, preset->height);
    }
    printf("  %-18s", text);
}

static void print_size(const struct engine *engine, int width, int height)
{
    struct engine_preset presets[ENGINE_PRESETS];
    char size[32];
    engine_presets(engine, width, height, presets);
    snprintf(size, sizeof(size), "%dx%d", width, height);
    printf("%-12s", size);
    for (int i = 0; i < ENGINE_PRESETS; i++) {
        if (i % 3 == 0) { /* the qualities of one way take the same */
            print_cell(&presets[i], width, height);
        }
    }
    printf("\n");
}

static void print_qualities(const struct engine *engine, int width, int height)
{
    struct engine_preset presets[ENGINE_PRESETS];
    engine_presets(engine, width, height, presets);
    for (int i = 0; i < ENGINE_PRESETS; i++) {
        const struct engine_preset *preset = &presets[i];
        if (preset->width > 0) {
            printf("%-10s --width %d --height %d --steps %d --guidance %g %s: %.2f GB\n",
                   preset->name, preset->width, preset->height, preset->steps, preset->guidance,
                   options_of(preset), gigabytes(preset->peak));
        }
    }
}

int estimate_table_print(const struct engine *engine, const struct generation *generation,
                         struct error *err)
{
    static const int sizes[][2] = {{512, 512},  {768, 768},   {832, 1216},  {1024, 1024},
                                   {1344, 768}, {1536, 1024}, {1536, 1536}, {2048, 2048}};
    struct engine_estimate estimate;
    int result = engine_estimate(engine, generation, &estimate, err);
    if (result < 0) {
        return result;
    }
    int width = generation->width, height = generation->height;
    printf("%s at %dx%d: %.2f GB (weights %.2f, text %.2f, step %.2f, decode %.2f, others %.2f); "
           "limit %.2f GB\n\n",
           engine_info(engine)->model_name, width, height, gigabytes(estimate.peak),
           gigabytes(estimate.weights), gigabytes(estimate.text), gigabytes(estimate.step),
           gigabytes(estimate.decode), gigabytes(estimate.others), gigabytes(estimate.limit));
    printf("%-12s  %-18s  %-18s  %-18s\n", "size", "storage file", "storage f32", "precision int8");
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        print_size(engine, sizes[i][0], sizes[i][1]);
    }
    printf("\nsafe for %dx%d, any number of steps:\n", width, height);
    print_qualities(engine, width, height);
    return STATUS_OK;
}
