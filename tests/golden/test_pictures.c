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
    golden_check_run(engine, &generation, path);
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

TEST_MAIN()
