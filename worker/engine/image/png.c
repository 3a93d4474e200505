#include "worker/engine/image/png.h"

#include <png.h>
#include <stdbool.h>
#include <string.h>

#include "common/base/panic.h"

/* PNG's own limit for a side is 2^31 - 1; ours keeps every size far from overflow. */
#define SIDE_MAX 65535

struct output {
    uint8_t *bytes;
    size_t size, capacity;
    char message[256]; /* libpng's, when it gave up */
};

static void write_bytes(png_structp png, png_bytep data, size_t length)
{
    struct output *output = png_get_io_ptr(png);
    if (output->size + length > output->capacity) {
        output->capacity = 2 * (output->size + length);
        output->bytes = xrealloc(output->bytes, output->capacity);
    }
    memcpy(output->bytes + output->size, data, length);
    output->size += length;
}

static void flush_bytes(png_structp png)
{
    (void)png;
}

static void on_error(png_structp png, png_const_charp message)
{
    struct output *output = png_get_error_ptr(png);
    strncpy(output->message, message, sizeof(output->message) - 1);
    png_longjmp(png, 1);
}

static void on_warning(png_structp png, png_const_charp message)
{
    (void)png, (void)message;
}

/* tEXt is Latin-1; beyond ASCII readers disagree about it, and iTXt says UTF-8 outright. */
static bool is_ascii(const char *text)
{
    for (; *text != '\0'; text++) {
        if ((unsigned char)*text > 126) {
            return false;
        }
    }
    return true;
}

/* libpng's form of the texts. It copies the strings but takes them without const, so they are
 * copies here too; texts_free. */
static struct png_text_struct *texts_create(const struct png_text *texts, size_t count)
{
    struct png_text_struct *entries = xcalloc(count, sizeof(*entries));
    for (size_t i = 0; i < count; i++) {
        bool ascii = is_ascii(texts[i].text);
        size_t length = strlen(texts[i].text);
        entries[i] = (struct png_text_struct){
            .compression = ascii ? PNG_TEXT_COMPRESSION_NONE : PNG_ITXT_COMPRESSION_NONE,
            .key = xstrdup(texts[i].keyword),
            .text = xstrdup(texts[i].text),
            .text_length = ascii ? length : 0,
            .itxt_length = ascii ? 0 : length,
        };
    }
    return entries;
}

static void texts_free(struct png_text_struct *entries, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        xfree(entries[i].key);
        xfree(entries[i].text);
    }
    xfree(entries);
}

struct image {
    const uint8_t *rgb;
    int width, height;
    struct png_text_struct *texts;
    size_t text_count;
    bool fast;
};

/* All calls that may jump back on an error; nothing in here needs freeing. */
static bool write_image(png_structp png, png_infop info, const struct image *image)
{
    if (setjmp(png_jmpbuf(png)) != 0) {
        return false;
    }
    png_set_IHDR(png, info, (png_uint_32)image->width, (png_uint_32)image->height, 8,
                 PNG_COLOR_TYPE_RGB, PNG_INTERLACE_NONE, PNG_COMPRESSION_TYPE_DEFAULT,
                 PNG_FILTER_TYPE_DEFAULT);
    if (image->fast) {
        png_set_compression_level(png, 1);
        png_set_filter(png, PNG_FILTER_TYPE_BASE, PNG_FILTER_SUB);
    }
    png_set_sRGB(png, info, PNG_sRGB_INTENT_PERCEPTUAL);
    png_set_text(png, info, image->texts, (int)image->text_count);
    png_write_info(png, info);
    for (int row = 0; row < image->height; row++) {
        png_write_row(png, image->rgb + (size_t)row * (size_t)image->width * 3);
    }
    png_write_end(png, info);
    return true;
}

static int encode(const struct image *image, uint8_t **bytes, size_t *size, struct error *err)
{
    *bytes = NULL;
    *size = 0;
    if (image->width < 1 || image->height < 1 || image->width > SIDE_MAX ||
        image->height > SIDE_MAX) {
        return ERROR(err, STATUS_INVALID, "a picture of %d by %d pixels: a side is from 1 to %d",
                     image->width, image->height, SIDE_MAX);
    }
    struct output output = {.bytes = NULL};
    png_structp png = png_create_write_struct(PNG_LIBPNG_VER_STRING, &output, on_error, on_warning);
    png_infop info = png != NULL ? png_create_info_struct(png) : NULL;
    if (info == NULL) {
        png_destroy_write_struct(&png, NULL);
        return ERROR(err, STATUS_INTERNAL, "libpng %s cannot start", PNG_LIBPNG_VER_STRING);
    }
    png_set_write_fn(png, &output, write_bytes, flush_bytes);
    bool written = write_image(png, info, image);
    png_destroy_write_struct(&png, &info);
    if (!written) {
        xfree(output.bytes);
        return ERROR(err, STATUS_INTERNAL, "libpng: %s", output.message);
    }
    *bytes = output.bytes;
    *size = output.size;
    return STATUS_OK;
}

int png_encode(const uint8_t *rgb, int width, int height, const struct png_text *texts,
               size_t text_count, uint8_t **bytes, size_t *size, struct error *err)
{
    struct image image = {.rgb = rgb, .width = width, .height = height, .text_count = text_count};
    image.texts = texts_create(texts, text_count);
    int result = encode(&image, bytes, size, err);
    texts_free(image.texts, text_count);
    return result;
}

int png_encode_fast(const uint8_t *rgb, int width, int height, uint8_t **bytes, size_t *size,
                    struct error *err)
{
    const struct image image = {.rgb = rgb, .width = width, .height = height, .fast = true};
    return encode(&image, bytes, size, err);
}
