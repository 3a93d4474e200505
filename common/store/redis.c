/* hiredis' blocking client. After any failure of the connection it is thrown away, because a late
 * answer would be taken for the answer to the next question. */
#include "common/store/redis.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>

#include <hiredis/hiredis.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/panic.h"
#include "common/obs/metrics.h"

#define PORT_DEFAULT 6379
#define PAUSE_MS_MIN 100
#define PAUSE_MS_MAX 30000
#define TEXT_SIZE 256

METRIC_DEFINE_COUNTER(metric_operations_total, "crafterse_redis_operations_total", "",
                      "Commands sent to Redis.");

static pthread_once_t metric_once = PTHREAD_ONCE_INIT;

static void register_metrics(void)
{
    metric_register(&metric_operations_total);
}

struct redis {
    char host[TEXT_SIZE], user[TEXT_SIZE], password[TEXT_SIZE];
    int port;
    int database;
    struct timeval timeout;
    redisContext *context; /* NULL = not connected */
    unsigned pause_ms;
    uint64_t not_before_ms;
};

/* ---- The URL --------------------------------------------------------------------------------- */

static int hex_value(char digit)
{
    const char *digits = "0123456789abcdef0123456789ABCDEF";
    const char *place = digit != '\0' ? strchr(digits, digit) : NULL;
    return place != NULL ? (int)((place - digits) % 16) : -1;
}

/* Decodes %XX; false when it does not fit or is malformed. */
static bool decode(const char *text, size_t length, char out[TEXT_SIZE])
{
    size_t used = 0;
    for (size_t i = 0; i < length; i++) {
        char byte = text[i];
        if (byte == '%') {
            int high = i + 2 < length ? hex_value(text[i + 1]) : -1;
            int low = i + 2 < length ? hex_value(text[i + 2]) : -1;
            if (high < 0 || low < 0 || high * 16 + low == 0) {
                return false;
            }
            byte = (char)(high * 16 + low);
            i += 2;
        }
        if (used == TEXT_SIZE - 1) {
            return false;
        }
        out[used++] = byte;
    }
    out[used] = '\0';
    return true;
}

/* A number of digits only, up to max. */
static bool parse_number(const char *text, size_t length, int max, int *value)
{
    if (length == 0 || length > 5 || strspn(text, "0123456789") < length) {
        return false;
    }
    *value = (int)strtol(text, NULL, 10);
    return *value <= max;
}

static bool parse_user(struct redis *r, const char *text, size_t length)
{
    const char *colon = memchr(text, ':', length);
    if (colon == NULL) {
        return false;
    }
    size_t user_length = (size_t)(colon - text);
    return decode(text, user_length, r->user) &&
           decode(colon + 1, length - user_length - 1, r->password);
}

/* host[:port], an IPv6 host in brackets. */
static bool parse_host(struct redis *r, const char *text, size_t length)
{
    size_t host_length = length;
    const char *host = text;
    const char *rest = text + length;
    if (length > 0 && text[0] == '[') {
        const char *bracket = memchr(text, ']', length);
        if (bracket == NULL) {
            return false;
        }
        host = text + 1;
        host_length = (size_t)(bracket - host);
        rest = bracket + 1;
    } else {
        const char *colon = memchr(text, ':', length);
        host_length = colon != NULL ? (size_t)(colon - text) : length;
        rest = text + host_length;
    }
    size_t rest_length = (size_t)(text + length - rest);
    if (host_length == 0 || !decode(host, host_length, r->host)) {
        return false;
    }
    return rest_length == 0 ||
           (rest[0] == ':' && parse_number(rest + 1, rest_length - 1, 65535, &r->port));
}

static int parse_url(struct redis *r, const char *url, struct error *err)
{
    static const char scheme[] = "redis://";
    if (strncmp(url, "rediss://", 9) == 0) {
        return ERROR(err, STATUS_UNSUPPORTED,
                     "rediss:// needs TLS, which Debian's hiredis lacks: put stunnel or a sidecar "
                     "in front and use redis://");
    }
    if (strncmp(url, scheme, sizeof(scheme) - 1) != 0) {
        return ERROR(err, STATUS_INVALID, "the Redis URL must begin with redis://");
    }
    const char *authority = url + sizeof(scheme) - 1;
    size_t length = strcspn(authority, "/");
    const char *path = authority + length;
    /* A password may hold '@' unencoded: the last one ends it. */
    const char *at = length > 0 ? memrchr(authority, '@', length) : NULL;
    bool good = at == NULL || parse_user(r, authority, (size_t)(at - authority));
    const char *host = at != NULL ? at + 1 : authority;
    good = good && parse_host(r, host, length - (size_t)(host - authority));
    if (path[0] == '/' && path[1] != '\0') {
        good = good && parse_number(path + 1, strlen(path + 1), 9999, &r->database);
    }
    if (!good) {
        /* The URL may hold the password: it is not repeated. */
        return ERROR(err, STATUS_INVALID,
                     "the Redis URL is not redis://[[user]:password@]host[:port][/database]");
    }
    return 0;
}

/* ---- The connection -------------------------------------------------------------------------- */

int redis_create(struct redis **out, const char *url, int timeout_ms, struct error *err)
{
    struct redis *r = xcalloc(1, sizeof(*r));
    pthread_once(&metric_once, register_metrics);
    *out = NULL;
    r->port = PORT_DEFAULT;
    r->timeout = (struct timeval){.tv_sec = timeout_ms / 1000,
                                  .tv_usec = (suseconds_t)(timeout_ms % 1000) * 1000};
    int result = parse_url(r, url, err);
    if (result < 0) {
        xfree(r);
        return result;
    }
    *out = r;
    return 0;
}

void redis_destroy(struct redis *r)
{
    if (r == NULL) {
        return;
    }
    if (r->context != NULL) {
        redisFree(r->context);
    }
    xfree(r);
}

/* Drops the connection and sets the pause before the next try. */
static int fail(struct redis *r, struct error *err, const char *reason)
{
    int result = ERROR(err, STATUS_UNAVAILABLE, "Redis at %s:%d: %s", r->host, r->port, reason);
    if (r->context != NULL) {
        redisFree(r->context);
        r->context = NULL;
    }
    r->pause_ms = r->pause_ms == 0                 ? PAUSE_MS_MIN
                  : r->pause_ms * 2 < PAUSE_MS_MAX ? r->pause_ms * 2
                                                   : PAUSE_MS_MAX;
    r->not_before_ms = clock_monotonic_ms() + r->pause_ms;
    return result;
}

/* Sends one command and returns its reply (freeReplyObject); NULL and *err when the connection
 * failed or Redis answered with an error. */
static redisReply *command(struct redis *r, int count, const char **arguments, const size_t *sizes,
                           struct error *err)
{
    redisReply *reply = redisCommandArgv(r->context, count, arguments, sizes);
    if (reply == NULL) {
        fail(r, err, r->context->errstr);
        return NULL;
    }
    if (reply->type == REDIS_REPLY_ERROR) {
        bool is_full = strncmp(reply->str, "OOM ", 4) == 0;
        ERROR(err, STATUS_UNAVAILABLE, "Redis at %s:%d refuses %s: %s%s", r->host, r->port,
              arguments[0], reply->str,
              is_full ? "; it is full and evicts nothing: set maxmemory-policy to allkeys-lru"
                      : "");
        freeReplyObject(reply);
        return NULL;
    }
    return reply;
}

/* A command of the greeting: without it the connection is of no use. */
static int greet(struct redis *r, int count, const char **arguments, struct error *err)
{
    redisReply *reply = command(r, count, arguments, NULL, err);
    if (reply == NULL) {
        if (r->context != NULL) {
            struct error reason = *err;
            fail(r, err, "greeting refused");
            *err = reason;
        }
        return err->status;
    }
    freeReplyObject(reply);
    return 0;
}

static int connect_now(struct redis *r, struct error *err)
{
    if (r->context != NULL) {
        return 0;
    }
    if (clock_monotonic_ms() < r->not_before_ms) {
        return ERROR(err, STATUS_UNAVAILABLE, "Redis at %s:%d is away", r->host, r->port);
    }
    r->context = redisConnectWithTimeout(r->host, r->port, r->timeout);
    if (r->context == NULL) {
        return fail(r, err, "out of memory");
    }
    if (r->context->err != 0) {
        char reason[TEXT_SIZE];
        snprintf(reason, sizeof(reason), "%s", r->context->errstr);
        return fail(r, err, reason);
    }
    redisSetTimeout(r->context, r->timeout);
    char database[16];
    snprintf(database, sizeof(database), "%d", r->database);
    const char *with_user[] = {"AUTH", r->user, r->password};
    const char *without_user[] = {"AUTH", r->password};
    const char *choose[] = {"SELECT", database};
    int result = 0;
    if (r->user[0] != '\0') {
        result = greet(r, 3, with_user, err);
    } else if (r->password[0] != '\0') {
        result = greet(r, 2, without_user, err);
    }
    if (result == 0 && r->database != 0) {
        result = greet(r, 2, choose, err);
    }
    if (result == 0) {
        log_info("connected to Redis", "host=%s port=%d", LOG_QUOTED(r->host), r->port);
    }
    return result;
}

/* ---- Commands -------------------------------------------------------------------------------- */

/* Connects when it has to. The pauses begin anew only when Redis answers: one that hangs still
 * takes connections, as the kernel does that for it. */
static redisReply *ask(struct redis *r, int count, const char **arguments, const size_t *sizes,
                       struct error *err)
{
    if (connect_now(r, err) < 0) {
        return NULL;
    }
    metric_increment(&metric_operations_total);
    redisReply *reply = command(r, count, arguments, sizes, err);
    if (r->context != NULL) {
        r->pause_ms = 0;
    }
    return reply;
}

int redis_set(struct redis *r, const char *key, const void *value, size_t size, int ttl_seconds,
              struct error *err)
{
    struct error problem = {0};
    err = err != NULL ? err : &problem;
    char ttl[16];
    snprintf(ttl, sizeof(ttl), "%d", ttl_seconds);
    const char *arguments[] = {"SET", key, value, "EX", ttl};
    const size_t sizes[] = {3, strlen(key), size, 2, strlen(ttl)};
    redisReply *reply = ask(r, ttl_seconds > 0 ? 5 : 3, arguments, sizes, err);
    if (reply == NULL) {
        return err->status;
    }
    freeReplyObject(reply);
    return 0;
}

int redis_get(struct redis *r, const char *key, struct buf *value, struct error *err)
{
    struct error problem = {0};
    err = err != NULL ? err : &problem;
    const char *arguments[] = {"GET", key};
    redisReply *reply = ask(r, 2, arguments, NULL, err);
    if (reply == NULL) {
        return err->status;
    }
    int result = reply->type == REDIS_REPLY_STRING
                     ? buf_append(value, reply->str, (size_t)reply->len, err)
                     : ERROR(err, STATUS_NOT_FOUND, "Redis has no %s", key);
    freeReplyObject(reply);
    return result;
}
