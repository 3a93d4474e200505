#include "common/base/config.h"

#include <unistd.h>

#include "tests/harness/test.h"

struct sample {
    const char *name;
    const char *password;
    const char *store;
    int64_t lanes;
    int64_t wait_ms;
    int64_t limit_bytes;
    bool create;
};

static const struct config_option options[] = {
    {"T_NAME", CONFIG_STRING, offsetof(struct sample, name), NULL, 0, 0, NULL, CONFIG_REQUIRED,
     "What it is called."},
    {"T_PASSWORD", CONFIG_STRING, offsetof(struct sample, password), NULL, 0, 0, NULL,
     CONFIG_SECRET, "Opens the door."},
    {"T_STORE", CONFIG_CHOICE, offsetof(struct sample, store), "folder", 0, 0, "folder|s3", 0,
     "Where objects go."},
    {"T_LANES", CONFIG_INT, offsetof(struct sample, lanes), "8", 1, 64, NULL, 0, "How many."},
    {"T_WAIT", CONFIG_DURATION, offsetof(struct sample, wait_ms), "5s", 0, 0, NULL, 0, "How long."},
    {"T_LIMIT", CONFIG_BYTES, offsetof(struct sample, limit_bytes), "16MiB", 0, 0, NULL, 0,
     "How much."},
    {"T_CREATE", CONFIG_BOOL, offsetof(struct sample, create), "false", 0, 0, NULL, 0, "Whether."},
    {.name = NULL},
};

static const struct config_option *const tables[] = {options};

static void clear(void)
{
    static const char *const names[] = {"NAME",  "PASSWORD", "PASSWORD_FILE", "STORE",
                                        "LANES", "WAIT",     "LIMIT",         "CREATE"};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        char variable[64];
        snprintf(variable, sizeof(variable), "CRAFTERSE_T_%s", names[i]);
        unsetenv(variable);
    }
}

static void set(const char *name, const char *value)
{
    char variable[64];
    snprintf(variable, sizeof(variable), "CRAFTERSE_T_%s", name);
    setenv(variable, value, 1);
}

static int load(struct sample *sample, struct error *err)
{
    return config_load(tables, 1, (void *[]){sample}, err);
}

static void unload(struct sample *sample)
{
    config_unload(tables, 1, (void *[]){sample});
}

TEST(defaults_hold_for_what_is_unset_or_empty)
{
    struct sample sample;
    struct error err = {0};
    clear();
    set("NAME", "x");
    set("LANES", "");
    REQUIRE(load(&sample, &err) == 0);
    CHECK_STR(sample.name, "x");
    CHECK_STR(sample.password, "");
    CHECK_STR(sample.store, "folder");
    CHECK_INT(sample.lanes, 8);
    CHECK_INT(sample.wait_ms, 5000);
    CHECK_INT(sample.limit_bytes, 16 << 20);
    CHECK(!sample.create);
    unload(&sample);
    CHECK(sample.name == NULL);
}

TEST(reads_every_unit)
{
    static const struct {
        const char *text;
        int64_t milliseconds;
    } durations[] = {{"250ms", 250}, {"5s", 5000}, {"20m", 1200000}, {"1h", 3600000}, {"0", 0}};
    static const struct {
        const char *text;
        int64_t bytes;
    } sizes[] = {{"4096", 4096}, {"64KiB", 65536}, {"16MiB", 16 << 20}, {"1GiB", 1 << 30}};
    clear();
    set("NAME", "x");
    set("CREATE", "yes");
    for (int i = 0; i < 5; i++) {
        struct sample sample;
        struct error err = {0};
        set("WAIT", durations[i].text);
        set("LIMIT", sizes[i % 4].text);
        REQUIRE(load(&sample, &err) == 0);
        CHECK_INT(sample.wait_ms, durations[i].milliseconds);
        CHECK_INT(sample.limit_bytes, sizes[i % 4].bytes);
        CHECK(sample.create);
        unload(&sample);
    }
}

TEST(a_choice_in_another_case_is_taken_as_the_table_spells_it)
{
    struct sample sample;
    struct error err = {0};
    clear();
    set("NAME", "x");
    set("STORE", "S3");
    REQUIRE(load(&sample, &err) == 0);
    CHECK_STR(sample.store, "s3");
    unload(&sample);
    set("STORE", "s3|folder");
    CHECK_INT(load(&sample, &err), STATUS_INVALID);
    set("STORE", "s");
    CHECK_INT(load(&sample, &err), STATUS_INVALID);
}

TEST(all_problems_are_reported_at_once_with_name_value_and_remedy)
{
    struct sample sample;
    struct error err = {0};
    clear();
    set("STORE", "ftp");
    set("LANES", "65");
    set("WAIT", "5");
    set("LIMIT", "lots");
    set("CREATE", "maybe");
    CHECK_INT(load(&sample, &err), STATUS_INVALID);
    CHECK_CONTAINS(err.text, "CRAFTERSE_T_NAME is required: What it is called.");
    CHECK_CONTAINS(err.text, "CRAFTERSE_T_STORE is \"ftp\": expected one of folder|s3");
    CHECK_CONTAINS(err.text, "CRAFTERSE_T_LANES is \"65\": expected a whole number from 1 to 64");
    CHECK_CONTAINS(err.text, "CRAFTERSE_T_WAIT is \"5\": expected a duration such as 250ms");
    CHECK_CONTAINS(err.text, "CRAFTERSE_T_LIMIT is \"lots\": expected a size such as");
    CHECK_CONTAINS(err.text, "CRAFTERSE_T_CREATE is \"maybe\": expected true or false");
}

TEST(numbers_that_overflow_or_trail_garbage_are_problems)
{
    static const char *const bad[] = {"9223372036854775808", "8x", " 8", "+8", "-", "0x8", "1e1"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct sample sample;
        clear();
        set("NAME", "x");
        set("LANES", bad[i]);
        CHECK_INT(load(&sample, NULL), STATUS_INVALID);
    }
    struct sample sample;
    clear();
    set("NAME", "x");
    set("LIMIT", "9223372036854775807GiB");
    CHECK_INT(load(&sample, NULL), STATUS_INVALID);
    set("LIMIT", "-1KiB");
    CHECK_INT(load(&sample, NULL), STATUS_INVALID);
}

static void write_secret(const char *path, const void *bytes, size_t size)
{
    FILE *file = fopen(path, "w");
    fwrite(bytes, 1, size, file);
    fclose(file);
}

TEST(a_secret_may_come_from_a_file_and_is_never_shown)
{
    struct sample sample;
    struct error err = {0};
    char path[] = "/tmp/test_config.XXXXXX", printed[4096] = "";
    close(mkstemp(path));
    write_secret(path, "hunter2\n", 8);
    clear();
    set("NAME", "x");
    set("PASSWORD_FILE", path);
    REQUIRE(load(&sample, &err) == 0);
    CHECK_STR(sample.password, "hunter2");
    FILE *out = fmemopen(printed, sizeof(printed) - 1, "w");
    config_print(out, tables, 1, (void *[]){&sample});
    fclose(out);
    CHECK_CONTAINS(printed, "CRAFTERSE_T_PASSWORD=***\n");
    CHECK_CONTAINS(printed, "CRAFTERSE_T_NAME=x\n");
    CHECK_CONTAINS(printed, "CRAFTERSE_T_WAIT=5s (default)\n");
    CHECK_CONTAINS(printed, "CRAFTERSE_T_LIMIT=16MiB (default)\n");
    CHECK(strstr(printed, "hunter2") == NULL);
    unload(&sample);

    set("PASSWORD", "also");
    CHECK_INT(load(&sample, &err), STATUS_INVALID);
    CHECK_CONTAINS(err.text, "CRAFTERSE_T_PASSWORD and CRAFTERSE_T_PASSWORD_FILE are both set");
    unsetenv("CRAFTERSE_T_PASSWORD");
    write_secret(path, "a\0b", 3);
    CHECK_INT(load(&sample, &err), STATUS_INVALID);
    CHECK_CONTAINS(err.text, "NUL byte");
    unlink(path);
    CHECK_INT(load(&sample, &err), STATUS_INVALID);
    CHECK_CONTAINS(err.text, "cannot open");
}

TEST(help_and_markdown_name_every_setting_with_its_default)
{
    char text[8192] = "";
    FILE *out = fmemopen(text, sizeof(text) - 1, "w");
    config_print_help(out, options);
    config_print_markdown(out, options);
    fclose(out);
    CHECK_CONTAINS(text, "  CRAFTERSE_T_LANES\n      How many.\n      A whole number from 1 to 64; "
                         "default 8\n");
    CHECK_CONTAINS(text, "secret: CRAFTERSE_T_PASSWORD_FILE may name a file");
    CHECK_CONTAINS(text, "| `CRAFTERSE_T_STORE` | one of folder, s3 | `folder` | Where objects "
                         "go. |");
    CHECK_CONTAINS(text, "| `CRAFTERSE_T_NAME` | a text | required | What it is called. |");
}

/* As OpenTelemetry's variables are. */
TEST(a_setting_that_others_have_named_has_their_name)
{
    static const struct config_option whole[] = {
        {"T_OTHERS_KEY", CONFIG_STRING, 0, NULL, 0, 0, NULL, CONFIG_WHOLE_NAME | CONFIG_SECRET,
         "Theirs."},
        {.name = NULL},
    };
    static const struct config_option *const list[] = {whole};
    const char *key = NULL;
    char text[512];
    struct error err;
    setenv("CRAFTERSE_T_OTHERS_KEY", "ours", 1);
    setenv("T_OTHERS_KEY", "theirs", 1);
    REQUIRE(config_load(list, 1, (void *[]){&key}, &err) == 0);
    CHECK_STR(key, "theirs");
    FILE *out = fmemopen(text, sizeof(text), "w");
    config_print(out, list, 1, (void *[]){&key});
    config_print_markdown(out, whole);
    config_print_help(out, whole);
    fclose(out);
    CHECK_CONTAINS(text, "T_OTHERS_KEY=***\n");
    CHECK_CONTAINS(text, "| `T_OTHERS_KEY` | ");
    CHECK_CONTAINS(text, " T_OTHERS_KEY_FILE may name a file");
    CHECK(strstr(text, "CRAFTERSE_") == NULL && strstr(text, "theirs") == NULL);
    config_unload(list, 1, (void *[]){&key});
}

TEST_MAIN()
