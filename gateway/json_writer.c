/* Text that grows: see json_writer.h. Room for the longest form of a value is taken before it is
 * written, so nothing is measured twice. */
#include "gateway/json_writer.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "common/base/panic.h"

#define FIRST_BYTES 2048 /* the body of most jobs */
#define ESCAPE_BYTES 6   /* of one character at most: \u000B */
#define INTEGER_MAX 1e15 /* below it, "%.15g" writes every digit of a whole number */

/* At least `size` more bytes, and the NUL; returns where they begin. */
static char *take_room(struct json_writer *w, size_t size)
{
    if (size >= w->capacity - w->size) {
        w->capacity = 2 * w->capacity > w->size + size ? 2 * w->capacity : w->size + size + 1;
        w->text = xrealloc(w->text, w->capacity);
    }
    return w->text + w->size;
}

static void put(struct json_writer *w, const char *text, size_t size)
{
    memcpy(take_room(w, size), text, size);
    w->size += size;
}

static char *escape(char *to, unsigned char character)
{
    static const char letters[] = "\"\"\\\\\bb\ff\nn\rr\tt"; /* the character, what stands for it */
    static const char digits[] = "0123456789ABCDEF";
    *to++ = '\\';
    for (const char *pair = letters; *pair != '\0'; pair += 2) {
        if (character == (unsigned char)pair[0]) {
            *to++ = pair[1];
            return to;
        }
    }
    memcpy(to, "u00", 3);
    to[3] = digits[character >> 4];
    to[4] = digits[character & 15];
    return to + 5;
}

static void put_text(struct json_writer *w, const char *text)
{
    char *to = take_room(w, strlen(text) * ESCAPE_BYTES + 2);
    *to++ = '"';
    for (; *text != '\0'; text++) {
        unsigned char character = (unsigned char)*text;
        if (character < 0x20 || character == '"' || character == '\\') {
            to = escape(to, character);
        } else {
            *to++ = *text;
        }
    }
    *to++ = '"';
    w->size = (size_t)(to - w->text);
}

/* What stands before a value: the comma after the one before it, and its name. */
static void begin_value(struct json_writer *w, const char *name)
{
    if (w->has_values) {
        put(w, ",", 1);
    }
    if (name != NULL) {
        put_text(w, name);
        put(w, ":", 1);
    }
    w->has_values = true;
}

static void put_value(struct json_writer *w, const char *name, const char *text, size_t size)
{
    begin_value(w, name);
    put(w, text, size);
}

void json_writer_init(struct json_writer *w)
{
    *w = (struct json_writer){.text = xmalloc(FIRST_BYTES), .capacity = FIRST_BYTES};
}

char *json_writer_finish(struct json_writer *w)
{
    char *text = w->text;
    text[w->size] = '\0';
    w->text = NULL;
    return text;
}

void json_writer_open_object(struct json_writer *w, const char *name)
{
    put_value(w, name, "{", 1);
    w->has_values = false;
}

void json_writer_close_object(struct json_writer *w)
{
    put(w, "}", 1);
    w->has_values = true;
}

void json_writer_open_array(struct json_writer *w, const char *name)
{
    put_value(w, name, "[", 1);
    w->has_values = false;
}

void json_writer_close_array(struct json_writer *w)
{
    put(w, "]", 1);
    w->has_values = true;
}

void json_writer_text(struct json_writer *w, const char *name, const char *text)
{
    begin_value(w, name);
    put_text(w, text);
}

void json_writer_integer(struct json_writer *w, const char *name, uint64_t value)
{
    char digits[20];
    size_t at = sizeof(digits);
    do {
        digits[--at] = (char)('0' + value % 10);
        value /= 10;
    } while (value > 0);
    put_value(w, name, digits + at, sizeof(digits) - at);
}

void json_writer_real(struct json_writer *w, const char *name, double value)
{
    char text[32];
    ASSERT(isfinite(value));
    value = round(value * 1000) / 1000;
    if (value >= 0 && value < INTEGER_MAX && floor(value) == value) {
        json_writer_integer(w, name, (uint64_t)value);
        return;
    }
    int size = snprintf(text, sizeof(text), "%.15g", value);
    put_value(w, name, text, (size_t)size);
}

void json_writer_bool(struct json_writer *w, const char *name, bool value)
{
    put_value(w, name, value ? "true" : "false", value ? 4 : 5);
}

void json_writer_null(struct json_writer *w, const char *name)
{
    put_value(w, name, "null", 4);
}
