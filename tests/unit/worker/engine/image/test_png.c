#include "worker/engine/image/png.h"

#include <png.h>

#include "common/base/panic.h"
#include "tests/harness/test.h"
#include "worker/engine/image/png_read.h"

enum { WIDTH = 5, HEIGHT = 3 };

/* Decode with libpng's own simple reader. */
static bool decode(const uint8_t *bytes, size_t size, uint8_t *rgb)
{
    png_image image = {.version = PNG_IMAGE_VERSION};
    if (!png_image_begin_read_from_memory(&image, bytes, size)) {
        return false;
    }
    image.format = PNG_FORMAT_RGB;
    return image.width == WIDTH && image.height == HEIGHT &&
           png_image_finish_read(&image, NULL, rgb, 0, NULL);
}

static bool contains(const uint8_t *bytes, size_t size, const char *part, size_t length)
{
    for (size_t i = 0; i + length <= size; i++) {
        if (memcmp(bytes + i, part, length) == 0) {
            return true;
        }
    }
    return false;
}

TEST(a_picture_comes_back_pixel_for_pixel_with_its_texts)
{
    uint8_t rgb[WIDTH * HEIGHT * 3], back[sizeof(rgb)];
    for (size_t i = 0; i < sizeof(rgb); i++) {
        rgb[i] = (uint8_t)(i * 37);
    }
    const struct png_text texts[] = {{"parameters", "a sword\nSteps: 20"},
                                     {"comment", "Schwert \xE2\x9A\x94"}};
    uint8_t *bytes = NULL;
    size_t size = 0;
    struct error err;
    REQUIRE(png_encode(rgb, WIDTH, HEIGHT, texts, 2, &bytes, &size, &err) == 0);
    CHECK(decode(bytes, size, back));
    CHECK(memcmp(rgb, back, sizeof(rgb)) == 0);
    CHECK(contains(bytes, size, "tEXtparameters\0a sword\nSteps: 20", 31));
    CHECK(contains(bytes, size, "iTXtcomment\0\0\0\0\0Schwert \xE2\x9A\x94", 27));
    xfree(bytes);
}

TEST(the_same_picture_gives_the_same_bytes)
{
    uint8_t rgb[WIDTH * HEIGHT * 3] = {1, 2, 3};
    uint8_t *one = NULL, *two = NULL;
    size_t one_size = 0, two_size = 0;
    struct error err;
    REQUIRE(png_encode(rgb, WIDTH, HEIGHT, NULL, 0, &one, &one_size, &err) == 0);
    REQUIRE(png_encode(rgb, WIDTH, HEIGHT, NULL, 0, &two, &two_size, &err) == 0);
    CHECK_INT(one_size, two_size);
    CHECK(memcmp(one, two, one_size) == 0);
    xfree(one);
    xfree(two);
}

TEST(sizes_out_of_range_are_refused)
{
    uint8_t *bytes = NULL;
    size_t size = 0;
    struct error err;
    CHECK_INT(png_encode(NULL, 0, 5, NULL, 0, &bytes, &size, &err), STATUS_INVALID);
    CHECK_INT(png_encode(NULL, 5, 70000, NULL, 0, &bytes, &size, &err), STATUS_INVALID);
    CHECK(bytes == NULL);
    CHECK_CONTAINS(err.text, "70000");
}

TEST(a_fast_file_holds_the_same_pixels)
{
    uint8_t rgb[16 * 9 * 3], *bytes = NULL, *read = NULL;
    size_t size = 0;
    int width = 0, height = 0;
    struct error err;
    for (size_t i = 0; i < sizeof(rgb); i++) {
        rgb[i] = (uint8_t)(i * i);
    }
    REQUIRE(png_encode_fast(rgb, 16, 9, &bytes, &size, &err) == 0);
    REQUIRE(png_read_rgb(bytes, size, &width, &height, &read, &err) == 0);
    xfree(bytes);
    CHECK_INT(width, 16);
    CHECK_INT(height, 9);
    CHECK(memcmp(rgb, read, sizeof(rgb)) == 0);
    CHECK_INT(png_encode_fast(rgb, 0, 9, &bytes, &size, &err), STATUS_INVALID);
    xfree(read);
    CHECK(bytes == NULL);
}

TEST_MAIN()
