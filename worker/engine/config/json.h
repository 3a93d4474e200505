/* Reading JSON that other people wrote: config files, index files, vocabularies, tensor headers.
 *
 * A document is opened, read with typed getters, and finished. Getters never fail: what is missing
 * or has the wrong type is recorded under its key, a harmless value is returned, and json_finish
 * gives one error that names the file and every problem. Keys nobody asks for are ignored, as
 * config files carry many that do not concern us.
 *
 * Limits, checked before anything is allocated: 16 MiB of text, 1,000,000 values, 64 levels.
 * The only place of the engine that knows cJSON.
 */
#ifndef WORKER_ENGINE_CONFIG_JSON_H
#define WORKER_ENGINE_CONFIG_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/error.h"

#define JSON_SIZE_MAX ((size_t)16 << 20)
#define JSON_VALUES_MAX 1000000
#define JSON_DEPTH_MAX 64

struct json;       /* a document, the problems found in it, and its name */
struct json_value; /* one value inside a document; lives as long as the document */

enum json_kind { JSON_NULL, JSON_BOOL, JSON_NUMBER, JSON_STRING, JSON_ARRAY, JSON_OBJECT };

/* ---- Documents ------------------------------------------------------------------------------ */

/* Read and parse the file at path; its root must be an object. STATUS_NOT_FOUND, STATUS_IO,
 * STATUS_TOO_LARGE, or STATUS_CORRUPT with the line of the first fault. */
int json_open(struct json **out, const char *path, struct error *err) MUST_CHECK;

/* The same for text in memory (not kept; needs no terminator); name stands for the file in errors.
 */
int json_parse(struct json **out, const char *name, const char *text, size_t length,
               struct error *err) MUST_CHECK;

/* Everything obtained from the document dies with it. Accepts NULL. */
void json_close(struct json *json);

/* The path, or the name given to json_parse. */
const char *json_name(const struct json *json);

/* 0, or STATUS_INVALID naming the file and every problem recorded so far. */
int json_finish(const struct json *json, struct error *err) MUST_CHECK;

/* Record a problem that the caller found, "key: what is wrong with it". */
void json_problem(struct json *json, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* ---- Members of the root object -------------------------------------------------------------
 *
 * Plain getters return otherwise when the key is absent or null; the _required ones record it as
 * missing (and return 0, false or ""). A value of the wrong type or outside [min, max] is recorded.
 */
bool json_has(const struct json *json, const char *key); /* present and not null */

int json_int(struct json *json, const char *key, int min, int max, int otherwise);
int json_int_required(struct json *json, const char *key, int min, int max);
double json_number(struct json *json, const char *key, double otherwise);
double json_number_required(struct json *json, const char *key);
bool json_bool(struct json *json, const char *key, bool otherwise);
const char *json_string(struct json *json, const char *key, const char *otherwise);
const char *json_string_required(struct json *json, const char *key);

/* A list of integers or strings of count_min to count_max entries, required. Returns the count;
 * 0 when recorded as a problem. out holds count_max. */
int json_ints(struct json *json, const char *key, int min, int max, int *out, int count_min,
              int count_max);
int json_strings(struct json *json, const char *key, const char **out, int count_min,
                 int count_max);

/* What diffusers writes either as one number or as one per block: fills out[0..count) with the
 * number repeated, or with the list, which must have exactly count entries; with otherwise when
 * absent or null. */
void json_ints_spread(struct json *json, const char *key, int min, int max, int otherwise, int *out,
                      int count);
void json_bools_spread(struct json *json, const char *key, bool otherwise, bool *out, int count);

/* ---- Any value ------------------------------------------------------------------------------
 *
 * For files that are data rather than options. Every function accepts a NULL value: it has kind
 * JSON_NULL, no members and no text.
 */
const struct json_value *json_root(const struct json *json);

/* The first member with this key, or NULL. Linear: walk large objects with json_first/json_next. */
const struct json_value *json_member(const struct json_value *object, const char *key);

/* The first child of an array or object, and the sibling after a child; NULL at the end. */
const struct json_value *json_first(const struct json_value *parent);
const struct json_value *json_next(const struct json_value *child);

enum json_kind json_kind(const struct json_value *value);
const char *json_key(const struct json_value *member);  /* NULL for array entries */
const char *json_text(const struct json_value *string); /* NULL unless a string */
bool json_truth(const struct json_value *value);        /* true only for true */
double json_real(const struct json_value *number);      /* NaN unless a number */

/* True and *out when the value is a whole number in [min, max]. Numbers beyond 2^53 are not exact
 * in JSON as it is read here and never pass. */
bool json_whole(const struct json_value *number, int64_t min, int64_t max, int64_t *out);

/* ---- Writing -------------------------------------------------------------------------------- */

/* text as a JSON string, quotes included. xfree it. */
char *json_quote(const char *text);

#endif
