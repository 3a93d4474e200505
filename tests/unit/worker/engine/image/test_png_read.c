#include "worker/engine/image/png_read.h"

#include <png.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/panic.h"
#include "tests/harness/test.h"

#define WIDTH 13
#define HEIGHT 11
#define FILE_MAX 65536

struct file {
    uint8_t bytes[FILE_MAX];
    size_t size;
};

static void put(png_structp png, png_bytep data, size_t length)
{
    struct file *file = png_get_io_ptr(png);
    REQUIRE(file->size + length <= FILE_MAX);
    memcpy(file->bytes + file->size, data, length);
    file->size += length;
}

static void flush(png_structp png)
{
    (void)png;
}

/* The sample of a channel at a pixel: every value of a few bits comes up. */
static unsigned sample(int x, int y, int channel, int depth)
{
    return (unsigned)(x * 37 + y * 101 + channel * 59 + x * y) % (1u << depth);
}

/* A picture of samples in rows as PNG packs them. */
static void fill_row(uint8_t *row, int y, int channels, int depth)
{
    memset(row, 0, (size_t)WIDTH * 8);
    for (int i = 0; i < WIDTH * channels; i++) {
        unsigned value = sample(i / channels, y, i % channels, depth);
        if (depth == 16) {
            row[2 * i] = (uint8_t)(value >> 8), row[2 * i + 1] = (uint8_t)value;
        } else if (depth == 8) {
            row[i] = (uint8_t)value;
        } else {
            int bit = i * depth;
            row[bit / 8] |= (uint8_t)(value << (8 - depth - bit % 8));
        }
    }
}

static int channels_of(int type)
{
    int colours = (type & PNG_COLOR_MASK_COLOR) != 0 && type != PNG_COLOR_TYPE_PALETTE ? 3 : 1;
    return colours + ((type & PNG_COLOR_MASK_ALPHA) != 0 ? 1 : 0);
}

static void write_file(struct file *file, int type, int depth, int interlace)
{
    static uint8_t rows[HEIGHT][WIDTH * 8];
    png_bytep pointers[HEIGHT];
    file->size = 0;
    png_structp png = png_create_write_struct(PNG_LIBPNG_VER_STRING, NULL, NULL, NULL);
    png_infop info = png_create_info_struct(png);
    png_set_write_fn(png, file, put, flush);
    png_set_IHDR(png, info, WIDTH, HEIGHT, depth, type, interlace, PNG_COMPRESSION_TYPE_DEFAULT,
                 PNG_FILTER_TYPE_DEFAULT);
    if (type == PNG_COLOR_TYPE_PALETTE) {
        png_color colours[256];
        png_byte alpha[2] = {0, 128};
        for (int i = 0; i < 1 << depth; i++) {
            colours[i] = (png_color){(png_byte)(i * 3), (png_byte)(255 - i), (png_byte)(i ^ 85)};
        }
        png_set_PLTE(png, info, colours, 1 << depth);
        png_set_tRNS(png, info, alpha, 2, NULL);
    }
    for (int y = 0; y < HEIGHT; y++) {
        fill_row(rows[y], y, channels_of(type), depth);
        pointers[y] = rows[y];
    }
    png_set_rows(png, info, pointers);
    png_write_png(png, info, PNG_TRANSFORM_IDENTITY, NULL);
    png_destroy_write_struct(&png, &info);
}

static unsigned to_byte(unsigned value, int depth)
{
    return depth == 16 ? value >> 8 : value * 255 / ((1u << depth) - 1);
}

/* What the pixel looks like by the rules of the format: RGBA. */
static void expected_pixel(int type, int depth, int x, int y, unsigned rgba[4])
{
    int channels = channels_of(type);
    unsigned first = sample(x, y, 0, depth);
    rgba[3] = 255;
    if (type == PNG_COLOR_TYPE_PALETTE) {
        rgba[0] = (first * 3) & 255, rgba[1] = 255 - first, rgba[2] = first ^ 85;
        rgba[3] = first == 0 ? 0 : first == 1 ? 128 : 255;
        return;
    }
    for (int c = 0; c < 3; c++) {
        rgba[c] = to_byte(channels >= 3 ? sample(x, y, c, depth) : first, depth);
    }
    if (channels % 2 == 0) {
        rgba[3] = to_byte(sample(x, y, channels - 1, depth), depth);
    }
}

static void check_pixels(int type, int depth, const uint8_t *rgb, const uint8_t *gray)
{
    bool has_alpha = type == PNG_COLOR_TYPE_PALETTE || channels_of(type) % 2 == 0;
    for (int i = 0; i < WIDTH * HEIGHT; i++) {
        unsigned rgba[4];
        expected_pixel(type, depth, i % WIDTH, i / WIDTH, rgba);
        for (int c = 0; c < 3; c++) {
            double seen = (rgba[c] * rgba[3] + 255.0 * (255 - rgba[3])) / 255.0;
            CHECK_NEAR(rgb[3 * i + c], seen, 0.51);
        }
        double brightness = 0.299 * rgba[0] + 0.587 * rgba[1] + 0.114 * rgba[2];
        CHECK_NEAR(gray[i], has_alpha ? rgba[3] : brightness, 0.51);
    }
}

TEST(every_kind_of_png_becomes_rgb_on_white_and_a_mask)
{
    static const struct {
        int type, depths[6];
    } kinds[] = {{PNG_COLOR_TYPE_GRAY, {1, 2, 4, 8, 16}},
                 {PNG_COLOR_TYPE_PALETTE, {1, 2, 4, 8}},
                 {PNG_COLOR_TYPE_RGB, {8, 16}},
                 {PNG_COLOR_TYPE_GRAY_ALPHA, {8, 16}},
                 {PNG_COLOR_TYPE_RGB_ALPHA, {8, 16}}};
    static struct file file;
    struct error err;
    for (int i = 0; i < 5 * 2 * 5; i++) {
        int type = kinds[i / 10].type, depth = kinds[i / 10].depths[i % 5];
        if (depth == 0) {
            continue;
        }
        write_file(&file, type, depth, i / 5 % 2 == 0 ? PNG_INTERLACE_NONE : PNG_INTERLACE_ADAM7);
        int width = 0, height = 0;
        uint8_t *rgb = NULL, *gray = NULL;
        REQUIRE(png_read_rgb(file.bytes, file.size, &width, &height, &rgb, &err) == 0);
        CHECK_INT(width, WIDTH);
        CHECK_INT(height, HEIGHT);
        REQUIRE(png_read_mask(file.bytes, file.size, &width, &height, &gray, &err) == 0);
        check_pixels(type, depth, rgb, gray);
        xfree(rgb), xfree(gray);
    }
}

TEST(a_damaged_file_is_refused_wherever_it_is_cut)
{
    static struct file file;
    struct error err;
    write_file(&file, PNG_COLOR_TYPE_RGB, 8, PNG_INTERLACE_NONE);
    int width = 0, height = 0;
    uint8_t *rgb = NULL;
    for (size_t size = 0; size < file.size; size++) {
        uint8_t *cut = malloc(size + 1); /* so that a sanitizer sees a read past the end */
        memcpy(cut, file.bytes, size);
        CHECK_INT(png_read_rgb(cut, size, &width, &height, &rgb, &err), STATUS_CORRUPT);
        CHECK(rgb == NULL);
        free(cut);
    }
    CHECK_INT(png_read_size((const uint8_t *)"GIF89a..", 8, &width, &height, &err), STATUS_CORRUPT);
    CHECK_STR(err.text, "not a PNG file (only PNG is read)");
}

/* Put other sizes into the header, with the checksum that belongs to them. */
static void claim(struct file *file, uint32_t width, uint32_t height)
{
    write_file(file, PNG_COLOR_TYPE_RGB, 8, PNG_INTERLACE_NONE);
    for (int i = 0; i < 4; i++) {
        file->bytes[16 + i] = (uint8_t)(width >> (24 - 8 * i));
        file->bytes[20 + i] = (uint8_t)(height >> (24 - 8 * i));
    }
    uint32_t crc = 0xffffffff;
    for (size_t i = 12; i < 29; i++) {
        crc ^= file->bytes[i];
        for (int bit = 0; bit < 8; bit++) {
            crc = crc >> 1 ^ ((crc & 1) != 0 ? 0xedb88320u : 0);
        }
    }
    for (int i = 0; i < 4; i++) {
        file->bytes[29 + i] = (uint8_t)(~crc >> (24 - 8 * i));
    }
}

TEST(what_a_file_claims_is_not_believed)
{
    static struct file file;
    static const struct {
        uint32_t width, height;
        int status;
        const char *text;
    } cases[] = {{4000, 4000, STATUS_CORRUPT, "cannot be as short as"},
                 {16385, 1, STATUS_TOO_LARGE, "at most 16384 a side"},
                 {16384, 16384, STATUS_TOO_LARGE, "33554432 in all"},
                 {0x7fffffff, 0x7fffffff, STATUS_TOO_LARGE, "at most 16384 a side"},
                 {0, 5, STATUS_CORRUPT, "damaged"}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct error err = {.text = ""};
        int width = 0, height = 0;
        claim(&file, cases[i].width, cases[i].height);
        CHECK_INT(png_read_size(file.bytes, file.size, &width, &height, &err), cases[i].status);
        CHECK(strstr(err.text, cases[i].text) != NULL);
    }
}

TEST_MAIN()
