#include "worker/engine/models/vae.h"

#include <string.h>

#include "tests/harness/test.h"
#include "tests/support/ref_kernels.h"
#include "worker/engine/kernels/gemm.h"
#include "worker/engine/pipeline/components.h"

#define WHOLE INT64_MAX

static const char *const models[] = {"tests/golden/tiny-sdxl", "worker/models/demo"};

struct decoding {
    struct components *components;
    struct exec ex;
};

static void open_decoding(struct decoding *decoding, const char *model, int threads)
{
    struct error err;
    const struct components_options options = {.path = model};
    memset(decoding, 0, sizeof(*decoding));
    if (gemm_init(&err) < 0 || components_open(&decoding->components, &options, &err) < 0 ||
        parallel_create(&decoding->ex.pool, threads, &err) < 0 ||
        arena_create(&decoding->ex.step, "step", (size_t)8 << 30, &err) < 0) {
        test_report(__FILE__, __LINE__, err.text);
        abort();
    }
}

static void close_decoding(struct decoding *decoding)
{
    components_close(decoding->components);
    parallel_destroy(decoding->ex.pool);
    arena_destroy(decoding->ex.step);
}

/* The decoded picture of height x width random latents, in ex.step; *peak: bytes it took. */
static struct tensor decode(struct decoding *decoding, int64_t height, int64_t width,
                            int64_t band_rows, size_t *peak)
{
    const struct vae *vae = &decoding->components->vae;
    struct exec *ex = &decoding->ex;
    struct tensor image, z = tensor_4d(ex->step, 1, height, width, vae->config.latent_channels);
    ref_fill(z.data, tensor_count(z), 1);
    ex->band_rows = band_rows;
    arena_reset_peak(ex->step);
    size_t before = arena_mark(ex->step);
    CHECK(vae_decode(vae, ex, z, NULL, NULL, &image));
    *peak = arena_peak(ex->step) - before;
    return image;
}

static void check_bands(struct decoding *decoding, int64_t height, int64_t width)
{
    static const int64_t heights[] = {0, 1, 5, 16, 50};
    size_t mark = arena_mark(decoding->ex.step), peak;
    struct tensor whole = decode(decoding, height, width, WHOLE, &peak);
    for (size_t i = 0; i < sizeof(heights) / sizeof(heights[0]); i++) {
        size_t after_whole = arena_mark(decoding->ex.step);
        struct tensor banded = decode(decoding, height, width, heights[i], &peak);
        size_t size = (size_t)tensor_count(whole) * sizeof(float);
        CHECK(memcmp(whole.data, banded.data, size) == 0);
        arena_release(decoding->ex.step, after_whole);
    }
    arena_release(decoding->ex.step, mark);
}

TEST(a_picture_decoded_in_bands_of_any_height_is_bit_for_bit_the_whole_one)
{
    static const int64_t sizes[][2] = {{8, 8}, {1, 1}, {13, 5}, {32, 24}};
    for (size_t m = 0; m < sizeof(models) / sizeof(models[0]); m++) {
        for (int threads = 1; threads <= 3; threads += 2) {
            struct decoding decoding;
            open_decoding(&decoding, models[m], threads);
            for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
                check_bands(&decoding, sizes[i][0], sizes[i][1]);
            }
            close_decoding(&decoding);
        }
    }
}

TEST(bands_of_seamless_pictures_see_the_rows_of_the_opposite_edge)
{
    struct decoding decoding;
    open_decoding(&decoding, models[1], 2);
    decoding.ex.wrap_y = true;
    check_bands(&decoding, 16, 16);
    decoding.ex.wrap_x = true;
    check_bands(&decoding, 24, 8);
    close_decoding(&decoding);
}

TEST(bands_take_less_memory_than_the_whole)
{
    struct decoding decoding;
    size_t whole, banded;
    open_decoding(&decoding, models[1], 2);
    (void)decode(&decoding, 64, 64, WHOLE, &whole);
    (void)decode(&decoding, 64, 64, 16, &banded);
    CHECK(banded < whole / 4 * 3);
    close_decoding(&decoding);
}

TEST_MAIN()
