/* What is wrong with a checkpoint is said in one error that names the file; what a file is that is
 * no checkpoint, too; and what tensors cannot tell is decided as contents.h says. */
#include "tests/golden/checkpoint_file.h"
#include "worker/engine/checkpoint/checkpoint.h"
#include "worker/engine/checkpoint/contents.h"
#include "worker/engine/engine.h"

#define LISTS "tests/golden/checkpoints/"
#define UNET "model.diffusion_model."

static struct scratch scratch;
static struct json *list;
static struct checkpoint_file *file;

static void begin(const char *kind)
{
    char path[128];
    struct error err;
    snprintf(path, sizeof(path), LISTS "%s.json", kind);
    if (json_open(&list, path, &err) < 0) {
        test_report(__FILE__, __LINE__, err.text);
        exit(1);
    }
    file = checkpoint_file_create(list);
    scratch_create(&scratch);
}

static void end(void)
{
    checkpoint_file_destroy(file);
    json_close(list);
    scratch_remove(&scratch);
}

static const char *write_file(const char *metadata)
{
    checkpoint_file_write(file, scratch_path(&scratch, "model.safetensors"), metadata);
    return scratch.path;
}

/* Another tensor, of zeros. */
static void add(const char *name, enum safetensors_dtype dtype, int rank, const int64_t *shape)
{
    struct safetensors_entry *entry = &file->entries[file->count];
    *entry = (struct safetensors_entry){.name = name, .dtype = dtype, .rank = rank};
    entry->size = safetensors_dtype_size(dtype);
    for (int i = 0; i < rank; i++) {
        entry->shape[i] = shape[i];
        entry->size *= (size_t)shape[i];
    }
    entry->data = file->data[file->count++] = xcalloc(1, entry->size);
}

/* A tensor in another shape, cut off at its end. */
static void reshape(const char *name, int rank, const int64_t *shape)
{
    struct safetensors_entry *entry = checkpoint_file_find(file, name);
    REQUIRE(entry != NULL);
    entry->rank = rank;
    size_t size = safetensors_dtype_size(entry->dtype);
    for (int i = 0; i < rank; i++) {
        entry->shape[i] = shape[i];
        size *= (size_t)shape[i];
    }
    REQUIRE(size <= entry->size);
    entry->size = size;
}

static const char *refusal(enum status expected)
{
    static struct error err;
    struct engine *engine = NULL;
    const struct engine_options options = {.model_path = write_file(NULL), .threads = 1};
    CHECK_INT(engine_open(&engine, &options, &err), expected);
    CHECK_CONTAINS(err.text, scratch.path);
    engine_close(engine);
    return err.text;
}

/* A file with nothing but the named tensors. */
static const char *refusal_of_names(const char *const *names)
{
    begin("sd1");
    checkpoint_file_drop(file, "");
    for (int i = 0; names[i] != NULL; i++) {
        add(names[i], SAFETENSORS_F32, 2, (int64_t[]){4, 4});
    }
    const char *text = refusal(STATUS_UNSUPPORTED);
    end();
    return text;
}

/* ---- Incomplete and lying files -------------------------------------------------------------- */

TEST(all_parts_that_are_missing_are_named_in_one_error)
{
    begin("sd1");
    checkpoint_file_drop(file, "first_stage_model.");
    CHECK_CONTAINS(refusal(STATUS_INVALID),
                   "not a whole Stable Diffusion checkpoint: no VAE (first_stage_model.");
    checkpoint_file_drop(file, "cond_stage_model.");
    const char *text = refusal(STATUS_INVALID);
    CHECK_CONTAINS(text, "2 problems");
    CHECK_CONTAINS(text, "no text encoder (cond_stage_model.");
    CHECK_CONTAINS(text, "no VAE (first_stage_model.");
    end();
    begin("sdxl");
    checkpoint_file_drop(file, "conditioner.embedders.1.");
    CHECK_CONTAINS(refusal(STATUS_INVALID), "only one of SDXL's two text encoders");
    end();
}

TEST(tensors_that_are_missing_or_have_no_place_are_named)
{
    begin("sd1");
    checkpoint_file_drop(file, UNET "middle_block.1.proj_in.weight");
    checkpoint_file_drop(file, UNET "time_embed.2.bias");
    const char *text = refusal(STATUS_INVALID);
    CHECK_CONTAINS(text, "mid_block.attentions.0.proj_in.weight: missing");
    CHECK_CONTAINS(text, "time_embedding.linear_2.bias: missing");
    end();
    begin("sd1");
    add(UNET "input_blocks.1.1.extra.weight", SAFETENSORS_F32, 1, (int64_t[]){4});
    CHECK_CONTAINS(refusal(STATUS_INVALID), UNET "input_blocks.1.1.extra.weight: surplus");
    end();
    begin("sdxl");
    checkpoint_file_drop(file, "conditioner.embedders.1.model.text_projection");
    CHECK_CONTAINS(refusal(STATUS_INVALID), "conditioner.embedders.1.model.text_projection: miss");
    end();
}

TEST(rows_of_layers_that_make_no_unet_are_refused)
{
    begin("sd1");
    checkpoint_file_drop(file, UNET "output_blocks.3.");
    CHECK_CONTAINS(refusal(STATUS_INVALID),
                   "level 0 has 1 resnets in input_blocks and 1 in output");
    end();
    begin("sdxl");
    checkpoint_file_drop(file, UNET "input_blocks.5.1.");
    CHECK_CONTAINS(refusal(STATUS_INVALID), "down block 1: attention beside some of its resnets");
    end();
    begin("sd1");
    checkpoint_file_drop(file, UNET "input_blocks.1.");
    CHECK_CONTAINS(refusal(STATUS_INVALID), "input_blocks: level 0 has no resnets");
    end();
}

TEST(shapes_that_lie_are_refused)
{
    static const char fused[] =
        "cond_stage_model.model.transformer.resblocks.0.attn.in_proj_weight";
    begin("sd2-base");
    reshape(fused, 2, (int64_t[]){383, 128});
    CHECK_CONTAINS(refusal(STATUS_INVALID), "self_attn.q_proj.weight: has shape [383, 128]");
    reshape(fused, 0, NULL);
    CHECK_CONTAINS(refusal(STATUS_INVALID), "self_attn.q_proj.weight: has shape []");
    end();
    begin("sdxl");
    reshape("conditioner.embedders.1.model.text_projection", 1, (int64_t[]){128});
    CHECK_CONTAINS(refusal(STATUS_INVALID), "text_projection: missing");
    end();
    begin("sd1");
    reshape("first_stage_model.decoder.up.2.block.0.conv2.weight", 2, (int64_t[]){32, 32});
    CHECK_CONTAINS(refusal(STATUS_INVALID),
                   "decoder.up.2.block.0.conv2.weight: missing or no conv");
    end();
    begin("sd1");
    reshape(UNET "input_blocks.0.0.weight", 4, (int64_t[]){16, 8, 3, 3});
    CHECK_CONTAINS(refusal(STATUS_INVALID), "the UNet takes 8 channels; only 4 and 9");
    end();
    begin("sd1");
    reshape("cond_stage_model.transformer.text_model.embeddings.token_embedding.weight", 2,
            (int64_t[]){40000, 64});
    CHECK_CONTAINS(refusal(STATUS_INVALID), "tokenizer has ids up to 49407");
    end();
}

/* ---- Other kinds of files -------------------------------------------------------------------- */

TEST(models_of_other_kinds_are_refused_by_name)
{
    static const struct {
        const char *const names[4];
        const char *what;
    } cases[] = {
        {{"lora_unet_down_blocks_0.lora_up.weight"}, "this is a LoRA"},
        {{"control_model.input_blocks.0.0.weight"}, "this is a ControlNet"},
        {{UNET "joint_blocks.0.x_block.attn.qkv.weight"}, "this is Stable Diffusion 3"},
        {{"double_blocks.0.img_attn.qkv.weight"}, "this is Flux"},
        {{UNET "clip_txt_mapper.weight"}, "this is Stable Cascade"},
        {{UNET "input_blocks.1.0.time_stack.in_layers.0.weight"}, "this is a video model"},
        {{UNET "input_blocks.0.0.weight", "edm_mean"}, "this is Playground v2.5"},
        {{UNET "input_blocks.0.0.weight", "edm_vpred.sigma_max"}, "this is CosXL"},
        {{"emb_params"}, "this is a textual inversion embedding"},
        {{"down_blocks.0.resnets.0.conv1.weight"}, "this is one component of a diffusers folder"},
        {{"encoder.conv_in.weight", "decoder.conv_in.weight"}, "this is an autoencoder alone"},
        {{UNET "label_emb.0.0.weight", UNET "input_blocks.0.0.weight",
          "conditioner.embedders.0.model.ln_final.weight"},
         "this is an SDXL refiner"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        CHECK_CONTAINS(refusal_of_names(cases[i].names), cases[i].what);
    }
}

TEST(weights_of_eight_bits_are_refused)
{
    begin("sd1");
    struct safetensors_entry *entry = checkpoint_file_find(file, UNET "time_embed.0.weight");
    REQUIRE(entry != NULL);
    entry->size /= safetensors_dtype_size(entry->dtype);
    entry->dtype = SAFETENSORS_F8_E4M3;
    CHECK_CONTAINS(refusal(STATUS_UNSUPPORTED), "8-bit floats (F8_E4M3)");
    end();
}

TEST(files_of_other_formats_are_refused_with_what_to_do)
{
    static const struct {
        const char *bytes;
        size_t size;
        enum status status;
        const char *what;
    } cases[] = {
        {"PK\003\004.....archive/data.pkl", 25, STATUS_UNSUPPORTED, "a pickled PyTorch file"},
        {"\x80\x02}q\x00(X\x0a\x00\x00\x00", 12, STATUS_UNSUPPORTED, "convert it to .safetensors"},
        {"GGUF\x03\x00\x00\x00....", 12, STATUS_UNSUPPORTED, "a GGUF file"},
        {"", 0, STATUS_CORRUPT, "too short to be a safetensors file"},
        {"a text that is not", 18, STATUS_CORRUPT, "not a safetensors file"},
        {"\x02\x00\x00\x00\x00\x00\x00\x00{}", 10, STATUS_INVALID, "no UNet"},
    };
    scratch_create(&scratch);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct error err;
        struct checkpoint *checkpoint = NULL;
        const char *path = scratch_write(&scratch, "model.ckpt", cases[i].bytes, cases[i].size);
        CHECK_INT(checkpoint_open(&checkpoint, path, &err), cases[i].status);
        CHECK(checkpoint == NULL);
        CHECK_CONTAINS(err.text, path);
        CHECK_CONTAINS(err.text, cases[i].what);
    }
    scratch_remove(&scratch);
}

/* The length of the header, in the first eight bytes. */
static size_t header_length(const char *metadata)
{
    unsigned char start[8] = {0};
    size_t length = 0;
    FILE *raw = fopen(write_file(metadata), "rb");
    if (raw == NULL || fread(start, sizeof(start), 1, raw) != 1 || fclose(raw) != 0) {
        perror(scratch.path);
        exit(1);
    }
    for (int i = 7; i >= 0; i--) {
        length = length << 8 | start[i];
    }
    return length;
}

TEST(a_safetensors_file_that_begins_like_a_pickle_is_read)
{
    enum { LENGTH = 0x20280 }; /* 80 02 in the file, as pickles of protocol 2 begin */
    static char metadata[LENGTH];
    struct error err;
    struct checkpoint *checkpoint = NULL;
    begin("sd1");
    size_t rest = LENGTH - header_length("{\"a\":\"0\"}");
    snprintf(metadata, sizeof(metadata), "{\"a\":\"%0*d\"}", (int)rest + 1, 0);
    CHECK_INT(header_length(metadata), LENGTH);
    CHECK_INT(checkpoint_open(&checkpoint, scratch.path, &err), STATUS_OK);
    checkpoint_close(checkpoint);
    end();
}

/* ---- What tensors do not say ----------------------------------------------------------------- */

static struct contents contents_of(const char *metadata)
{
    struct error err;
    struct contents contents = {.text_count = 0};
    struct safetensors *opened = golden_open(write_file(metadata));
    if (opened != NULL && contents_read(&contents, opened, &err) < 0) {
        test_report(__FILE__, __LINE__, err.text);
    }
    safetensors_close(opened);
    return contents;
}

TEST(what_the_unet_predicts_is_taken_from_what_the_file_says)
{
    begin("sd2-v");
    CHECK(contents_of(NULL).v_prediction);
    CHECK(!contents_of("{\"modelspec.prediction_type\":\"epsilon\"}").v_prediction);
    CHECK(!contents_of("{\"modelspec.predict_key\":\"epsilon\"}").v_prediction);
    add("global_step", SAFETENSORS_I64, 0, NULL);
    CHECK(contents_of(NULL).v_prediction);
    memcpy(file->data[file->count - 1], &(int64_t){875000}, sizeof(int64_t));
    CHECK(!contents_of(NULL).v_prediction);
    CHECK_INT(contents_of(NULL).sample_size, 64);
    end();
    begin("sd2-base");
    CHECK(!contents_of(NULL).v_prediction);
    CHECK(contents_of("{\"modelspec.prediction_type\":\"v\"}").v_prediction);
    end();
    begin("sdxl");
    CHECK(!contents_of(NULL).v_prediction && !contents_of(NULL).zero_snr);
    CHECK(contents_of("{\"modelspec.predict_key\":\"v\"}").v_prediction);
    CHECK(!contents_of("{\"modelspec.prediction_type\":\"epsilon\","
                       "\"modelspec.predict_key\":\"v\"}")
               .v_prediction);
    add("v_pred", SAFETENSORS_F32, 1, (int64_t[]){0});
    add("ztsnr", SAFETENSORS_F32, 1, (int64_t[]){0});
    CHECK(contents_of(NULL).v_prediction && contents_of(NULL).zero_snr);
    CHECK(contents_of("{\"modelspec.predict_key\":\"epsilon\"}").v_prediction);
    end();
}

static void check_scheduler(const char *class_name, const char *prediction)
{
    struct error err;
    struct json *json = NULL;
    struct checkpoint *checkpoint = NULL;
    CHECK_INT(checkpoint_open(&checkpoint, write_file(NULL), &err), STATUS_OK);
    CHECK_INT(checkpoint_config(checkpoint, "scheduler", &json, &err), STATUS_OK);
    CHECK_STR(json_text(json_member(json_root(json), "_class_name")), class_name);
    CHECK_STR(json_text(json_member(json_root(json), "prediction_type")), prediction);
    json_close(json);
    checkpoint_close(checkpoint);
}

TEST(each_kind_has_the_scheduler_that_its_publisher_gave_it)
{
    begin("sd1");
    check_scheduler("PNDMScheduler", "epsilon");
    checkpoint_file_drop(file, UNET "input_blocks.0.0.weight");
    add(UNET "input_blocks.0.0.weight", SAFETENSORS_F16, 4, (int64_t[]){32, 9, 3, 3});
    CHECK(contents_of(NULL).inpainting);
    check_scheduler("DDIMScheduler", "epsilon");
    end();
    begin("sd2-base");
    check_scheduler("PNDMScheduler", "epsilon");
    end();
    begin("sd2-v");
    check_scheduler("DDIMScheduler", "v_prediction");
    end();
    begin("sdxl");
    check_scheduler("EulerDiscreteScheduler", "epsilon");
    end();
}

static void check_opens(void)
{
    struct error err;
    struct engine *engine = NULL;
    const struct engine_options options = {.model_path = write_file(NULL), .threads = 1};
    if (engine_open(&engine, &options, &err) < 0) {
        test_report(__FILE__, __LINE__, err.text);
    }
    engine_close(engine);
}

TEST(unets_with_more_inputs_open)
{
    begin("sd1");
    add(UNET "time_embed.cond_proj.weight", SAFETENSORS_F16, 2, (int64_t[]){32, 256});
    check_opens();
    checkpoint_file_rename(file, UNET "time_embed.cond_proj.", UNET "time_embedding.cond_proj.");
    check_opens();
    end();
    begin("sdxl");
    checkpoint_file_drop(file, UNET "input_blocks.0.0.weight");
    add(UNET "input_blocks.0.0.weight", SAFETENSORS_F32, 4, (int64_t[]){64, 9, 3, 3});
    check_opens();
    end();
}

TEST_MAIN()
