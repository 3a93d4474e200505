#include "gateway/inputs.h"

#include <string.h>

#include "tests/harness/test.h"

TEST(the_size_of_a_png_is_read_from_its_header)
{
    static const unsigned char png[] = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n', 0, 0, 0, 13,
                                        'I',  'H', 'D', 'R', 0,    0,    1,    0x80, 0, 0, 2, 0};
    uint32_t width = 0, height = 0;
    CHECK(inputs_png_size(png, sizeof(png), &width, &height));
    CHECK_INT(width, 0x180);
    CHECK_INT(height, 0x200);
    for (size_t size = 0; size < sizeof(png); size++) {
        CHECK(!inputs_png_size(png, size, &width, &height));
    }
    for (size_t i = 0; i < 16; i++) {
        unsigned char damaged[sizeof(png)];
        memcpy(damaged, png, sizeof(png));
        damaged[i] ^= 1;
        CHECK(!inputs_png_size(damaged, sizeof(damaged), &width, &height));
    }
}

TEST_MAIN()
