/* Any bytes as a config file: every getter stays in its range, whatever it finds. */
#include <math.h>
#include <string.h>

#include "common/base/panic.h"
#include "tests/fuzz/fuzz.h"
#include "worker/engine/config/json.h"

#define LIST_MAX 8

static void read_scalars(struct json *json, const char *key)
{
    int number = json_int(json, key, -3, 100, 5);
    ASSERT(number >= -3 && number <= 100);
    ASSERT(isfinite(json_number(json, key, 0.5)));
    (void)json_bool(json, key, true);
    ASSERT(json_string(json, key, "") != NULL);
    ASSERT(json_string_required(json, key) != NULL);
    (void)json_int_required(json, key, 0, 9);
}

static void read_lists(struct json *json, const char *key)
{
    int ints[LIST_MAX];
    bool bools[LIST_MAX];
    const char *strings[LIST_MAX];
    int count = json_ints(json, key, 0, 50, ints, 1, LIST_MAX);
    for (int i = 0; i < count; i++) {
        ASSERT(ints[i] >= 0 && ints[i] <= 50);
    }
    count = json_strings(json, key, strings, 0, LIST_MAX);
    for (int i = 0; i < count; i++) {
        ASSERT(strings[i] != NULL);
    }
    json_ints_spread(json, key, 0, 9, 1, ints, 3);
    json_bools_spread(json, key, false, bools, 3);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct error err;
    struct json *json = NULL;
    if (json_parse(&json, "config.json", (const char *)data, size, &err) < 0) {
        ASSERT(strstr(err.text, "config.json") != NULL);
        return 0;
    }
    for (const struct json_value *at = json_first(json_root(json)); at != NULL;
         at = json_next(at)) {
        read_scalars(json, json_key(at));
        read_lists(json, json_key(at));
    }
    int result = json_finish(json, &err);
    ASSERT(result == STATUS_OK || strstr(err.text, "config.json") != NULL);
    json_close(json);
    return 0;
}
