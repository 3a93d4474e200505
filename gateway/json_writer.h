/* JSON text written from front to back, for what is answered often (docs/adr/0008-json-writer.md).
 * The only file that knows yajl. Names and texts are escaped; that they are UTF-8 is the caller's
 * business. */
#ifndef GATEWAY_JSON_WRITER_H
#define GATEWAY_JSON_WRITER_H

#include <stdbool.h>
#include <stdint.h>

struct yajl_gen_t;

struct json_writer {
    struct yajl_gen_t *generator;
};

void json_writer_init(struct json_writer *w);
/* The text, owned by the caller (xfree); the writer is done. */
char *json_writer_finish(struct json_writer *w);

/* Each writes one value. name is that of the member, or NULL in an array and at the root. */
void json_writer_open_object(struct json_writer *w, const char *name);
void json_writer_close_object(struct json_writer *w);
void json_writer_open_array(struct json_writer *w, const char *name);
void json_writer_close_array(struct json_writer *w);
void json_writer_text(struct json_writer *w, const char *name, const char *text);
void json_writer_integer(struct json_writer *w, const char *name, uint64_t value);
/* Three decimals at most; finite. */
void json_writer_real(struct json_writer *w, const char *name, double value);
void json_writer_bool(struct json_writer *w, const char *name, bool value);
void json_writer_null(struct json_writer *w, const char *name);

#endif
