/* Reading the values of a JSON request, one field at a time: a value of the right kind and range is
 * stored; anything else becomes a problem under the field's name and leaves what was there, so that
 * one pass names all that is wrong with a request. Pure. */
#ifndef GATEWAY_FIELD_READER_H
#define GATEWAY_FIELD_READER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cjson/cJSON.h>

#include "gateway/generation_request.h"
#include "gateway/problem.h"

struct field_reader {
    struct generation_request *out;
    const struct generation_limits *limits;
    const Crafterse__V1__Model *model; /* NULL: not known, so its limits cannot be checked */
    struct problem_list *problems;
};

struct field {
    const char *name;
    void (*read)(struct field_reader *r, const char *name, const cJSON *value);
};

/* "a text", "a number", ...: what a value is, for a problem's text. */
const char *field_kind(const cJSON *value);

/* Each stores into *out and returns true, or adds a problem and returns false. */
bool field_integer(struct field_reader *r, const char *name, const cJSON *value, uint64_t least,
                   uint64_t most, uint64_t *out);
bool field_number(struct field_reader *r, const char *name, const cJSON *value, double least,
                  double most, double *out);
bool field_bool(struct field_reader *r, const char *name, const cJSON *value, bool *out);
/* At most limits->prompt_characters_max characters, no control characters; frees what *out held.
 * The text is valid UTF-8 already (json_body.h). */
bool field_text(struct field_reader *r, const char *name, const cJSON *value, char **out);
/* The index of the choice, or -1 and a problem. */
int field_choice(struct field_reader *r, const char *name, const cJSON *value,
                 const char *const *choices, size_t count);

#endif
