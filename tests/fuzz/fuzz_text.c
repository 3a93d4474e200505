/* Any text where a setting, a URL, commit metadata or a log value is read. */
#include <stdlib.h>
#include <string.h>

#include "common/base/id.h"
#include "common/base/log.h"
#include "common/base/panic.h"
#include "common/base/utf8.h"
#include "common/bus/attempts.h"
#include "common/bus/topics.h"
#include "common/obs/exporter.h"
#include "common/obs/pairs.h"
#include "common/obs/trace.h"
#include "common/store/redis.h"
#include "tests/fuzz/fuzz.h"

static void check_quote(const char *text)
{
    const char *quoted = LOG_QUOTED(text);
    size_t length = strlen(quoted);
    ASSERT(length < LOG_QUOTED_MAX && length > 0 && utf8_is_valid(quoted, length));
    for (const char *at = quoted; *at != '\0'; at++) {
        ASSERT((unsigned char)*at >= ' ' && *at != 0x7F);
    }
    if (quoted[0] != '"') {
        ASSERT(strpbrk(quoted, " \"=\\") == NULL);
        return;
    }
    /* Only escaped quotes stand between the first and the last. */
    for (size_t i = 1; i < length - 1; i++) {
        if (quoted[i] == '\\') {
            i++;
        } else {
            ASSERT(quoted[i] != '"');
        }
    }
}

static void check_attempts(const char *text, size_t size)
{
    struct attempts a, again;
    char written[ATTEMPTS_TEXT_SIZE], rewritten[ATTEMPTS_TEXT_SIZE];
    attempts_parse(&a, 1000, text, size);
    ASSERT(a.count >= 0 && a.count <= ATTEMPTS_MAX);
    attempts_format(&a, 1000, written);
    attempts_parse(&again, 1000, written, strlen(written));
    attempts_format(&again, 1000, rewritten);
    ASSERT(strcmp(written, rewritten) == 0);
}

/* What a client may send, and what an operator may write. */
static void check_trace(const char *text)
{
    struct trace_context context, again;
    char written[TRACE_PARENT_SIZE];
    struct pairs pairs;
    struct error err;
    if (trace_parse(text, &context)) {
        trace_format(&context, written);
        ASSERT(trace_parse(written, &again));
        ASSERT(memcmp(context.trace_id, again.trace_id, TRACE_ID_BYTES) == 0);
        ASSERT(memcmp(context.span_id, again.span_id, TRACE_SPAN_ID_BYTES) == 0);
        ASSERT(context.is_sampled == again.is_sampled && context.is_random == again.is_random);
    }
    if (trace_state_is_valid(text)) {
        ASSERT(text[0] != '\0' && strlen(text) < TRACE_STATE_SIZE);
    }
    if (pairs_parse(&pairs, text, &err) == 0) {
        ASSERT(pairs.count <= PAIRS_MAX);
        pairs_deinit(&pairs);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct error err;
    char host[64];
    int port = 0;
    char **pools = NULL;
    size_t count = 0;
    struct redis *redis = NULL;
    char *text = xmalloc(size + 1);
    memcpy(text, data, size);
    text[size] = '\0';
    check_quote(text);
    check_attempts(text, size);
    if (exporter_parse_listen(text, host, &port, &err) == 0) {
        ASSERT(port >= 0 && port <= 65535 && strlen(host) < sizeof(host));
    }
    if (topics_parse_pools(text, &pools, &count, &err) == 0) {
        ASSERT(count > 0);
        topics_free_pools(pools, count);
    }
    if (redis_create(&redis, text, 10, &err) == 0) {
        redis_destroy(redis);
    }
    (void)id_is_valid(text);
    check_trace(text);
    xfree(text);
    return 0;
}
