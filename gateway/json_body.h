/* A request body to JSON, refusing precisely what is not JSON: where it stops being valid UTF-8, an
 * escaped NUL (which would end a C string early), the place where the syntax breaks, too many
 * fields, a name that is given twice. */
#ifndef GATEWAY_JSON_BODY_H
#define GATEWAY_JSON_BODY_H

#include <stddef.h>

#include <cjson/cJSON.h>

#include "common/base/error.h"

/* Far more than any request has: nobody makes the loop compare thousands of names. */
#define JSON_BODY_FIELDS_MAX 128

/* The root object (cJSON_Delete), or NULL and *err with one sentence for the client. text must
 * have a NUL at text[size]. */
cJSON *json_body_parse(const char *text, size_t size, struct error *err);

#endif
