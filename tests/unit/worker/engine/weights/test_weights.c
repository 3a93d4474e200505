/* A component's weights fit its config exactly, or one error says everything that does not fit. */
#include "worker/engine/weights/weights.h"

#include <math.h>
#include <stdint.h>

#include "common/base/panic.h"
#include "tests/harness/test.h"
#include "tests/support/scratch.h"
#include "worker/engine/weights/safetensors.h"

static struct scratch scratch;

/* A tensor of zeros: good enough where only names and shapes matter. */
static struct safetensors_entry zeros(const char *name, enum safetensors_dtype dtype, int64_t rows,
                                      int64_t columns)
{
    static const char data[4096];
    struct safetensors_entry entry = {
        .name = name,
        .dtype = dtype,
        .rank = 2,
        .shape = {rows, columns},
        .data = data,
        .size = (size_t)(rows * columns) * safetensors_dtype_size(dtype),
    };
    ASSERT(entry.size <= sizeof(data));
    return entry;
}

static void write_model(const char *file, const struct safetensors_entry *entries, size_t count)
{
    struct error err;
    if (safetensors_write(scratch_path(&scratch, file), entries, count, NULL, &err) < 0) {
        test_report(__FILE__, __LINE__, err.text);
    }
}

static struct weights *open_model(const char *component)
{
    struct error err;
    struct weights *weights = NULL;
    if (weights_open(&weights, scratch_path(&scratch, component), &err) < 0) {
        test_report(__FILE__, __LINE__, err.text);
    }
    return weights;
}

static const char *open_error(const char *component, enum status expected)
{
    static struct error err;
    struct weights *weights = NULL;
    CHECK_INT(weights_open(&weights, scratch_path(&scratch, component), &err), expected);
    CHECK(weights == NULL);
    return err.text;
}

static bool take(struct weights *weights, const char *name, int64_t rows, int64_t columns)
{
    struct weight_view view;
    return weights_take(weights, name, 2, (int64_t[]){rows, columns}, &view);
}

TEST(tensors_are_taken_by_name_with_their_shape)
{
    const struct safetensors_entry entries[] = {
        zeros("conv_in.weight", SAFETENSORS_F32, 4, 3),
        zeros("conv_out.weight", SAFETENSORS_BF16, 2, 2),
        zeros("embeddings.position_ids", SAFETENSORS_I64, 1, 77),
        zeros("logit_scale", SAFETENSORS_F32, 1, 1),
    };
    struct error err;
    struct weight_view view;
    scratch_create(&scratch);
    write_model("unet/diffusion_pytorch_model.safetensors", entries, 4);
    struct weights *weights = open_model("unet");
    REQUIRE(weights != NULL);
    CHECK_CONTAINS(weights_path(weights), "unet/diffusion_pytorch_model.safetensors");
    CHECK(weights_has(weights, "conv_in.weight"));
    CHECK(!weights_has(weights, "conv_in.bias"));
    CHECK(weights_take(weights, "conv_in.weight", 2, (int64_t[]){4, 3}, &view));
    CHECK_INT(view.count, 12);
    CHECK_INT(view.dtype, DTYPE_F32);
    CHECK_INT(view.shape[0], 4);
    CHECK(weights_f32_in_place(view) == view.data);
    CHECK(weights_take(weights, "conv_out.weight", 2, (int64_t[]){2, 2}, &view));
    CHECK_INT(view.dtype, DTYPE_BF16);
    CHECK(weights_f32_in_place(view) == NULL);
    CHECK_INT(weights_finish(weights, &err), STATUS_OK);
    weights_close(weights);
    scratch_remove(&scratch);
}

TEST(everything_that_does_not_fit_is_in_one_error)
{
    const struct safetensors_entry entries[] = {
        zeros("wrong_shape", SAFETENSORS_F32, 4, 3), zeros("wrong_type", SAFETENSORS_I32, 2, 2),
        zeros("surplus.one", SAFETENSORS_F32, 1, 1), zeros("surplus.two", SAFETENSORS_F32, 1, 1),
        zeros("good", SAFETENSORS_F16, 1, 1),
    };
    struct error err;
    struct weight_view view = {.count = 7};
    scratch_create(&scratch);
    write_model("vae/diffusion_pytorch_model.safetensors", entries, 5);
    struct weights *weights = open_model("vae");
    REQUIRE(weights != NULL);
    CHECK(!take(weights, "wrong_shape", 3, 4));
    CHECK(!weights_take(weights, "wrong_type", 2, (int64_t[]){2, 2}, &view));
    CHECK(view.data == NULL && view.count == 0);
    CHECK(!take(weights, "not.there", 320, 4));
    CHECK(!weights_take(weights, "good", 1, (int64_t[]){1}, &view));
    CHECK_INT(weights_finish(weights, &err), STATUS_INVALID);
    CHECK_CONTAINS(err.text, "vae/diffusion_pytorch_model.safetensors: 6 problems");
    CHECK_CONTAINS(err.text, "wrong_shape: has shape [4, 3], expected [3, 4]");
    CHECK_CONTAINS(err.text, "wrong_type: has type I32");
    CHECK_CONTAINS(err.text, "not.there: missing, expected [320, 4]");
    CHECK_CONTAINS(err.text, "good: has shape [1, 1], expected [1]");
    CHECK_CONTAINS(err.text, "surplus.one: surplus");
    CHECK_CONTAINS(err.text, "surplus.two: surplus");
    weights_close(weights);
    scratch_remove(&scratch);
}

TEST(a_folder_without_weights_says_what_was_looked_for)
{
    scratch_create(&scratch);
    CHECK_CONTAINS(open_error("absent", STATUS_NOT_FOUND), "no such folder");
    scratch_text(&scratch, "unet/config.json", "{}");
    CHECK_CONTAINS(open_error("unet", STATUS_NOT_FOUND),
                   "expected diffusion_pytorch_model.safetensors or");
    scratch_text(&scratch, "unet/diffusion_pytorch_model.bin", "pickled");
    CHECK_CONTAINS(open_error("unet", STATUS_UNSUPPORTED), "safe_serialization=True");
    scratch_text(&scratch, "broken/model.safetensors", "not a model");
    CHECK_CONTAINS(open_error("broken", STATUS_CORRUPT), "broken/model.safetensors");
    scratch_remove(&scratch);
}

TEST(variants_are_found_and_the_plain_file_goes_first)
{
    const struct safetensors_entry half = zeros("half", SAFETENSORS_F16, 1, 1);
    const struct safetensors_entry full = zeros("full", SAFETENSORS_F32, 1, 1);
    scratch_create(&scratch);
    write_model("unet/diffusion_pytorch_model.fp16.safetensors", &half, 1);
    struct weights *weights = open_model("unet");
    REQUIRE(weights != NULL);
    CHECK(weights_has(weights, "half"));
    weights_close(weights);
    write_model("unet/diffusion_pytorch_model.safetensors", &full, 1);
    weights = open_model("unet");
    REQUIRE(weights != NULL);
    CHECK(weights_has(weights, "full"));
    weights_close(weights);
    scratch_remove(&scratch);
}

TEST(variants_that_people_publish_are_found_whole_and_sharded)
{
    static const char *const files[] = {
        "unet/diffusion_pytorch_model.non_ema.safetensors",
        "unet/diffusion_pytorch_model.ema.safetensors",
        "unet/diffusion_pytorch_model.bf16.safetensors",
        "unet/diffusion_pytorch_model.fp32.safetensors",
        "unet/model.fp16.safetensors",
    };
    const struct safetensors_entry tensor = zeros("a", SAFETENSORS_F16, 1, 1);
    for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
        scratch_create(&scratch);
        write_model(files[i], &tensor, 1);
        struct weights *weights = open_model("unet");
        CHECK(weights != NULL && weights_has(weights, "a"));
        weights_close(weights);
        scratch_remove(&scratch);
    }
    static const char *const indexes[] = {
        "unet/diffusion_pytorch_model.safetensors.index.fp16.json",
        "unet/model.fp16.safetensors.index.json",
    };
    for (size_t i = 0; i < sizeof(indexes) / sizeof(indexes[0]); i++) {
        scratch_create(&scratch);
        write_model("unet/part.fp16-00001-of-00001.safetensors", &tensor, 1);
        scratch_text(&scratch, indexes[i],
                     "{\"weight_map\":{\"a\":\"part.fp16-00001-of-00001.safetensors\"}}");
        struct weights *weights = open_model("unet");
        CHECK(weights != NULL && weights_has(weights, "a"));
        weights_close(weights);
        scratch_remove(&scratch);
    }
}

static void write_shards(void)
{
    const struct safetensors_entry first[] = {zeros("a", SAFETENSORS_F32, 2, 2),
                                              zeros("b", SAFETENSORS_F32, 1, 2)};
    const struct safetensors_entry second[] = {zeros("c", SAFETENSORS_F32, 3, 1)};
    write_model("unet/part-1.safetensors", first, 2);
    write_model("unet/part-2.safetensors", second, 1);
}

#define INDEX "unet/diffusion_pytorch_model.safetensors.index.json"

TEST(shards_named_by_an_index_are_one_set_of_weights)
{
    struct error err;
    scratch_create(&scratch);
    write_shards();
    scratch_text(&scratch, INDEX,
                 "{\"metadata\":{\"total_size\":36},\"weight_map\":{\"a\":\"part-1.safetensors\","
                 "\"c\":\"part-2.safetensors\",\"b\":\"part-1.safetensors\"}}");
    struct weights *weights = open_model("unet");
    REQUIRE(weights != NULL);
    CHECK(take(weights, "a", 2, 2) && take(weights, "b", 1, 2));
    CHECK_INT(weights_finish(weights, &err), STATUS_INVALID);
    CHECK_CONTAINS(err.text, "index.json: c: surplus");
    CHECK(take(weights, "c", 3, 1));
    CHECK_INT(weights_finish(weights, &err), STATUS_OK);
    weights_close(weights);
    scratch_remove(&scratch);
}

TEST(an_index_that_lies_is_refused_with_everything_that_is_wrong)
{
    scratch_create(&scratch);
    write_shards();
    scratch_text(&scratch, INDEX,
                 "{\"weight_map\":{\"a\":\"part-2.safetensors\",\"b\":\"part-3.safetensors\","
                 "\"c\":\"../unet/part-2.safetensors\",\"d\":7,\"e\":\"part-1.safetensors\","
                 "\"f\":\"\"}}");
    const char *text = open_error("unet", STATUS_CORRUPT);
    CHECK_CONTAINS(text, "index.json: 6 problems");
    CHECK_CONTAINS(text, "\"\": not the name of a file beside the index");
    CHECK_CONTAINS(text, "a: the index puts it in part-2.safetensors, where it is not");
    CHECK_CONTAINS(text, "part-3.safetensors: No such file");
    CHECK_CONTAINS(text, "\"../unet/part-2.safetensors\": not the name of a file beside the index");
    CHECK_CONTAINS(text, "d: weight_map does not name a file");
    scratch_text(&scratch, INDEX, "{\"weight_map\":{}}");
    CHECK_CONTAINS(open_error("unet", STATUS_CORRUPT), "weight_map is missing or empty");
    scratch_text(&scratch, INDEX, "{\"weight_map\":");
    CHECK_CONTAINS(open_error("unet", STATUS_CORRUPT), "not valid JSON");
    scratch_remove(&scratch);
}

TEST(a_tensor_in_two_shards_is_refused)
{
    const struct safetensors_entry again = zeros("a", SAFETENSORS_F32, 1, 1);
    scratch_create(&scratch);
    write_shards();
    write_model("unet/part-2.safetensors", &again, 1);
    scratch_text(&scratch, INDEX,
                 "{\"weight_map\":{\"a\":\"part-1.safetensors\",\"b\":\"part-1.safetensors\"}}");
    struct weights *weights = open_model("unet");
    CHECK(weights != NULL); /* part-2 is not named, so it is not read */
    weights_close(weights);
    scratch_text(&scratch, INDEX,
                 "{\"weight_map\":{\"b\":\"part-1.safetensors\",\"a\":\"part-2.safetensors\"}}");
    CHECK_CONTAINS(open_error("unet", STATUS_CORRUPT), "a: in more than one shard");
    scratch_remove(&scratch);
}

/* The value of a half by its definition. */
static double half_value(uint16_t half)
{
    int exponent = half >> 10 & 0x1F, mantissa = half & 0x3FF;
    double sign = (half & 0x8000) != 0 ? -1.0 : 1.0;
    if (exponent == 0x1F) {
        return mantissa != 0 ? (double)NAN : sign * HUGE_VAL;
    }
    return sign * (exponent == 0 ? ldexp(mantissa, -24) : ldexp(1024 + mantissa, exponent - 25));
}

TEST(every_half_and_bfloat_converts_exactly)
{
    enum { COUNT = 65536 };
    uint16_t *words = xcalloc(COUNT, sizeof(*words));
    float *out = xcalloc(COUNT, sizeof(*out));
    int wrong = 0;
    for (int i = 0; i < COUNT; i++) {
        words[i] = (uint16_t)i;
    }
    struct weight_view view = {.data = words, .dtype = DTYPE_F16, .count = COUNT, .rank = 1};
    weights_to_f32(view, out);
    for (int i = 0; i < COUNT; i++) {
        double expected = half_value((uint16_t)i);
        bool same = isnan(expected)
                        ? isnan(out[i])
                        : (double)out[i] == expected && (signbit(out[i]) != 0) == (i >> 15 != 0);
        wrong += !same;
    }
    CHECK_INT(wrong, 0);
    view.dtype = DTYPE_BF16;
    weights_to_f32(view, out);
    for (int i = 0; i < COUNT; i++) {
        uint32_t bits = (uint32_t)i << 16, got;
        memcpy(&got, &out[i], sizeof(got));
        wrong += got != bits;
    }
    CHECK_INT(wrong, 0);
    xfree(words);
    xfree(out);
}

TEST(misaligned_data_is_read_but_not_in_place)
{
    const float values[] = {1.5F, -2.0F};
    char bytes[sizeof(values) + 1];
    float out[2];
    memcpy(bytes + 1, values, sizeof(values));
    struct weight_view view = {.data = bytes + 1, .dtype = DTYPE_F32, .count = 2, .rank = 1};
    weights_to_f32(view, out);
    CHECK(out[0] == 1.5F && out[1] == -2.0F);
    bool aligned = (uintptr_t)(bytes + 1) % sizeof(float) == 0;
    CHECK((weights_f32_in_place(view) == NULL) == !aligned);
}

TEST_MAIN()
