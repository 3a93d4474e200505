/* The picture controls equal diffusers' in float32, stage by stage. golden_pictures.py says what a
 * user of diffusers does for each. */
#include "tests/golden/golden_run.h"

static void check_picture(const char *name)
{
    struct json *runs = NULL;
    struct error err;
    struct engine *engine = golden_open_engine(GOLDEN_MODEL);
    REQUIRE(engine != NULL);
    REQUIRE(json_open(&runs, GOLDEN_EXPECTED "pictures.json", &err) == 0);
    const struct json_value *run = json_member(json_root(runs), name);
    REQUIRE(run != NULL);
    struct generation generation = golden_settings(run);
    generation.tile_x = json_truth(json_member(run, "tile_x"));
    generation.tile_y = json_truth(json_member(run, "tile_y"));
    char path[256];
    snprintf(path, sizeof(path), GOLDEN_EXPECTED "picture.%s.safetensors", name);
    struct safetensors *file = golden_open(path);
    REQUIRE(file != NULL);
    const struct safetensors_entry *init = safetensors_find(file, "init_image");
    const struct safetensors_entry *mask = safetensors_find(file, "mask_image");
    struct engine_picture init_image = {0};
    struct engine_mask mask_image = {0};
    if (init != NULL) {
        init_image = (struct engine_picture){(int)init->shape[1], (int)init->shape[0], init->data};
        generation.init_image = &init_image;
        generation.strength = json_real(json_member(run, "strength"));
    }
    if (mask != NULL) {
        mask_image = (struct engine_mask){(int)mask->shape[1], (int)mask->shape[0], mask->data};
        generation.mask_image = &mask_image;
        generation.mask_blur = json_real(json_member(run, "mask_blur"));
    }
    golden_check_run(engine, &generation, path);
    safetensors_close(file);
    json_close(runs);
    engine_close(engine);
}

TEST(pictures_that_tile_in_x_equal_diffusers)
{
    check_picture("tile_x");
}

TEST(pictures_that_tile_in_y_equal_diffusers)
{
    check_picture("tile_y");
}

TEST(pictures_that_tile_in_both_axes_equal_diffusers)
{
    check_picture("tile_xy");
}

TEST(a_picture_of_another_size_is_resized_and_changed_as_diffusers_does_it)
{
    check_picture("img2img");
}

TEST(a_blurred_mask_of_another_size_is_painted_in_as_diffusers_does_it)
{
    check_picture("inpaint");
}

TEST_MAIN()
