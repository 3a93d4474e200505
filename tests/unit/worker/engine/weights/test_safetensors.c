/* Files that lie get one clear error that names the file and every problem. */
#include "worker/engine/weights/safetensors.h"

#include <stdbool.h>
#include <stdint.h>

#include "common/base/panic.h"
#include "tests/harness/test.h"
#include "tests/support/scratch.h"

static struct scratch scratch;

/* A file with this header, claiming to be claimed bytes long (or the truth: -1), and data_size
 * bytes of data. */
static const char *write_file(const char *header, int64_t claimed, size_t data_size)
{
    size_t length = strlen(header);
    uint64_t claim = claimed >= 0 ? (uint64_t)claimed : length;
    char *bytes = xcalloc(8 + length + data_size, 1);
    for (int i = 0; i < 8; i++) {
        bytes[i] = (char)(claim >> (8 * i));
    }
    memcpy(bytes + 8, header, length);
    const char *path = scratch_write(&scratch, "model.safetensors", bytes, 8 + length + data_size);
    xfree(bytes);
    return path;
}

/* The error of opening the file at path; "" when it opens. */
static const char *open_error(const char *path, enum status expected)
{
    static struct error err;
    struct safetensors *file = NULL;
    err.text[0] = '\0';
    CHECK_INT(safetensors_open(&file, path, &err), expected);
    CHECK((file != NULL) == (expected == STATUS_OK));
    if (expected != STATUS_OK) {
        CHECK_CONTAINS(err.text, path);
    }
    safetensors_close(file);
    return err.text;
}

static const char *header_error(const char *header, size_t data_size)
{
    return open_error(write_file(header, -1, data_size), STATUS_CORRUPT);
}

#define TENSOR(name, dtype, shape, begin, end) \
    "\"" name "\":{\"dtype\":\"" dtype "\",\"shape\":[" shape "],\"data_offsets\":[" #begin \
    "," #end "]}"

TEST(a_sound_file_gives_its_tensors_by_name)
{
    struct safetensors *file = NULL;
    struct error err;
    scratch_create(&scratch);
    const char *path = write_file(
        "{\"__metadata__\":{\"format\":\"pt\"}," TENSOR("b", "F32", "2,3", 0, 24) "," TENSOR(
            "a", "BF16", "", 24, 26) "," TENSOR("empty", "I64", "0,5", 26, 26) "}",
        -1, 26);
    REQUIRE(safetensors_open(&file, path, &err) == STATUS_OK);
    CHECK_INT(safetensors_count(file), 3);
    CHECK_STR(safetensors_entry_at(file, 0)->name, "a");
    CHECK_STR(safetensors_metadata(file, "format"), "pt");
    CHECK(safetensors_metadata(file, "other") == NULL);
    const struct safetensors_entry *b = safetensors_find(file, "b");
    REQUIRE(b != NULL);
    CHECK_INT(b->rank, 2);
    CHECK_INT(b->shape[1], 3);
    CHECK_INT(b->size, 24);
    CHECK_STR(safetensors_dtype_name(b->dtype), "F32");
    CHECK_INT(safetensors_find(file, "a")->rank, 0);
    CHECK_INT(safetensors_find(file, "empty")->size, 0);
    CHECK(safetensors_find(file, "c") == NULL);
    safetensors_close(file);
    scratch_remove(&scratch);
}

TEST(what_is_no_safetensors_file_is_refused)
{
    scratch_create(&scratch);
    CHECK_CONTAINS(open_error(scratch_path(&scratch, "missing"), STATUS_NOT_FOUND), "No such file");
    CHECK_CONTAINS(open_error(scratch.dir, STATUS_INVALID), "not a regular file");
    CHECK_CONTAINS(open_error(scratch_text(&scratch, "empty", ""), STATUS_CORRUPT), "0 bytes");
    CHECK_CONTAINS(open_error(scratch_text(&scratch, "short", "1234567"), STATUS_CORRUPT),
                   "too short");
    CHECK_CONTAINS(open_error(scratch_text(&scratch, "text", "version https://git-lfs.github.com"),
                              STATUS_CORRUPT),
                   "not a safetensors file");
    CHECK_CONTAINS(open_error(scratch_text(&scratch, "pickle", "\x80\x02}q\x01(X\x05 something"),
                              STATUS_CORRUPT),
                   "header claims");
    scratch_remove(&scratch);
}

TEST(a_header_that_is_cut_off_or_huge_is_refused_before_it_is_read)
{
    scratch_create(&scratch);
    CHECK_CONTAINS(open_error(write_file("{}", 3, 0), STATUS_CORRUPT), "header claims 3 bytes");
    CHECK_CONTAINS(open_error(write_file("{}", INT64_MAX, 0), STATUS_CORRUPT),
                   "9223372036854775807");
    const char *path = write_file("{}", 17 << 20, 0);
    CHECK_INT(truncate(path, 18 << 20), 0);
    CHECK_CONTAINS(open_error(path, STATUS_CORRUPT), "the limit is");
    scratch_remove(&scratch);
}

TEST(a_header_that_is_no_json_object_is_refused)
{
    scratch_create(&scratch);
    CHECK_CONTAINS(header_error("{\"a\":", 0), "not valid JSON");
    CHECK_CONTAINS(header_error("[1]", 0), "one JSON object");
    CHECK_CONTAINS(header_error("{} {}", 0), "one JSON object");
    CHECK_CONTAINS(header_error("{\"a\xff\":1}", 0), "not UTF-8");
    CHECK_CONTAINS(header_error("", 0), "JSON");
    char deep[2048] = "{\"a\":";
    memset(deep + 5, '[', sizeof(deep) - 6);
    CHECK_CONTAINS(header_error(deep, 0), "nested deeper");
    scratch_remove(&scratch);
}

TEST(tensors_must_say_dtype_shape_and_offsets)
{
    scratch_create(&scratch);
    CHECK_CONTAINS(header_error("{\"a\":1}", 0), "a: expected dtype, shape and data_offsets");
    CHECK_CONTAINS(header_error("{" TENSOR("a", "F33", "1", 0, 4) "}", 4), "unknown dtype F33");
    CHECK_CONTAINS(header_error("{\"a\":{\"shape\":[1],\"data_offsets\":[0,4]}}", 4), "(missing)");
    CHECK_CONTAINS(header_error("{\"a\":{\"dtype\":\"F32\",\"data_offsets\":[0,4]}}", 4),
                   "shape is missing");
    CHECK_CONTAINS(header_error("{\"a\":{\"dtype\":\"F32\",\"shape\":[1]}}", 4),
                   "data_offsets is missing");
    CHECK_CONTAINS(
        header_error("{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4,8]}}", 4),
        "not two whole numbers");
    scratch_remove(&scratch);
}

TEST(shapes_that_no_memory_holds_are_refused)
{
    scratch_create(&scratch);
    CHECK_CONTAINS(header_error("{" TENSOR("a", "F32", "-1", 0, 4) "}", 4), "no whole number");
    CHECK_CONTAINS(header_error("{" TENSOR("a", "F32", "1.5", 0, 4) "}", 4), "no whole number");
    CHECK_CONTAINS(header_error("{" TENSOR("a", "F32", "1e300", 0, 4) "}", 4), "no whole number");
    CHECK_CONTAINS(header_error("{" TENSOR("a", "F32", "4294967296,4294967296,4", 0, 4) "}", 4),
                   "larger than any memory");
    CHECK_CONTAINS(header_error("{" TENSOR("a", "F32", "1,1,1,1,1,1,1,1,1", 0, 4) "}", 4),
                   "more than 8 dimensions");
    scratch_remove(&scratch);
}

TEST(data_must_lie_inside_the_file_and_fit_the_shape)
{
    scratch_create(&scratch);
    CHECK_CONTAINS(header_error("{" TENSOR("a", "F32", "2", 0, 8) "}", 4), "past the 4 bytes");
    CHECK_CONTAINS(header_error("{" TENSOR("a", "F32", "2", 8, 0) "}", 8), "after its end");
    CHECK_CONTAINS(header_error("{" TENSOR("a", "F32", "2", -4, 4) "}", 8), "data_offsets");
    CHECK_CONTAINS(header_error("{" TENSOR("a", "F32", "3", 0, 8) "}", 8),
                   "make 12 bytes, data_offsets 8");
    CHECK_CONTAINS(header_error("{" TENSOR("a", "F16", "2", 0, 8) "}", 8), "make 4 bytes");
    scratch_remove(&scratch);
}

TEST(data_is_covered_exactly_once)
{
    scratch_create(&scratch);
    CHECK_CONTAINS(
        header_error("{" TENSOR("a", "U8", "4", 0, 4) "," TENSOR("b", "U8", "4", 2, 6) "}", 6),
        "b: overlaps a");
    CHECK_CONTAINS(
        header_error("{" TENSOR("a", "U8", "4", 0, 4) "," TENSOR("b", "U8", "4", 5, 9) "}", 9),
        "1 bytes between a and b belong to no tensor");
    CHECK_CONTAINS(header_error("{" TENSOR("a", "U8", "4", 0, 4) "}", 9),
                   "5 bytes after a belong to no tensor");
    CHECK_CONTAINS(header_error("{" TENSOR("a", "U8", "4", 1, 5) "}", 5), "the header and a");
    CHECK_CONTAINS(
        header_error("{" TENSOR("a", "U8", "4", 0, 4) "," TENSOR("a", "U8", "0", 4, 4) "}", 4),
        "a: listed twice");
    scratch_remove(&scratch);
}

TEST(every_problem_of_a_file_is_in_one_error)
{
    scratch_create(&scratch);
    const char *text =
        header_error("{" TENSOR("one", "F33", "1", 0, 4) "," TENSOR(
                         "two", "F32", "-1", 0, 4) "," TENSOR("three", "F32", "9", 0, 4) "}",
                     4);
    CHECK_CONTAINS(text, "3 problems");
    CHECK_CONTAINS(text, "one: unknown dtype");
    CHECK_CONTAINS(text, "two: shape");
    CHECK_CONTAINS(text, "three: shape and dtype make 36 bytes");
    scratch_remove(&scratch);
}

TEST(a_thousand_problems_are_counted_and_the_first_ones_shown)
{
    static char header[200000];
    size_t length = (size_t)snprintf(header, sizeof(header), "{");
    for (int i = 0; i < 1000; i++) {
        length += (size_t)snprintf(header + length, sizeof(header) - length,
                                   "%s\"tensor.%d\":{\"dtype\":\"Q4\"}", i > 0 ? "," : "", i);
    }
    snprintf(header + length, sizeof(header) - length, "}");
    scratch_create(&scratch);
    const char *text = header_error(header, 0);
    CHECK_CONTAINS(text, "1000 problems: tensor.0: unknown dtype Q4; tensor.1:");
    CHECK_CONTAINS(text, " more");
    CHECK(strlen(text) < ERROR_TEXT_MAX);
    scratch_remove(&scratch);
}

TEST(names_in_an_error_cannot_break_its_line)
{
    scratch_create(&scratch);
    const char *text = header_error("{\"a\\nlevel=fatal\":1}", 0);
    CHECK(strchr(text, '\n') == NULL);
    CHECK_CONTAINS(text, "a?level=fatal");
    scratch_remove(&scratch);
}

TEST(a_damaged_byte_anywhere_in_the_header_is_an_error_or_harmless)
{
    struct error err;
    const char header[] =
        "{" TENSOR("a", "F32", "2,2", 0, 16) "," TENSOR("b", "I64", "1", 16, 24) "}";
    int refused = 0;
    scratch_create(&scratch);
    for (size_t at = 0; at < sizeof(header) - 1; at++) {
        for (int value = 1; value < 256; value += 5) {
            char damaged[sizeof(header)];
            struct safetensors *file = NULL;
            memcpy(damaged, header, sizeof(header));
            damaged[at] = (char)value;
            int result = safetensors_open(&file, write_file(damaged, -1, 24), &err);
            refused += result < 0;
            CHECK((file != NULL) == (result == STATUS_OK));
            safetensors_close(file);
        }
    }
    CHECK(refused > 5000);
    scratch_remove(&scratch);
}

TEST(what_is_written_is_read_back)
{
    const float values[] = {1.0F, -2.5F, 3.25F, 0.0F, 1e-40F, 5.0F};
    const int64_t ids[] = {49406, -1};
    const struct safetensors_entry entries[] = {
        {.name = "z \"quoted\" \xc3\xa9",
         .dtype = SAFETENSORS_F32,
         .rank = 2,
         .shape = {2, 3},
         .data = values,
         .size = sizeof(values)},
        {.name = "ids",
         .dtype = SAFETENSORS_I64,
         .rank = 1,
         .shape = {2},
         .data = ids,
         .size = sizeof(ids)},
        {.name = "scalar", .dtype = SAFETENSORS_F32, .data = values, .size = sizeof(float)},
    };
    struct safetensors *file = NULL;
    struct error err;
    scratch_create(&scratch);
    const char *path = scratch_path(&scratch, "out.safetensors");
    CHECK_INT(safetensors_write(path, entries, 3, "{\"prompt\":\"a \\\"sword\\\"\"}", &err), 0);
    REQUIRE(safetensors_open(&file, path, &err) == STATUS_OK);
    CHECK_INT(safetensors_count(file), 3);
    const struct safetensors_entry *read = safetensors_find(file, entries[0].name);
    REQUIRE(read != NULL);
    CHECK_INT(read->shape[0], 2);
    CHECK(memcmp((const char *)read->data, (const char *)entries[0].data, sizeof(values)) == 0);
    read = safetensors_find(file, "ids");
    CHECK(memcmp((const char *)read->data, (const char *)entries[1].data, sizeof(ids)) == 0);
    CHECK_INT(safetensors_find(file, "scalar")->rank, 0);
    CHECK_STR(safetensors_metadata(file, "prompt"), "a \"sword\"");
    safetensors_close(file);
    scratch_remove(&scratch);
}

TEST(a_file_that_cannot_be_written_leaves_nothing_behind)
{
    struct error err;
    scratch_create(&scratch);
    const char *path = scratch_path(&scratch, "blocked");
    CHECK_INT(mkdir(path, 0755), 0);
    CHECK_INT(safetensors_write(path, NULL, 0, NULL, &err), STATUS_IO);
    CHECK_CONTAINS(err.text, "blocked");
    CHECK_INT(safetensors_write("/nonexistent/x.safetensors", NULL, 0, NULL, &err), STATUS_IO);
    CHECK_INT(rmdir(path), 0);
    CHECK_INT(rmdir(scratch.dir), 0);
}

TEST_MAIN()
