/* yajl's generator: see json_writer.h. It fails only when values and names do not alternate as they
 * must, or numbers are infinite: our mistakes. */
#include "gateway/json_writer.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include <yajl/yajl_gen.h>

#include "common/base/panic.h"

#define INTEGER_MAX 1e15 /* below it, "%.15g" writes every digit of a whole number */

static void *take_memory(void *context, size_t size)
{
    (void)context;
    return xmalloc(size);
}

static void *resize_memory(void *context, void *memory, size_t size)
{
    (void)context;
    return xrealloc(memory, size);
}

static void free_memory(void *context, void *memory)
{
    (void)context;
    xfree(memory);
}

static void check(yajl_gen_status status)
{
    ASSERT(status == yajl_gen_status_ok);
}

static void put_text(struct json_writer *w, const char *text)
{
    check(yajl_gen_string(w->generator, (const unsigned char *)text, strlen(text)));
}

static void put_name(struct json_writer *w, const char *name)
{
    if (name != NULL) {
        put_text(w, name);
    }
}

void json_writer_init(struct json_writer *w)
{
    static const yajl_alloc_funcs memory = {take_memory, resize_memory, free_memory, NULL};
    w->generator = yajl_gen_alloc(&memory);
    ASSERT(w->generator != NULL);
}

char *json_writer_finish(struct json_writer *w)
{
    const unsigned char *text;
    size_t size;
    check(yajl_gen_get_buf(w->generator, &text, &size));
    char *copy = xmalloc(size + 1);
    memcpy(copy, text, size);
    copy[size] = '\0';
    yajl_gen_free(w->generator);
    w->generator = NULL;
    return copy;
}

void json_writer_open_object(struct json_writer *w, const char *name)
{
    put_name(w, name);
    check(yajl_gen_map_open(w->generator));
}

void json_writer_close_object(struct json_writer *w)
{
    check(yajl_gen_map_close(w->generator));
}

void json_writer_open_array(struct json_writer *w, const char *name)
{
    put_name(w, name);
    check(yajl_gen_array_open(w->generator));
}

void json_writer_close_array(struct json_writer *w)
{
    check(yajl_gen_array_close(w->generator));
}

void json_writer_text(struct json_writer *w, const char *name, const char *text)
{
    put_name(w, name);
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
    put_name(w, name);
    check(yajl_gen_number(w->generator, digits + at, sizeof(digits) - at));
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
    put_name(w, name);
    check(yajl_gen_number(w->generator, text, (size_t)size));
}

void json_writer_bool(struct json_writer *w, const char *name, bool value)
{
    put_name(w, name);
    check(yajl_gen_bool(w->generator, value));
}

void json_writer_null(struct json_writer *w, const char *name)
{
    put_name(w, name);
    check(yajl_gen_null(w->generator));
}
