/* A digest names a model: the same content anywhere, and nothing else, has the same one. */
#include "worker/engine/weights/model_digest.h"

#include "tests/harness/test.h"
#include "tests/support/scratch.h"

static void write_small(struct scratch *scratch)
{
    scratch_create(scratch);
    scratch_text(scratch, "model_index.json", "{}");
    scratch_text(scratch, "unet/config.json", "{\"a\":1}");
    scratch_text(scratch, "unet/diffusion_pytorch_model.safetensors", "0123456789");
    scratch_text(scratch, "tokenizer/merges.txt", "a b");
}

static const char *digest_of(const char *path, char hex[MODEL_DIGEST_SIZE])
{
    struct error err;
    if (model_digest(path, hex, &err) < 0) {
        test_report(__FILE__, __LINE__, err.text);
    }
    return hex;
}

TEST(the_digest_is_that_of_names_sizes_and_contents)
{
    struct scratch one, two;
    char a[MODEL_DIGEST_SIZE], b[MODEL_DIGEST_SIZE];
    write_small(&one);
    write_small(&two);
    /* printf 'model_index.json 2\n{}tokenizer/merges.txt 3\na bunet/config.json 7\n{"a":1}unet/
     * diffusion_pytorch_model.safetensors 10\n0123456789' | sha256sum */
    CHECK_STR(digest_of(one.dir, a),
              "c2b63758c19d61c24eb70ca59e6202271e8f89d1f3ae59538cc01ab7c2d84672");
    CHECK_STR(digest_of(two.dir, b), a);
    scratch_text(&two, "README.md", "not part of the model");
    scratch_text(&two, ".cache/x.json", "{}");
    CHECK_STR(digest_of(two.dir, b), a);
    char slashed[sizeof(two.dir) + 1];
    snprintf(slashed, sizeof(slashed), "%s/", two.dir);
    CHECK_STR(digest_of(slashed, b), a);
    scratch_text(&two, "unet/config.json", "{\"a\":2}");
    CHECK(strcmp(digest_of(two.dir, b), a) != 0);
    scratch_remove(&one);
    scratch_remove(&two);
}

TEST(a_large_file_is_sampled_at_both_ends_and_between)
{
    const off_t size = (65 << 20) + 4321;
    const off_t places[] = {0, 500000, (1 << 20) + 100, size - 1};
    struct scratch scratch;
    char before[MODEL_DIGEST_SIZE], after[MODEL_DIGEST_SIZE];
    scratch_create(&scratch);
    const char *path = scratch_text(&scratch, "model.safetensors", "");
    CHECK_INT(truncate(path, size), 0);
    digest_of(scratch.dir, before);
    for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
        FILE *file = fopen(path, "r+b");
        REQUIRE(file != NULL);
        CHECK(fseeko(file, places[i], SEEK_SET) == 0 && fputc('x', file) == 'x');
        fclose(file);
        CHECK(strcmp(digest_of(scratch.dir, after), before) != 0);
        memcpy(before, after, sizeof(before));
    }
    CHECK_INT(truncate(path, size - 1), 0);
    CHECK(strcmp(digest_of(scratch.dir, after), before) != 0);
    scratch_remove(&scratch);
}

TEST(a_single_file_has_a_digest_too)
{
    struct scratch scratch;
    char hex[MODEL_DIGEST_SIZE];
    scratch_create(&scratch);
    digest_of(scratch_text(&scratch, "sdxl.ckpt", "weights"), hex);
    CHECK_INT(strlen(hex), 64);
    scratch_remove(&scratch);
}

TEST(a_folder_without_a_model_is_not_found)
{
    struct scratch scratch;
    struct error err;
    char hex[MODEL_DIGEST_SIZE];
    scratch_create(&scratch);
    CHECK_INT(model_digest(scratch.dir, hex, &err), STATUS_NOT_FOUND);
    CHECK_CONTAINS(err.text, scratch.dir);
    CHECK_STR(hex, "");
    CHECK_INT(model_digest("/nonexistent", hex, &err), STATUS_NOT_FOUND);
    CHECK_CONTAINS(err.text, "/nonexistent");
    scratch_remove(&scratch);
}

TEST_MAIN()
