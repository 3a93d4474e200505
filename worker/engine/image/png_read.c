#include "worker/engine/image/png_read.h"

#include <png.h>
#include <stdbool.h>
#include <string.h>

#include "common/base/panic.h"

/* Deflate makes at most 1032 bytes of one. */
#define UNPACK_MAX 1032

#define CHUNK_BYTES_MAX ((size_t)1 << 20)

#define CHANNELS 4 /* rows are read as RGBA, whatever the file holds */

/* A file while it is read. */
struct input {
    const uint8_t *bytes;
    size_t size, used;
    png_structp png;
    png_infop info;
    uint8_t *rgba; /* [height, width, 4] */
    png_uint_32 width, height;
    char message[256]; /* libpng's, when it gave up */
};

static void read_bytes(png_structp png, png_bytep to, size_t length)
{
    struct input *input = png_get_io_ptr(png);
    if (length > input->size - input->used) {
        png_error(png, "the file ends too early");
    }
    memcpy(to, input->bytes + input->used, length);
    input->used += length;
}

static void on_error(png_structp png, png_const_charp message)
{
    struct input *input = png_get_error_ptr(png);
    strncpy(input->message, message, sizeof(input->message) - 1);
    png_longjmp(png, 1);
}

static void on_warning(png_structp png, png_const_charp message)
{
    (void)png, (void)message;
}

static void close_input(struct input *input)
{
    png_destroy_read_struct(&input->png, &input->info, NULL);
    xfree(input->rgba);
    input->rgba = NULL;
}

/* Text, profiles and the like are skipped unread: they can unpack to far more than they take. */
static void skip_what_is_not_needed(png_structp png)
{
    static const char names[] = "bKGD\0cHRM\0eXIf\0gAMA\0hIST\0iCCP\0iTXt\0oFFs\0pCAL\0pHYs\0sBIT\0"
                                "sCAL\0sPLT\0sRGB\0sTER\0tEXt\0tIME\0zTXt";
    png_byte list[sizeof(names)];
    memcpy(list, names, sizeof(names));
    png_set_keep_unknown_chunks(png, PNG_HANDLE_CHUNK_NEVER, NULL, 0);
    png_set_keep_unknown_chunks(png, PNG_HANDLE_CHUNK_NEVER, list, sizeof(names) / 5);
    png_set_chunk_malloc_max(png, CHUNK_BYTES_MAX);
    png_set_chunk_cache_max(png, 16);
    png_set_user_limits(png, PNG_UINT_31_MAX, PNG_UINT_31_MAX); /* ours are checked below */
}

/* All calls up to the pixels that may jump back on an error. */
static bool read_header(struct input *input)
{
    if (setjmp(png_jmpbuf(input->png)) != 0) {
        return false;
    }
    png_set_read_fn(input->png, input, read_bytes);
    skip_what_is_not_needed(input->png);
    png_read_info(input->png, input->info);
    return true;
}

static int check_size(const struct input *input, struct error *err)
{
    int64_t pixels = (int64_t)input->width * (int64_t)input->height;
    if (input->width > PNG_READ_SIDE_MAX || input->height > PNG_READ_SIDE_MAX ||
        pixels > PNG_READ_PIXELS_MAX) {
        return ERROR(err, STATUS_TOO_LARGE,
                     "a PNG of %lu by %lu pixels: at most %d a side and %lld in all are read",
                     (unsigned long)input->width, (unsigned long)input->height, PNG_READ_SIDE_MAX,
                     (long long)PNG_READ_PIXELS_MAX);
    }
    int64_t bits = png_get_channels(input->png, input->info) *
                   (int64_t)png_get_bit_depth(input->png, input->info);
    int64_t unpacked = pixels * bits / 8;
    if (unpacked / UNPACK_MAX > (int64_t)input->size) {
        return ERROR(err, STATUS_CORRUPT,
                     "a PNG of %lu by %lu pixels cannot be as short as %zu bytes",
                     (unsigned long)input->width, (unsigned long)input->height, input->size);
    }
    return STATUS_OK;
}

static int open_input(struct input *input, const uint8_t *bytes, size_t size, struct error *err)
{
    *input = (struct input){.bytes = bytes, .size = size};
    if (size < 8 || png_sig_cmp(bytes, 0, 8) != 0) {
        return ERROR(err, STATUS_CORRUPT, "not a PNG file (only PNG is read)");
    }
    input->png = png_create_read_struct(PNG_LIBPNG_VER_STRING, input, on_error, on_warning);
    input->info = input->png != NULL ? png_create_info_struct(input->png) : NULL;
    if (input->info == NULL) {
        close_input(input);
        return ERROR(err, STATUS_INTERNAL, "libpng %s cannot start", PNG_LIBPNG_VER_STRING);
    }
    int result = STATUS_OK;
    if (!read_header(input)) {
        result = ERROR(err, STATUS_CORRUPT, "a damaged PNG file: %s", input->message);
    } else {
        input->width = png_get_image_width(input->png, input->info);
        input->height = png_get_image_height(input->png, input->info);
        result = check_size(input, err);
    }
    if (result < 0) {
        close_input(input);
    }
    return result;
}

/* The pixels of a file of any kind as RGBA, into memory that is there already. */
static bool read_pixels(struct input *input)
{
    if (setjmp(png_jmpbuf(input->png)) != 0) {
        return false;
    }
    png_structp png = input->png;
    png_set_expand(png); /* palettes to RGB, fewer bits to 8, a transparent colour to alpha */
    png_set_strip_16(png);
    png_set_gray_to_rgb(png);
    png_set_add_alpha(png, 255, PNG_FILLER_AFTER);
    int passes = png_set_interlace_handling(png);
    png_read_update_info(png, input->info);
    if (png_get_rowbytes(png, input->info) != (size_t)input->width * CHANNELS) {
        png_error(png, "an unknown kind of pixels");
    }
    for (int pass = 0; pass < passes; pass++) {
        for (png_uint_32 row = 0; row < input->height; row++) {
            png_read_row(png, input->rgba + (size_t)row * input->width * CHANNELS, NULL);
        }
    }
    png_read_end(png, NULL);
    return true;
}

static int read_rgba(struct input *input, const uint8_t *bytes, size_t size, int *width,
                     int *height, struct error *err)
{
    int result = open_input(input, bytes, size, err);
    if (result < 0) {
        return result;
    }
    input->rgba = xmalloc((size_t)input->width * input->height * CHANNELS);
    if (!read_pixels(input)) {
        close_input(input);
        return ERROR(err, STATUS_CORRUPT, "a damaged PNG file: %s", input->message);
    }
    *width = (int)input->width;
    *height = (int)input->height;
    return STATUS_OK;
}

int png_read_size(const uint8_t *bytes, size_t size, int *width, int *height, struct error *err)
{
    struct input input;
    int result = open_input(&input, bytes, size, err);
    if (result < 0) {
        return result;
    }
    *width = (int)input.width;
    *height = (int)input.height;
    close_input(&input);
    return STATUS_OK;
}

/* The first bytes of the pixels as memory of its own, and the rest given back. */
static uint8_t *keep(struct input *input, size_t bytes)
{
    uint8_t *kept = xrealloc(input->rgba, bytes);
    input->rgba = NULL;
    close_input(input);
    return kept;
}

int png_read_rgb(const uint8_t *bytes, size_t size, int *width, int *height, uint8_t **rgb,
                 struct error *err)
{
    *rgb = NULL;
    struct input input;
    int result = read_rgba(&input, bytes, size, width, height, err);
    if (result < 0) {
        return result;
    }
    size_t pixels = (size_t)*width * (size_t)*height;
    for (size_t i = 0; i < pixels; i++) { /* in place: three bytes go where four were */
        const uint8_t *from = input.rgba + CHANNELS * i;
        unsigned alpha = from[3];
        for (size_t c = 0; c < 3; c++) {
            input.rgba[3 * i + c] = (uint8_t)((from[c] * alpha + 255 * (255 - alpha) + 127) / 255);
        }
    }
    *rgb = keep(&input, 3 * pixels);
    return STATUS_OK;
}

static bool is_opaque(const uint8_t *rgba, size_t pixels)
{
    for (size_t i = 0; i < pixels; i++) {
        if (rgba[CHANNELS * i + 3] != 255) {
            return false;
        }
    }
    return true;
}

int png_read_mask(const uint8_t *bytes, size_t size, int *width, int *height, uint8_t **gray,
                  struct error *err)
{
    *gray = NULL;
    struct input input;
    int result = read_rgba(&input, bytes, size, width, height, err);
    if (result < 0) {
        return result;
    }
    size_t pixels = (size_t)*width * (size_t)*height;
    bool opaque = is_opaque(input.rgba, pixels);
    for (size_t i = 0; i < pixels; i++) {
        const uint8_t *from = input.rgba + CHANNELS * i;
        /* 0.299, 0.587 and 0.114 of 65536, as Pillow has them. */
        unsigned brightness =
            (from[0] * 19595u + from[1] * 38470u + from[2] * 7471u + 0x8000) >> 16;
        input.rgba[i] = (uint8_t)(opaque ? brightness : from[3]);
    }
    *gray = keep(&input, pixels);
    return STATUS_OK;
}
