/* JSON text written from front to back, for what is answered often: cJSON builds a tree of some
 * seventy allocations to print a job once, which was a third of what a cache hit cost. Names and
 * texts are escaped (RFC 8259); that texts are UTF-8 is the caller's business. */
#ifndef GATEWAY_JSON_WRITER_H
#define GATEWAY_JSON_WRITER_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/buf.h"

struct json_writer {
    struct buf text;
    bool has_sibling; /* a value stands before, at this level */
};

void json_writer_init(struct json_writer *w);
/* The text, owned by the caller (xfree); the writer is done. */
char *json_writer_finish(struct json_writer *w);

/* Each writes one value. name is that of the member, or NULL in an array and at the root.
 * bracket is '{' or '[', and its counterpart to close. */
void json_writer_open(struct json_writer *w, const char *name, char bracket);
void json_writer_close(struct json_writer *w, char bracket);
void json_writer_text(struct json_writer *w, const char *name, const char *text);
void json_writer_integer(struct json_writer *w, const char *name, uint64_t value);
/* Three decimals at most; finite. */
void json_writer_real(struct json_writer *w, const char *name, double value);
void json_writer_bool(struct json_writer *w, const char *name, bool value);
void json_writer_null(struct json_writer *w, const char *name);

#endif
