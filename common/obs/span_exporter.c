#include "common/obs/span_exporter.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include <curl/curl.h>

#include "common/base/backoff.h"
#include "common/base/buf.h"
#include "common/base/clock.h"
#include "common/base/id.h"
#include "common/base/log.h"
#include "common/base/panic.h"
#include "common/obs/metrics.h"
#include "common/obs/otlp.h"

#define ANSWER_BYTES_MAX (64 * 1024)
#define HEADER_BYTES_MAX 8192
#define RETRY_FIRST_MS 1000
#define RETRY_MAX_MS 30000
#define WHY_SIZE 256

METRIC_DEFINE_COUNTER(metric_exported, "crafterse_trace_exported_spans_total", "",
                      "Spans that the OTLP receiver took.");
#define DROPPED_NAME "crafterse_trace_dropped_spans_total"
#define DROPPED_HELP \
    "Spans that no receiver has: the queue was full, the receiver was away for too long, or it " \
    "refused them."
METRIC_DEFINE_COUNTER(metric_queue_full, DROPPED_NAME, "reason=\"queue_full\"", DROPPED_HELP);
METRIC_DEFINE_COUNTER(metric_undelivered, DROPPED_NAME, "reason=\"undelivered\"", DROPPED_HELP);
METRIC_DEFINE_COUNTER(metric_refused, DROPPED_NAME, "reason=\"refused\"", DROPPED_HELP);

struct span_exporter {
    struct span_exporter_options options;
    struct pairs resource;
    char *url, *ca_file, *version; /* owned */
    struct curl_slist *headers;
    CURL *curl;
    struct buf answer; /* the thread's, as all above */
    bool is_failing;   /* so that an outage is one warning, not one a batch */
    pthread_t thread;

    pthread_mutex_t mutex; /* guards what follows */
    pthread_cond_t changed;
    struct span **ring; /* queue_max */
    size_t first, count;
    bool is_stopping;
    _Atomic uint64_t stop_at_ms; /* monotonic; 0 = goes on. Read without the mutex as well */
};

void span_exporter_register_metrics(void)
{
    metric_register(&metric_exported);
    metric_register(&metric_queue_full);
    metric_register(&metric_undelivered);
    metric_register(&metric_refused);
}

/* ---- The queue ------------------------------------------------------------------------------- */

void span_exporter_push(struct span_exporter *e, struct span *span)
{
    size_t room_max = (size_t)e->options.queue_max;
    pthread_mutex_lock(&e->mutex);
    bool takes = e->count < room_max && !e->is_stopping;
    if (takes) {
        e->ring[(e->first + e->count++) % room_max] = span;
        /* The thread sleeps without an end while there is nothing, then until a batch is full. */
        if (e->count == 1 || e->count == (size_t)e->options.batch_max) {
            pthread_cond_signal(&e->changed);
        }
    }
    pthread_mutex_unlock(&e->mutex);
    if (!takes) {
        metric_increment(&metric_queue_full);
        span_destroy(span);
    }
}

/* Waits for the next batch; how many spans it has, 0 = the end. */
static size_t take_batch(struct span_exporter *e, struct span **batch)
{
    size_t batch_max = (size_t)e->options.batch_max;
    pthread_mutex_lock(&e->mutex);
    while (e->count == 0 && !e->is_stopping) {
        pthread_cond_wait(&e->changed, &e->mutex);
    }
    struct timespec until = clock_monotonic_after((uint32_t)e->options.schedule_delay_ms);
    int result = 0;
    while (e->count < batch_max && !e->is_stopping && result != ETIMEDOUT) {
        result = pthread_cond_timedwait(&e->changed, &e->mutex, &until);
    }
    size_t size = e->count < batch_max ? e->count : batch_max;
    for (size_t i = 0; i < size; i++) {
        batch[i] = e->ring[(e->first + i) % (size_t)e->options.queue_max];
    }
    e->first = (e->first + size) % (size_t)e->options.queue_max;
    e->count -= size;
    pthread_mutex_unlock(&e->mutex);
    return size;
}

/* False when the exporter is stopped before the pause is over. */
static bool pause_unless_stopped(struct span_exporter *e, uint32_t wait_ms)
{
    struct timespec until = clock_monotonic_after(wait_ms);
    int result = 0;
    pthread_mutex_lock(&e->mutex);
    while (!e->is_stopping && result != ETIMEDOUT) {
        result = pthread_cond_timedwait(&e->changed, &e->mutex, &until);
    }
    bool goes_on = !e->is_stopping;
    pthread_mutex_unlock(&e->mutex);
    return goes_on;
}

/* ---- One request ----------------------------------------------------------------------------- */

static size_t keep_answer(char *data, size_t size, size_t count, void *user)
{
    struct span_exporter *e = user;
    return buf_append(&e->answer, data, size * count, NULL) == 0 ? size * count : 0;
}

/* libcurl asks at least once a second, also while it connects. */
static int give_up_when_late(void *user, curl_off_t down_total, curl_off_t down,
                             curl_off_t up_total, curl_off_t up)
{
    const struct span_exporter *e = user;
    (void)down_total, (void)down, (void)up_total, (void)up;
    uint64_t stop_at_ms = atomic_load(&e->stop_at_ms);
    return stop_at_ms != 0 && clock_monotonic_ms() >= stop_at_ms;
}

static void prepare(struct span_exporter *e, const uint8_t *body, size_t size, int64_t timeout_ms)
{
    curl_easy_reset(e->curl); /* keeps the connection */
    buf_reset(&e->answer);
    curl_easy_setopt(e->curl, CURLOPT_URL, e->url);
    curl_easy_setopt(e->curl, CURLOPT_HTTPHEADER, e->headers);
    curl_easy_setopt(e->curl, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(e->curl, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(e->curl, CURLOPT_TIMEOUT_MS, (long)timeout_ms);
    curl_easy_setopt(e->curl, CURLOPT_WRITEFUNCTION, keep_answer);
    curl_easy_setopt(e->curl, CURLOPT_WRITEDATA, e);
    curl_easy_setopt(e->curl, CURLOPT_XFERINFOFUNCTION, give_up_when_late);
    curl_easy_setopt(e->curl, CURLOPT_XFERINFODATA, e);
    curl_easy_setopt(e->curl, CURLOPT_NOPROGRESS, 0L);
    curl_easy_setopt(e->curl, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)size);
    curl_easy_setopt(e->curl, CURLOPT_POSTFIELDS, body);
    if (e->ca_file[0] != '\0') {
        curl_easy_setopt(e->curl, CURLOPT_CAINFO, e->ca_file);
    }
}

/* One attempt. An error that is retriable may pass; *retry_after_s is then the receiver's wish, 0 =
 * none. */
static int post(struct span_exporter *e, const uint8_t *body, size_t size, int64_t timeout_ms,
                curl_off_t *retry_after_s, struct error *err)
{
    *retry_after_s = 0;
    prepare(e, body, size, timeout_ms);
    CURLcode code = curl_easy_perform(e->curl);
    if (code != CURLE_OK) {
        return ERROR(err, STATUS_UNAVAILABLE, "%s: %s", e->url, curl_easy_strerror(code));
    }
    long http_status = 0;
    curl_easy_getinfo(e->curl, CURLINFO_RESPONSE_CODE, &http_status);
    if (http_status >= 200 && http_status <= 299) {
        return 0;
    }
    if (http_status == 429 || (http_status >= 502 && http_status <= 504)) {
        curl_easy_getinfo(e->curl, CURLINFO_RETRY_AFTER, retry_after_s);
        return ERROR(err, STATUS_UNAVAILABLE, "%s: not now: HTTP %ld", e->url, http_status);
    }
    return ERROR(err, STATUS_INVALID, "%s: HTTP %ld: check the address and the headers", e->url,
                 http_status);
}

/* ---- One batch ------------------------------------------------------------------------------- */

static void note_outage(struct span_exporter *e, const struct error *err)
{
    if (!e->is_failing) {
        log_warn("spans are not delivered; jobs go on", "reason=%s", LOG_QUOTED(err->text));
    }
    e->is_failing = true;
}

static void note_success(struct span_exporter *e, size_t count)
{
    char why[WHY_SIZE];
    int64_t rejected;
    struct error err;
    if (otlp_read_answer(e->answer.data != NULL ? e->answer.data : "", e->answer.size, &rejected,
                         why, sizeof(why), &err) < 0) {
        log_debug("spans were taken", "answer=%s", LOG_QUOTED(err.text));
    }
    size_t refused = rejected <= 0 ? 0 : (uint64_t)rejected > count ? count : (size_t)rejected;
    if (refused > 0 || why[0] != '\0') {
        log_warn("the receiver did not take all spans", "refused=%zu why=%s", refused,
                 LOG_QUOTED(why));
    }
    metric_add(&metric_refused, (double)refused);
    metric_add(&metric_exported, (double)(count - refused));
    if (e->is_failing) {
        log_info("spans are delivered again", NULL);
    }
    e->is_failing = false;
}

/* Until it is there, refused, or too old. Once the exporter is stopped there is one attempt. */
static int deliver(struct span_exporter *e, const uint8_t *body, size_t size, struct error *err)
{
    struct backoff backoff = {.first_ms = RETRY_FIRST_MS, .max_ms = RETRY_MAX_MS};
    uint64_t until_ms = clock_monotonic_ms() + (uint64_t)e->options.export_timeout_ms;
    for (;;) {
        curl_off_t retry_after_s;
        uint64_t stop_at_ms = atomic_load(&e->stop_at_ms);
        uint64_t end_ms = stop_at_ms != 0 && stop_at_ms < until_ms ? stop_at_ms : until_ms;
        uint64_t now_ms = clock_monotonic_ms();
        int64_t left_ms = now_ms < end_ms ? (int64_t)(end_ms - now_ms) : 1;
        int64_t timeout_ms = left_ms < e->options.timeout_ms ? left_ms : e->options.timeout_ms;
        int result = post(e, body, size, timeout_ms, &retry_after_s, err);
        if (result == 0 || !err->retriable) {
            return result;
        }
        note_outage(e, err);
        uint64_t wait_ms = backoff_next(&backoff, id_random());
        wait_ms = retry_after_s > 0 ? (uint64_t)retry_after_s * 1000 : wait_ms;
        if (stop_at_ms != 0 || clock_monotonic_ms() + wait_ms >= until_ms) {
            return result;
        }
        if (!pause_unless_stopped(e, (uint32_t)wait_ms)) {
            continue; /* the one attempt */
        }
    }
}

static void *export_spans(void *user)
{
    struct span_exporter *e = user;
    struct span **batch = xcalloc((size_t)e->options.batch_max, sizeof(struct span *));
    size_t count;
    while ((count = take_batch(e, batch)) > 0) {
        struct error err;
        size_t size;
        uint8_t *body = otlp_pack(&e->resource, e->version, batch, count, &size);
        if (deliver(e, body, size, &err) == 0) {
            note_success(e, count);
        } else {
            note_outage(e, &err);
            metric_add(err.retriable ? &metric_undelivered : &metric_refused, (double)count);
        }
        xfree(body);
        for (size_t i = 0; i < count; i++) {
            span_destroy(batch[i]);
        }
    }
    xfree(batch);
    return NULL;
}

/* ---- Life ------------------------------------------------------------------------------------ */

static void add_header(struct span_exporter *e, const char *name, const char *value)
{
    struct buf line;
    buf_init(&line, HEADER_BYTES_MAX);
    if (buf_printf(&line, NULL, "%s: %s", name, value) == 0) {
        struct curl_slist *longer = curl_slist_append(e->headers, line.data);
        e->headers = longer != NULL ? longer : e->headers;
    }
    buf_deinit(&line);
}

static void make_headers(struct span_exporter *e, const struct pairs *headers)
{
    char agent[128];
    snprintf(agent, sizeof(agent), "OTel-OTLP-Exporter-Crafterse/%s", e->version);
    add_header(e, "Content-Type", "application/x-protobuf");
    add_header(e, "User-Agent", agent);
    add_header(e, "Expect", ""); /* curl then leaves it away: receivers differ about it */
    for (size_t i = 0; i < headers->count; i++) {
        add_header(e, headers->list[i].key, headers->list[i].value);
    }
}

static void destroy(struct span_exporter *e)
{
    curl_slist_free_all(e->headers);
    curl_easy_cleanup(e->curl);
    curl_global_cleanup();
    pairs_deinit(&e->resource);
    pthread_cond_destroy(&e->changed);
    pthread_mutex_destroy(&e->mutex);
    buf_deinit(&e->answer);
    xfree(e->ring);
    xfree(e->url);
    xfree(e->ca_file);
    xfree(e->version);
    xfree(e);
}

int span_exporter_start(struct span_exporter **out, const struct span_exporter_options *options,
                        struct error *err)
{
    if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK) {
        return ERROR(err, STATUS_INTERNAL, "libcurl does not start");
    }
    struct span_exporter *e = xcalloc(1, sizeof(*e));
    e->options = *options;
    e->url = xstrdup(options->url);
    e->ca_file = xstrdup(options->ca_file);
    e->version = xstrdup(options->version);
    for (size_t i = 0; i < options->resource->count; i++) {
        pairs_add(&e->resource, options->resource->list[i].key, options->resource->list[i].value);
    }
    make_headers(e, options->headers);
    e->ring = xcalloc((size_t)options->queue_max, sizeof(struct span *));
    buf_init(&e->answer, ANSWER_BYTES_MAX);
    pthread_mutex_init(&e->mutex, NULL);
    clock_condition_init(&e->changed);
    e->curl = curl_easy_init();
    if (e->curl == NULL || pthread_create(&e->thread, NULL, export_spans, e) != 0) {
        destroy(e);
        return ERROR(err, STATUS_INTERNAL, "the thread that exports spans does not start");
    }
    *out = e;
    return 0;
}

void span_exporter_stop(struct span_exporter *e, int timeout_ms)
{
    if (e == NULL) {
        return;
    }
    pthread_mutex_lock(&e->mutex);
    atomic_store(&e->stop_at_ms, clock_monotonic_ms() + (uint64_t)timeout_ms);
    e->is_stopping = true;
    pthread_cond_broadcast(&e->changed);
    pthread_mutex_unlock(&e->mutex);
    pthread_join(e->thread, NULL);
    destroy(e);
}
