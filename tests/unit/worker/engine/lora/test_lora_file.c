#include "worker/engine/lora/lora_file.h"

#include <math.h>

#include "tests/harness/test.h"
#include "tests/support/scratch.h"
#include "worker/engine/weights/safetensors.h"

/* A model of three layers: linear [6 -> 4], convolution [3 -> 5], and one of a text encoder. */
static const struct adapter *adapters[3];
static struct module_table tables[LORA_PARTS];
static struct lora_targets *targets;
static struct scratch scratch;
static const float numbers[1024];

static void begin(void)
{
    static const struct unet_config config = {.blocks = 1, .layers_per_block = {1}};
    module_table_add(
        &tables[LORA_UNET], "mid_block.attentions.0.proj_in",
        &(struct module){
            .channels_in = 6, .channels_out = 4, .kernel = 1, .adapters = &adapters[0]});
    module_table_add(
        &tables[LORA_UNET], "conv_in",
        &(struct module){
            .channels_in = 3, .channels_out = 5, .kernel = 3, .adapters = &adapters[1]});
    module_table_add(
        &tables[LORA_TEXT_ENCODER], "text_model.encoder.layers.0.mlp.fc1",
        &(struct module){
            .channels_in = 8, .channels_out = 8, .kernel = 1, .adapters = &adapters[2]});
    targets = lora_targets_create(tables, &config);
    scratch_create(&scratch);
}

static void end(void)
{
    lora_targets_destroy(targets);
    for (int i = 0; i < LORA_PARTS; i++) {
        module_table_deinit(&tables[i]);
    }
    scratch_remove(&scratch);
}

/* A tensor of zeros; extents end with 0. */
static struct safetensors_entry entry(const char *name, int64_t a, int64_t b, int64_t c, int64_t d)
{
    const int64_t shape[] = {a, b, c, d};
    struct safetensors_entry e = {.name = name, .dtype = SAFETENSORS_F32, .data = numbers};
    e.size = sizeof(float);
    while (e.rank < 4 && shape[e.rank] > 0) {
        e.shape[e.rank] = shape[e.rank];
        e.size *= (size_t)shape[e.rank++];
    }
    return e;
}

static struct lora_file *open_file(const struct safetensors_entry *entries, size_t count,
                                   const char *metadata, struct error *err)
{
    struct lora_file *file = NULL;
    const char *path = scratch_path(&scratch, "lora.safetensors");
    err->text[0] = '\0';
    if (safetensors_write(path, entries, count, metadata, err) < 0) {
        test_report(__FILE__, __LINE__, err->text);
    }
    (void)!lora_file_open(&file, path, targets, err);
    return file;
}

/* The error of a file that must be refused. */
static const char *refusal(const struct safetensors_entry *entries, size_t count,
                           enum status status)
{
    static struct error err;
    err.status = STATUS_OK;
    CHECK(open_file(entries, count, NULL, &err) == NULL);
    CHECK_INT(err.status, status);
    return err.text;
}

#define PROJ "lora_unet_mid_block_attentions_0_proj_in"
#define ORIGINAL "lora_unet_middle_block_1_proj_in"
#define CONV "lora_unet_conv_in"
#define FC1 "lora_te_text_model_encoder_layers_0_mlp_fc1"
#define DOWN ".lora_down.weight"
#define UP ".lora_up.weight"

TEST(every_matrix_finds_its_layer)
{
    begin();
    struct error err;
    const float alpha = 1;
    struct safetensors_entry entries[] = {
        entry(ORIGINAL DOWN, 2, 6, 1, 1), entry(ORIGINAL UP, 4, 2, 0, 0),
        entry(CONV DOWN, 3, 3, 3, 3),     entry(CONV UP, 5, 3, 1, 1),
        entry(CONV ".alpha", 0, 0, 0, 0), entry(FC1 DOWN, 1, 8, 0, 0),
        entry(FC1 UP, 8, 1, 0, 0),
    };
    entries[4].data = &alpha;
    struct lora_file *file = open_file(entries, 7, NULL, &err);
    REQUIRE(file != NULL);
    CHECK_INT(lora_file_count(file), 3);
    for (size_t i = 0; i < lora_file_count(file); i++) {
        const struct lora_change *change = lora_file_at(file, i);
        const struct module *module = lora_targets_at(targets, change->target);
        bool is_conv = module->kernel == 3;
        CHECK_INT(change->low.rank, is_conv ? 3 : change->part == LORA_UNET ? 2 : 1);
        CHECK_NEAR((double)change->low.scale, is_conv ? 1.0 / 3 : 1, 1e-7);
        CHECK(change->low.mid.data == NULL);
    }
    lora_file_close(file);
    end();
}

TEST(everything_that_is_wrong_is_said_at_once)
{
    begin();
    const float infinite = INFINITY;
    struct safetensors_entry entries[] = {
        entry(PROJ DOWN, 2, 7, 0, 0),
        entry(PROJ UP, 4, 3, 0, 0),
        entry(CONV DOWN, 3, 3, 3, 3),
        entry(FC1 UP, 8, 1, 0, 0),
        entry("lora_unet_nowhere" DOWN, 1, 1, 0, 0),
        entry("lora_unet_nowhere" UP, 1, 1, 0, 0),
        entry("what.is.this", 1, 0, 0, 0),
        entry(PROJ ".alpha", 0, 0, 0, 0),
    };
    entries[7].data = &infinite;
    const char *text = refusal(entries, 8, STATUS_INVALID);
    CHECK_CONTAINS(text, "lora.safetensors: 7 problems: ");
    CHECK_CONTAINS(text, PROJ DOWN ": has shape [2, 7], expected [2, 6]");
    CHECK_CONTAINS(text, PROJ UP ": has shape [4, 3], expected [4, 2]");
    CHECK_CONTAINS(text, PROJ ".alpha: alpha is not one finite number");
    CHECK_CONTAINS(text, CONV DOWN ": the layer has no lora_up");
    CHECK_CONTAINS(text, FC1 UP ": the layer has no lora_down");
    CHECK_CONTAINS(text, "lora_unet_nowhere" DOWN ": the model has no such layer");
    CHECK_CONTAINS(text, "what.is.this: not a key of a LoRA");
    end();
}

TEST(a_layer_given_twice_is_refused)
{
    begin();
    struct safetensors_entry entries[] = {
        entry(PROJ DOWN, 2, 6, 0, 0), entry(ORIGINAL DOWN, 2, 6, 0, 0), entry(PROJ UP, 4, 2, 0, 0)};
    CHECK_CONTAINS(refusal(entries, 3, STATUS_INVALID), "the same as " PROJ DOWN);
    end();
}

TEST(ranks_and_types_are_bounded)
{
    begin();
    struct safetensors_entry scalar[] = {entry(PROJ DOWN, 0, 0, 0, 0), entry(PROJ UP, 4, 1, 0, 0)};
    CHECK_CONTAINS(refusal(scalar, 2, STATUS_INVALID), "rank 0 is not from 1 to 4096");
    struct safetensors_entry empty[] = {entry(PROJ DOWN, 1, 6, 0, 0), entry(PROJ UP, 4, 1, 0, 0)};
    empty[0].shape[0] = 0;
    empty[0].size = 0;
    CHECK_CONTAINS(refusal(empty, 2, STATUS_INVALID), "rank 0 is not from 1 to 4096");
    struct safetensors_entry bytes[] = {entry(PROJ DOWN, 1, 6, 0, 0), entry(PROJ UP, 4, 1, 0, 0)};
    bytes[0].dtype = SAFETENSORS_F8_E4M3;
    bytes[0].size = 6;
    CHECK_CONTAINS(refusal(bytes, 2, STATUS_INVALID), "has type F8_E4M3");
    struct safetensors_entry kernel[] = {entry(CONV DOWN, 2, 3, 0, 0), entry(CONV UP, 5, 2, 1, 1)};
    CHECK_CONTAINS(refusal(kernel, 2, STATUS_INVALID), "expected [2, 3, 3, 3]");
    end();
}

TEST(three_factors_are_for_convolutions)
{
    begin();
    struct error err;
    struct safetensors_entry conv[] = {entry(CONV DOWN, 2, 3, 1, 1), entry(CONV UP, 5, 2, 1, 1),
                                       entry(CONV ".lora_mid.weight", 2, 2, 3, 3)};
    struct lora_file *file = open_file(conv, 3, NULL, &err);
    REQUIRE(file != NULL);
    CHECK(lora_file_at(file, 0)->low.mid.data != NULL);
    lora_file_close(file);
    struct safetensors_entry linear[] = {entry(PROJ DOWN, 2, 6, 0, 0), entry(PROJ UP, 4, 2, 0, 0),
                                         entry(PROJ ".lora_mid.weight", 2, 2, 3, 3)};
    CHECK_CONTAINS(refusal(linear, 3, STATUS_INVALID), "only 3x3 convolutions have three factors");
    end();
}

TEST(other_methods_are_refused_by_name)
{
    begin();
    struct safetensors_entry entries[] = {
        entry(PROJ DOWN, 2, 6, 0, 0),          entry(PROJ UP, 4, 2, 0, 0),
        entry(PROJ ".dora_scale", 4, 0, 0, 0), entry(CONV ".hada_w1_a", 4, 2, 0, 0),
        entry(CONV ".lokr_w1", 4, 2, 0, 0),
    };
    const char *text = refusal(entries, 5, STATUS_UNSUPPORTED);
    CHECK_CONTAINS(text, "is DoRA, which is not supported (only LoRA and LoCon)");
    CHECK_CONTAINS(text, "is LoHa");
    CHECK_CONTAINS(text, "is LoKr");
    end();
}

TEST(a_lora_for_another_kind_of_model_is_told_apart_from_a_damaged_one)
{
    begin();
    struct safetensors_entry entries[] = {entry("lora_unet_x" DOWN, 2, 6, 0, 0),
                                          entry("lora_unet_x" UP, 4, 2, 0, 0)};
    CHECK_CONTAINS(refusal(entries, 2, STATUS_INVALID),
                   "none of its 2 tensors belongs to a layer of this model");
    end();
}

/* The scale of PROJ when the file has this metadata. */
static double scale_with(const char *metadata)
{
    struct error err;
    struct safetensors_entry entries[] = {entry(PROJ DOWN, 4, 6, 0, 0), entry(PROJ UP, 4, 4, 0, 0)};
    struct lora_file *file = open_file(entries, 2, metadata, &err);
    if (file == NULL) {
        test_report(__FILE__, __LINE__, err.text);
        return -1;
    }
    double scale = (double)lora_file_at(file, 0)->low.scale;
    lora_file_close(file);
    return scale;
}

#define METADATA(text) "{\"lora_adapter_metadata\": \"" text "\"}"

TEST(alpha_may_stand_in_the_metadata)
{
    begin();
    struct error err;
    CHECK_NEAR(scale_with(NULL), 1, 0);
    CHECK_NEAR(scale_with("{\"format\": \"pt\"}"), 1, 0);
    CHECK_NEAR(scale_with(METADATA("{\\\"unet.lora_alpha\\\": 8}")), 2, 0);
    CHECK_NEAR(scale_with(METADATA("{\\\"text_encoder.lora_alpha\\\": 8}")), 1, 0);
    CHECK_NEAR(scale_with(METADATA("{\\\"unet.lora_alpha\\\": 8, \\\"unet.use_rslora\\\": true}")),
               4, 0);
    CHECK_NEAR(scale_with(METADATA("{\\\"unet.lora_alpha\\\": 8, \\\"unet.alpha_pattern\\\": "
                                   "{\\\"j_in\\\": 1, \\\"attentions.0.proj_in\\\": 2}}")),
               0.5, 0);
    struct safetensors_entry entries[] = {entry(PROJ DOWN, 4, 6, 0, 0), entry(PROJ UP, 4, 4, 0, 0)};
    CHECK(open_file(entries, 2, METADATA("{\\\"unet.use_dora\\\": true}"), &err) == NULL);
    CHECK_CONTAINS(err.text, "DoRA");
    CHECK(open_file(entries, 2, METADATA("{\\\"unet.lora_alpha\\\": 1e300}"), &err) == NULL);
    CHECK_CONTAINS(err.text, "alpha is not one finite number");
    CHECK(open_file(entries, 2, METADATA("{ no JSON"), &err) == NULL);
    CHECK_CONTAINS(err.text, "lora_adapter_metadata");
    end();
}

TEST(alpha_is_read_in_every_type_that_trainers_write)
{
    begin();
    struct error err;
    static const double f64 = 2;
    static const int64_t i64 = 2;
    static const uint16_t f16 = 0x4000, bf16 = 0x4000;
    static const struct {
        enum safetensors_dtype dtype;
        const void *data;
        size_t size;
    } alphas[] = {{SAFETENSORS_F64, &f64, 8},
                  {SAFETENSORS_I64, &i64, 8},
                  {SAFETENSORS_F16, &f16, 2},
                  {SAFETENSORS_BF16, &bf16, 2}};
    for (size_t i = 0; i < sizeof(alphas) / sizeof(alphas[0]); i++) {
        struct safetensors_entry entries[] = {entry(PROJ DOWN, 4, 6, 0, 0),
                                              entry(PROJ UP, 4, 4, 0, 0),
                                              entry(PROJ ".alpha", 0, 0, 0, 0)};
        entries[2].dtype = alphas[i].dtype;
        entries[2].data = alphas[i].data;
        entries[2].size = alphas[i].size;
        struct lora_file *file = open_file(entries, 3, NULL, &err);
        REQUIRE(file != NULL);
        CHECK_NEAR((double)lora_file_at(file, 0)->low.scale, 0.5, 0);
        lora_file_close(file);
    }
    end();
}

TEST_MAIN()
