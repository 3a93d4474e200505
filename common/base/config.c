/* Every setting is read and judged on its own and problems are collected, so that a person fixes
 * all of them at once. A variable that is set but empty counts as unset: that is what compose files
 * and unit files make of a setting that nobody gave. */
#include "common/base/config.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "common/base/buf.h"
#include "common/base/panic.h"

#define NAME_BYTES_MAX 128
#define SECRET_BYTES_MAX 65536
#define VALUE_TEXT_MAX 64

struct unit {
    const char *name;
    int64_t factor;
};

/* Largest first, so that values print in the largest unit that divides them. */
static const struct unit duration_units[] = {
    {"h", 3600000}, {"m", 60000}, {"s", 1000}, {"ms", 1}, {NULL, 0}};
static const struct unit byte_units[] = {
    {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}, {"", 1}, {NULL, 0}};

/* What comes before the name: "%s%s", prefix_of(option), option->name. */
static const char *prefix_of(const struct config_option *option)
{
    return option->flags & CONFIG_WHOLE_NAME ? "" : "CRAFTERSE_";
}

/* ---- Values ---------------------------------------------------------------------------------- */

static bool parse_int(const char *text, int64_t *value, const char **end)
{
    char *stop = NULL;
    errno = 0;
    *value = strtoll(text, &stop, 10);
    *end = stop;
    return errno == 0 && stop != text && *text != ' ' && *text != '+';
}

static bool parse_with_unit(const char *text, const struct unit *units, int64_t *value)
{
    const char *end = NULL;
    if (!parse_int(text, value, &end) || *value < 0) {
        return false;
    }
    if (*value == 0 && *end == '\0') {
        return true;
    }
    for (; units->name != NULL; units++) {
        if (strcmp(end, units->name) == 0) {
            return !__builtin_mul_overflow(*value, units->factor, value);
        }
    }
    return false;
}

static bool parse_bool(const char *text, bool *value)
{
    static const char *const yes[] = {"true", "1", "yes"};
    static const char *const no[] = {"false", "0", "no"};
    for (size_t i = 0; i < 3; i++) {
        if (strcmp(text, yes[i]) == 0 || strcmp(text, no[i]) == 0) {
            *value = strcmp(text, yes[i]) == 0;
            return true;
        }
    }
    return false;
}

/* The choice as the table spells it (xfree), whatever the case of text; NULL when it is none. */
static char *find_choice(const char *choices, const char *text)
{
    size_t length = strlen(text);
    for (const char *at = choices; *at != '\0';) {
        size_t size = strcspn(at, "|");
        if (size == length && strncasecmp(at, text, size) == 0) {
            char *choice = xstrdup(at);
            choice[size] = '\0';
            return choice;
        }
        at += size + (at[size] == '|');
    }
    return NULL;
}

static const char *format_units(int64_t value, const struct unit *units, char text[VALUE_TEXT_MAX])
{
    while (units[1].name != NULL && (value == 0 || value % units->factor != 0)) {
        units++;
    }
    snprintf(text, VALUE_TEXT_MAX, "%" PRId64 "%s", value / units->factor, units->name);
    return text;
}

static const char *format_number(enum config_type type, int64_t value, char text[VALUE_TEXT_MAX])
{
    if (type == CONFIG_DURATION) {
        return format_units(value, duration_units, text);
    }
    if (type == CONFIG_BYTES) {
        return format_units(value, byte_units, text);
    }
    snprintf(text, VALUE_TEXT_MAX, "%" PRId64, value);
    return text;
}

static bool has_limits(const struct config_option *option)
{
    return option->min != 0 || option->max != 0;
}

/* What a right value looks like, for messages: "a whole number from 1 to 64". */
static const char *expected(const struct config_option *option, char text[256])
{
    char low[VALUE_TEXT_MAX], high[VALUE_TEXT_MAX], limits[2 * VALUE_TEXT_MAX + 16] = "";
    if (has_limits(option)) {
        snprintf(limits, sizeof(limits), " from %s to %s",
                 format_number(option->type, option->min, low),
                 format_number(option->type, option->max, high));
    }
    switch (option->type) {
    case CONFIG_STRING:
        snprintf(text, 256, "a text");
        break;
    case CONFIG_INT:
        snprintf(text, 256, "a whole number%s", limits);
        break;
    case CONFIG_BOOL:
        snprintf(text, 256, "true or false");
        break;
    case CONFIG_DURATION:
        snprintf(text, 256, "a duration such as 250ms, 5s, 20m or 1h%s", limits);
        break;
    case CONFIG_BYTES:
        snprintf(text, 256, "a size such as 4096, 64KiB, 16MiB or 1GiB%s", limits);
        break;
    case CONFIG_CHOICE:
        snprintf(text, 256, "one of %s", option->choices);
        break;
    }
    return text;
}

/* Parses text into the field; strings are copied. */
static bool set_value(const struct config_option *option, void *field, const char *text)
{
    const char *end = NULL;
    int64_t number = 0;
    bool good = false;
    switch (option->type) {
    case CONFIG_STRING:
        *(char **)field = xstrdup(text);
        return true;
    case CONFIG_CHOICE:
        *(char **)field = find_choice(option->choices, text);
        return *(char **)field != NULL;
    case CONFIG_BOOL:
        return parse_bool(text, field);
    case CONFIG_INT:
        good = parse_int(text, &number, &end) && *end == '\0';
        break;
    case CONFIG_DURATION:
        good = parse_with_unit(text, duration_units, &number);
        break;
    case CONFIG_BYTES:
        good = parse_with_unit(text, byte_units, &number);
        break;
    }
    if (!good || (has_limits(option) && (number < option->min || number > option->max))) {
        return false;
    }
    *(int64_t *)field = number;
    return true;
}

/* ---- Loading --------------------------------------------------------------------------------- */

static bool owns_text(const struct config_option *option)
{
    return option->type == CONFIG_STRING || option->type == CONFIG_CHOICE;
}

static void *field_of(const struct config_option *option, void *structure)
{
    return (char *)structure + option->offset;
}

/* More problems than fit are cut at the limit of struct error. */
__attribute__((format(printf, 2, 3))) static void add_problem(struct buf *problems,
                                                              const char *format, ...)
{
    char text[512];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    buf_printf(problems, NULL, "%s%s", problems->size > 0 ? "; " : "", text);
}

/* The secret's text (xfree), or NULL after adding a problem. */
static char *read_secret(const char *variable, const char *path, struct buf *problems)
{
    char *text = NULL;
    FILE *file = fopen(path, "re");
    if (file == NULL) {
        add_problem(problems, "%s: cannot open %s: %s", variable, path, strerror(errno));
        return NULL;
    }
    char *bytes = xmalloc(SECRET_BYTES_MAX + 1);
    size_t size = fread(bytes, 1, SECRET_BYTES_MAX + 1, file);
    if (ferror(file)) {
        add_problem(problems, "%s: cannot read %s: %s", variable, path, strerror(errno));
    } else if (size > SECRET_BYTES_MAX) {
        add_problem(problems, "%s: %s is over %d bytes: that is no secret", variable, path,
                    SECRET_BYTES_MAX);
    } else if (memchr(bytes, '\0', size) != NULL) {
        add_problem(problems, "%s: %s holds a NUL byte: write the secret as text", variable, path);
    } else {
        size -= size > 0 && bytes[size - 1] == '\n';
        size -= size > 0 && bytes[size - 1] == '\r';
        bytes[size] = '\0';
        text = bytes;
        bytes = NULL;
    }
    xfree(bytes);
    fclose(file);
    return text;
}

/* The variable's text when it is set and not empty, else NULL. */
static const char *environment(const char *variable)
{
    const char *text = getenv(variable);
    return text != NULL && text[0] != '\0' ? text : NULL;
}

static void load_option(const struct config_option *option, void *structure, struct buf *problems)
{
    char variable[NAME_BYTES_MAX], file_variable[NAME_BYTES_MAX + 8];
    snprintf(variable, sizeof(variable), "%s%s", prefix_of(option), option->name);
    snprintf(file_variable, sizeof(file_variable), "%s_FILE", variable);
    bool is_secret = option->flags & CONFIG_SECRET;
    const char *text = environment(variable);
    const char *path = is_secret ? environment(file_variable) : NULL;
    char *secret = NULL;
    if (text != NULL && path != NULL) {
        add_problem(problems, "%s and %s are both set: keep one", variable, file_variable);
        return;
    }
    if (path != NULL) {
        secret = read_secret(file_variable, path, problems);
        if (secret == NULL) {
            return;
        }
        text = secret;
    }
    if (text == NULL && option->flags & CONFIG_REQUIRED) {
        add_problem(problems, "%s is required: %s", variable, option->help);
    } else {
        const char *value = text != NULL ? text : option->default_text;
        value = value != NULL ? value : "";
        char wanted[256];
        if (value[0] == '\0' && !owns_text(option)) {
            value = "0";
        }
        if (!set_value(option, field_of(option, structure), value)) {
            add_problem(problems, "%s is \"%s\": expected %s", variable, is_secret ? "***" : value,
                        expected(option, wanted));
        }
    }
    xfree(secret);
}

int config_load(const struct config_option *const tables[], size_t table_count,
                void *const structs[], struct error *err)
{
    struct buf problems;
    buf_init(&problems, ERROR_TEXT_MAX - 64);
    for (size_t i = 0; i < table_count; i++) {
        for (const struct config_option *option = tables[i]; option->name != NULL; option++) {
            if (owns_text(option)) {
                *(char **)field_of(option, structs[i]) = NULL;
            }
        }
        for (const struct config_option *option = tables[i]; option->name != NULL; option++) {
            load_option(option, structs[i], &problems);
        }
    }
    int result = 0;
    if (problems.size > 0) {
        result = ERROR(err, STATUS_INVALID, "%s", problems.data);
        config_unload(tables, table_count, structs);
    }
    buf_deinit(&problems);
    return result;
}

void config_unload(const struct config_option *const tables[], size_t table_count,
                   void *const structs[])
{
    for (size_t i = 0; i < table_count; i++) {
        for (const struct config_option *option = tables[i]; option->name != NULL; option++) {
            if (owns_text(option)) {
                char **text = field_of(option, structs[i]);
                xfree(*text);
                *text = NULL;
            }
        }
    }
}

/* ---- Printing -------------------------------------------------------------------------------- */

static const char *default_of(const struct config_option *option)
{
    return option->default_text != NULL ? option->default_text : "";
}

static void print_value(FILE *out, const struct config_option *option, void *field)
{
    char text[VALUE_TEXT_MAX];
    const char *value = text;
    if (owns_text(option)) {
        value = *(char **)field != NULL ? *(char **)field : "";
    } else if (option->type == CONFIG_BOOL) {
        value = *(bool *)field ? "true" : "false";
    } else {
        format_number(option->type, *(int64_t *)field, text);
    }
    bool is_hidden = option->flags & CONFIG_SECRET && value[0] != '\0';
    bool is_default = strcmp(value, default_of(option)) == 0;
    fprintf(out, "%s%s=%s%s\n", prefix_of(option), option->name, is_hidden ? "***" : value,
            is_default ? " (default)" : "");
}

void config_print(FILE *out, const struct config_option *const tables[], size_t table_count,
                  void *const structs[])
{
    for (size_t i = 0; i < table_count; i++) {
        for (const struct config_option *option = tables[i]; option->name != NULL; option++) {
            print_value(out, option, field_of(option, structs[i]));
        }
    }
}

static const char *note(const struct config_option *option)
{
    unsigned flags = option->flags;
    return flags & CONFIG_REQUIRED ? "required" : flags & CONFIG_SECRET ? "secret" : "";
}

void config_print_markdown(FILE *out, const struct config_option *table)
{
    fprintf(out, "| Variable | Value | Default | Meaning |\n| --- | --- | --- | --- |\n");
    for (const struct config_option *option = table; option->name != NULL; option++) {
        char text[256];
        expected(option, text);
        fprintf(out, "| `%s%s` | ", prefix_of(option), option->name);
        /* A bar inside a cell would end it. */
        for (const char *at = text; *at != '\0'; at++) {
            fputs(*at == '|' ? ", " : (char[]){*at, '\0'}, out);
        }
        bool has_default = default_of(option)[0] != '\0';
        fprintf(out, " | %s%s%s | %s%s |\n", has_default ? "`" : "",
                has_default ? default_of(option) : note(option), has_default ? "`" : "",
                option->help,
                option->flags & CONFIG_SECRET ? " A file may hold it: append `_FILE` to the name."
                                              : "");
    }
}

void config_print_help(FILE *out, const struct config_option *table)
{
    for (const struct config_option *option = table; option->name != NULL; option++) {
        char text[256];
        const char *prefix = prefix_of(option);
        fprintf(out, "  %s%s\n      %s\n      %c%s", prefix, option->name, option->help,
                expected(option, text)[0] & ~0x20, text + 1);
        if (default_of(option)[0] != '\0') {
            fprintf(out, "; default %s", default_of(option));
        }
        if (option->flags & CONFIG_REQUIRED) {
            fprintf(out, "; required");
        }
        if (option->flags & CONFIG_SECRET) {
            fprintf(out, "; secret: %s%s_FILE may name a file that holds it", prefix, option->name);
        }
        fprintf(out, "\n");
    }
}
