/* JSON text, front to back: see json_writer.h. */
#include "gateway/json_writer.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "common/base/panic.h"

/* What is written is bounded by what Kafka carries, far below this. */
#define BYTES_MAX ((size_t)64 << 20)

static void put(struct json_writer *w, const char *data, size_t size)
{
    struct error err;
    if (buf_append(&w->text, data, size, &err) != 0) {
        PANIC("JSON: %s", err.text);
    }
}

static void put_escaped(struct json_writer *w, unsigned char c)
{
    static const char letters[] = "btn-fr"; /* 8 to 13; 11 has none */
    char text[8];
    int size = c == '"' || c == '\\'          ? snprintf(text, sizeof(text), "\\%c", c)
               : c >= 8 && c <= 13 && c != 11 ? snprintf(text, sizeof(text), "\\%c", letters[c - 8])
                                              : snprintf(text, sizeof(text), "\\u%04x", c);
    put(w, text, (size_t)size);
}

static bool must_escape(unsigned char c)
{
    return c < 0x20 || c == '"' || c == '\\';
}

static void put_quoted(struct json_writer *w, const char *text)
{
    put(w, "\"", 1);
    for (;;) {
        size_t size = 0;
        while (!must_escape((unsigned char)text[size])) {
            size++;
        }
        put(w, text, size);
        if (text[size] == '\0') {
            break;
        }
        put_escaped(w, (unsigned char)text[size]);
        text += size + 1;
    }
    put(w, "\"", 1);
}

static void begin_value(struct json_writer *w, const char *name)
{
    if (w->has_sibling) {
        put(w, ",", 1);
    }
    w->has_sibling = true;
    if (name != NULL) {
        put_quoted(w, name);
        put(w, ":", 1);
    }
}

void json_writer_init(struct json_writer *w)
{
    buf_init(&w->text, BYTES_MAX);
    w->has_sibling = false;
}

char *json_writer_finish(struct json_writer *w)
{
    size_t size;
    char *text = buf_take(&w->text, &size);
    buf_deinit(&w->text);
    return text;
}

void json_writer_open(struct json_writer *w, const char *name, char bracket)
{
    ASSERT(bracket == '{' || bracket == '[');
    begin_value(w, name);
    put(w, &bracket, 1);
    w->has_sibling = false;
}

void json_writer_close(struct json_writer *w, char bracket)
{
    ASSERT(bracket == '}' || bracket == ']');
    put(w, &bracket, 1);
    w->has_sibling = true;
}

void json_writer_text(struct json_writer *w, const char *name, const char *text)
{
    begin_value(w, name);
    put_quoted(w, text);
}

void json_writer_integer(struct json_writer *w, const char *name, uint64_t value)
{
    char digits[20];
    size_t at = sizeof(digits);
    do {
        digits[--at] = (char)('0' + value % 10);
        value /= 10;
    } while (value > 0);
    begin_value(w, name);
    put(w, digits + at, sizeof(digits) - at);
}

void json_writer_real(struct json_writer *w, const char *name, double value)
{
    char text[32];
    ASSERT(isfinite(value));
    int size = snprintf(text, sizeof(text), "%.15g", round(value * 1000) / 1000);
    begin_value(w, name);
    put(w, text, (size_t)size);
}

void json_writer_bool(struct json_writer *w, const char *name, bool value)
{
    begin_value(w, name);
    put(w, value ? "true" : "false", value ? 4 : 5);
}

void json_writer_null(struct json_writer *w, const char *name)
{
    begin_value(w, name);
    put(w, "null", 4);
}
