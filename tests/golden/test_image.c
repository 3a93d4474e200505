/* Resized pictures and blurred masks equal Pillow's, byte for byte. */
#include "tests/golden/golden.h"
#include "worker/engine/image/blur.h"
#include "worker/engine/image/resize.h"

#define FIXTURE GOLDEN_EXPECTED "image.safetensors"

static void check_resize(const struct safetensors *file, const struct safetensors_entry *to)
{
    char name[64];
    size_t count = 0, new_count = 0;
    snprintf(name, sizeof(name), "%.*s.from", (int)(strlen(to->name) - 3), to->name);
    const struct safetensors_entry *from = safetensors_find(file, name);
    REQUIRE(from != NULL);
    uint8_t *pixels = golden_tensor(file, name, SAFETENSORS_U8, &count);
    uint8_t *expected = golden_tensor(file, to->name, SAFETENSORS_U8, &new_count);
    uint8_t *ours = resize_lanczos(pixels, (int)from->shape[1], (int)from->shape[0],
                                   (int)from->shape[2], (int)to->shape[1], (int)to->shape[0]);
    CHECK(memcmp(ours, expected, new_count) == 0);
    xfree(pixels), xfree(expected), xfree(ours);
}

TEST(resized_pictures_equal_pillow_byte_for_byte)
{
    struct safetensors *file = golden_open(FIXTURE);
    REQUIRE(file != NULL);
    int checked = 0;
    for (size_t i = 0; i < safetensors_count(file); i++) {
        const struct safetensors_entry *entry = safetensors_entry_at(file, i);
        if (strncmp(entry->name, "resize.", 7) == 0 && strstr(entry->name, ".to") != NULL) {
            check_resize(file, entry);
            checked++;
        }
    }
    CHECK_INT(checked, 18);
    safetensors_close(file);
}

TEST(blurred_masks_equal_pillow_byte_for_byte)
{
    struct safetensors *file = golden_open(FIXTURE);
    REQUIRE(file != NULL);
    for (int i = 0; i < 7; i++) {
        char to[32], radius[32];
        size_t count = 0, one = 0;
        snprintf(to, sizeof(to), "blur.%d.to", i);
        snprintf(radius, sizeof(radius), "blur.%d.radius", i);
        const struct safetensors_entry *shape = safetensors_find(file, to);
        REQUIRE(shape != NULL);
        uint8_t *mask = golden_tensor(file, "blur.from", SAFETENSORS_U8, &count);
        uint8_t *expected = golden_tensor(file, to, SAFETENSORS_U8, &count);
        float *sigma = golden_tensor(file, radius, SAFETENSORS_F32, &one);
        blur_gaussian(mask, (int)shape->shape[1], (int)shape->shape[0], (double)sigma[0]);
        CHECK(memcmp(mask, expected, count) == 0);
        xfree(mask), xfree(expected), xfree(sigma);
    }
    safetensors_close(file);
}

TEST_MAIN()
