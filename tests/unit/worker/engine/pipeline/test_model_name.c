#include "worker/engine/pipeline/model_name.h"

#include <unistd.h>

#include "tests/harness/test.h"
#include "tests/support/scratch.h"

static const char *name_of(const char *path)
{
    static char name[128];
    model_name_of(path, name, sizeof(name));
    return name;
}

TEST(a_model_has_the_last_part_of_its_path_as_its_name)
{
    CHECK_STR(name_of("/models/sdxl"), "sdxl");
    CHECK_STR(name_of("models/sdxl//"), "sdxl");
    CHECK_STR(name_of("a v1.5.safetensors"), "a v1.5");
    CHECK_STR(name_of(".safetensors"), ".safetensors");
    CHECK_STR(name_of("/"), "");
    char small[4];
    model_name_of("models/sdxl", small, sizeof(small));
    CHECK_STR(small, "sdx");
}

TEST(a_link_is_called_as_it_is_given)
{
    struct scratch scratch;
    char blob[PATH_MAX], file[PATH_MAX];
    scratch_create(&scratch);
    snprintf(blob, sizeof(blob), "%s", scratch_text(&scratch, "blobs/0a1b2c", ""));
    snprintf(file, sizeof(file), "%s",
             scratch_path(&scratch, "models--o--repo/snapshots/9f/turbo.safetensors"));
    CHECK_INT(symlink(blob, file), 0);
    CHECK_STR(name_of(file), "turbo");
    scratch_remove(&scratch);
}

TEST(a_path_that_names_nothing_is_followed)
{
    struct scratch scratch;
    char here[PATH_MAX];
    scratch_create(&scratch);
    (void)scratch_path(&scratch, "pony/unet/x");
    REQUIRE(getcwd(here, sizeof(here)) != NULL);
    REQUIRE(chdir(scratch_path(&scratch, "pony/unet")) == 0);
    CHECK_STR(name_of("."), "unet");
    CHECK_STR(name_of(".."), "pony");
    CHECK_STR(name_of("../"), "pony");
    CHECK_INT(chdir(here), 0);
    scratch_remove(&scratch);
}

TEST(a_snapshot_in_a_hugging_face_cache_has_its_repositorys_name)
{
    struct scratch scratch;
    char folder[PATH_MAX], link[PATH_MAX];
    scratch_create(&scratch);
    (void)scratch_path(&scratch, "models--stabilityai--sdxl-turbo/snapshots/71153311/unet");
    snprintf(folder, sizeof(folder), "%s",
             scratch_path(&scratch, "models--stabilityai--sdxl-turbo/snapshots/71153311"));
    CHECK_STR(name_of(folder), "sdxl-turbo");
    snprintf(link, sizeof(link), "%s", scratch_path(&scratch, "mine"));
    CHECK_INT(symlink(folder, link), 0);
    CHECK_STR(name_of(link), "mine");
    CHECK_STR(name_of("/x/models--tiny/snapshots/0a"), "tiny"); /* also where nothing is */
    CHECK_STR(name_of("/x/others--tiny/snapshots/0a"), "0a");
    scratch_remove(&scratch);
}

TEST_MAIN()
