/* Wiring, routing of requests, and the drain: see gateway.h.
 *
 * Drain (SIGTERM): readiness goes, the listening socket closes, event streams are told to come
 * back, requests that prefer to wait are answered with what is known, those that wait for Kafka get
 * its report or DRAIN_TIMEOUT; whoever comes on an open connection after that is answered 503, to
 * the last moment. Then everything closes, and the hits that were not told yet are. */
#include "gateway/gateway.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/panic.h"
#include "common/base/shutdown.h"
#include "common/obs/health.h"
#include "gateway/events.h"
#include "gateway/gateway_metrics.h"
#include "gateway/inputs.h"
#include "gateway/job_fold.h"
#include "gateway/jobs.h"
#include "gateway/models.h"
#include "gateway/objects.h"
#include "gateway/operation.h"
#include "gateway/picture_plan.h"
#include "gateway/submit.h"

#define TICK_MS 100
#define SLOW_TICK_MS 1000
#define FINAL_FLUSH_MS 2000

struct run {
    struct gateway g;
    uv_poll_t shutdown_poll;
    uv_timer_t tick;
    uint64_t slow_tick_ms, drain_until_ms;
    bool is_fatal;
};

/* ---- Folding what Kafka says ---------------------------------------------------------------- */

static void on_request(void *user, const Crafterse__V1__Job *job)
{
    struct gateway *g = user;
    (void)job_fold_request(g->jobs, job, clock_unix_ms());
    picture_plan_learn(g->looks, job);
}

static void on_status(void *user, const Crafterse__V1__Status *status)
{
    struct gateway *g = user;
    (void)job_fold_status(g->jobs, status, clock_unix_ms());
}

static void on_progress(void *user, const Crafterse__V1__Progress *progress)
{
    struct gateway *g = user;
    (void)job_fold_progress(g->jobs, progress, clock_unix_ms());
}

static void on_worker(void *user, const Crafterse__V1__WorkerAnnouncement *announcement)
{
    struct gateway *g = user;
    /* Our own clock for what is heard now; the worker's only for what was said before we came. */
    uint64_t now_ms = clock_steady_ms();
    uint64_t said_ms = announcement->last_seen_ms < now_ms ? announcement->last_seen_ms : now_ms;
    model_table_fold(g->models, announcement, bus_is_caught_up(g->bus) ? now_ms : said_ms, now_ms);
}

static void on_goodbye(void *user, const char *worker_id)
{
    struct gateway *g = user;
    model_table_goodbye(g->models, worker_id, clock_steady_ms());
}

static void on_finished(void *user, const struct job *job)
{
    struct gateway *g = user;
    if (job->at_ms[MOMENT_FINISHED] >= g->started_ms) { /* days of others are read at the start */
        gateway_metrics_finished(job);
    }
    if (job->state != CRAFTERSE__V1__STATE__STATE_SUCCEEDED) {
        return;
    }
    for (size_t i = 0; i < job->image_count; i++) {
        if (job->images[i].partial_steps == 0) {
            picture_cache_put(g->cache, &job->images[i]);
        }
    }
}

/* ---- Requests ------------------------------------------------------------------------------- */

static void answer_no_endpoint(struct http_request *r, const struct endpoint_match *match)
{
    gateway_metrics_refused(REFUSAL_INVALID);
    if (match->allow != NULL) {
        http_answer_header(r, "Allow", match->allow);
        http_answer_problem(r, 405, "method_not_allowed", NULL, "This path takes %s.",
                            match->allow);
    } else {
        http_answer_problem(r, 404, "not_found", NULL,
                            "There is nothing at this path. GET / lists what there is.");
    }
}

/* false: answered. */
static bool authenticate(struct operation *op)
{
    struct gateway *g = op->gateway;
    const char *why = NULL;
    unsigned retry_after_s;
    struct auth_key *key =
        auth_check(g->auth, http_request_header(op->request, "Authorization"), &why);
    if (key == NULL) {
        gateway_metrics_refused(REFUSAL_UNAUTHORIZED);
        http_answer_header(op->request, "WWW-Authenticate", "Bearer");
        http_answer_problem(op->request, 401, "invalid_api_key", NULL, "%s", why);
        return false;
    }
    memcpy(op->key_id, key->id, sizeof(op->key_id));
    bool is_limited = op->match.endpoint == ENDPOINT_SUBMIT || op->match.endpoint == ENDPOINT_INPUT;
    if (is_limited && !rate_limit_take(&key->limit, clock_monotonic_ms(), &retry_after_s)) {
        char text[16];
        snprintf(text, sizeof(text), "%u", retry_after_s);
        gateway_metrics_refused(REFUSAL_RATE);
        http_answer_header(op->request, "Retry-After", text);
        http_answer_problem(op->request, 429, "rate_limit_exceeded", NULL,
                            "Key \"%s\" may submit %g jobs a second. Try again in %u s.", key->id,
                            key->limit.per_second, retry_after_s);
        return false;
    }
    return true;
}

static void on_begin(void *user, struct http_request *r)
{
    struct gateway *g = user;
    struct endpoint_match match;
    endpoint_find(http_request_method(r), http_request_path(r), &match);
    struct operation *op = operation_create(g, r, &match);
    if (match.endpoint == ENDPOINT_NONE) {
        answer_no_endpoint(r, &match);
        return;
    }
    if (endpoint_needs_key(match.endpoint) && !authenticate(op)) {
        return;
    }
    if (match.endpoint == ENDPOINT_SUBMIT) {
        submit_begin(op);
    } else if (match.endpoint == ENDPOINT_INPUT) {
        inputs_begin(op);
    }
}

static void answer_root(struct operation *op)
{
    static const char body[] =
        "{\"name\":\"crafterse\",\"version\":\"" CRAFTERSE_VERSION "\",\"endpoints\":["
        "\"POST /v1/generations\",\"GET /v1/generations/{id}\","
        "\"GET /v1/generations/{id}/events\",\"DELETE /v1/generations/{id}\","
        "\"POST /v1/inputs\",\"GET /v1/models\",\"GET "
        "/objects/{key}\"],\"documentation\":\"docs/HTTP-API.md\"}";
    http_answer(op->request, 200, "application/json", xstrdup(body));
}

static void on_handle(void *user, struct http_request *r)
{
    struct operation *op = http_request_data(r);
    (void)user;
    switch (op->match.endpoint) {
    case ENDPOINT_ROOT:
        answer_root(op);
        break;
    case ENDPOINT_SUBMIT:
        submit_handle(op);
        break;
    case ENDPOINT_JOB:
        jobs_get(op);
        break;
    case ENDPOINT_EVENTS:
        events_open(op);
        break;
    case ENDPOINT_CANCEL:
        jobs_cancel(op);
        break;
    case ENDPOINT_MODELS:
        models_list(op);
        break;
    case ENDPOINT_INPUT:
        inputs_handle(op);
        break;
    case ENDPOINT_OBJECT:
        objects_get(op);
        break;
    case ENDPOINT_NONE:
    case ENDPOINT_COUNT:
        PANIC("endpoint %d reached its handler", (int)op->match.endpoint);
    }
}

static void on_ended(void *user, struct http_request *r, unsigned status, double seconds)
{
    struct operation *op = http_request_data(r);
    (void)user;
    enum endpoint endpoint = op != NULL ? op->match.endpoint : ENDPOINT_NONE;
    gateway_metrics_request(endpoint, status, seconds);
    log_debug("request", "endpoint=%s status=%u seconds=%.6f request_id=%s",
              endpoint_name(endpoint), status, seconds, http_request_id(r));
    if (op != NULL) {
        events_end(op);
        submit_end(op, status);
        operation_end(op);
    }
}

/* ---- Ticks and the drain -------------------------------------------------------------------- */

static void slow_tick(struct run *run)
{
    struct gateway *g = &run->g;
    struct error err;
    const char *why_not;
    uint64_t now_ms = clock_unix_ms();
    bool is_ready = bus_is_ready(g->bus, &why_not);
    health_set_ready("kafka", is_ready, why_not);
    if (auth_reload_if_changed(g->auth, &err) != 0) {
        log_error("API keys unchanged: the new file is refused", "reason=%s", LOG_QUOTED(err.text));
    }
    job_table_forget_old(g->jobs, now_ms);
    model_table_forget_old(g->models, clock_steady_ms());
    events_beat(g);
    struct job_counts counts = job_table_counts(g->jobs);
    gateway_metrics_levels(http_server_connections(g->http), http_server_body_bytes(g->http),
                           g->stream_count, &counts,
                           model_table_workers_live(g->models, clock_steady_ms()));
    if (bus_is_fatal(g->bus, &err)) {
        log_error("Kafka's client cannot go on; leaving to be started again", "reason=%s",
                  LOG_QUOTED(err.text));
        run->is_fatal = true;
        shutdown_request();
    }
}

static void answer_waiting(struct gateway *g)
{
    struct operation *next;
    for (struct operation *op = g->operations; op != NULL; op = next) {
        next = op->next;
        if (operation_is_open(op) && op->watcher.job != NULL) {
            op->deadline_ms = 0;
            op->passed(op);
        }
    }
}

static void answer_rest(struct gateway *g)
{
    struct operation *next;
    for (struct operation *op = g->operations; op != NULL; op = next) {
        next = op->next;
        if (operation_is_open(op)) {
            op->deadline_ms = 0;
            job_unwatch(&op->watcher);
            operation_answer_unavailable(op, "shutting_down", "This gateway leaves. Try again.");
        }
    }
}

static void start_drain(struct run *run)
{
    struct gateway *g = &run->g;
    if (g->is_draining) {
        return;
    }
    log_info("draining", "requests=%zu streams=%zu", http_server_requests(g->http),
             g->stream_count);
    g->is_draining = true;
    run->drain_until_ms = clock_monotonic_ms() + (uint64_t)g->config->drain_ms;
    health_set_draining();
    http_server_quiesce(g->http);
    events_drain(g);
    answer_waiting(g);
}

static void check_drain(struct run *run)
{
    struct gateway *g = &run->g;
    uint64_t now_ms = clock_monotonic_ms();
    if (http_server_requests(g->http) > 0 && now_ms < run->drain_until_ms + FINAL_FLUSH_MS) {
        if (now_ms >= run->drain_until_ms) {
            answer_rest(g);
        }
        return;
    }
    if (g->lookup == NULL || picture_lookup_is_idle(g->lookup)) {
        uv_stop(&g->loop);
    }
}

static void on_tick(uv_timer_t *timer)
{
    struct run *run = timer->data;
    uint64_t now_ms = clock_monotonic_ms();
    health_beat();
    operation_check_deadlines(&run->g);
    if (run->g.lookup != NULL) {
        picture_lookup_give_up_late(run->g.lookup);
    }
    if (now_ms >= run->slow_tick_ms) {
        run->slow_tick_ms = now_ms + SLOW_TICK_MS;
        slow_tick(run);
    }
    if (shutdown_requested()) {
        start_drain(run);
        check_drain(run);
    }
}

static void on_shutdown(uv_poll_t *poll, int status, int events)
{
    (void)status;
    (void)events;
    struct run *run = poll->data;
    uv_poll_stop(poll);
    start_drain(run);
}

/* ---- Start and stop ------------------------------------------------------------------------- */

static void raise_file_limit(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
        limit.rlim_cur = limit.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &limit);
    }
}

static int start_http(struct run *run, struct error *err)
{
    struct gateway *g = &run->g;
    const struct gateway_config *config = g->config;
    const struct http_server_options options = {
        .listen = config->http_listen,
        .header_bytes_max = config->header_bytes_max,
        .bodies_bytes_max = config->bodies_bytes_max,
        .connections_max = config->connections_max,
        .connections_per_address_max = config->connections_per_address_max,
        .idle_timeout_ms = config->idle_timeout_ms,
        .request_timeout_ms = config->request_timeout_ms,
        .begin = on_begin,
        .handle = on_handle,
        .ended = on_ended,
        .user = g,
    };
    int result = http_server_start(&g->http, &g->loop, &options, err);
    if (result != 0) {
        return result;
    }
    int port = http_server_port(g->http);
    int host_size = (int)(strrchr(config->http_listen, ':') - config->http_listen);
    if (config->public_url[0] != '\0') {
        snprintf(g->public_url, sizeof(g->public_url), "%s", config->public_url);
    } else {
        snprintf(g->public_url, sizeof(g->public_url), "http://%.*s:%d",
                 host_size > 0 ? host_size : 9, host_size > 0 ? config->http_listen : "127.0.0.1",
                 port);
    }
    if (config->cdn_base_url[0] != '\0') {
        snprintf(g->cdn_base_url, sizeof(g->cdn_base_url), "%s", config->cdn_base_url);
    } else {
        snprintf(g->cdn_base_url, sizeof(g->cdn_base_url), "%.500s/objects", g->public_url);
    }
    log_info("listening", "url=%s", g->public_url);
    return service_publish_port(g->context, "http", port, err);
}

static int start_bus(struct gateway *g, struct error *err)
{
    const struct bus_options options = {
        .kafka = g->context->kafka,
        .sender = g->context->settings->instance,
        .request = on_request,
        .status = on_status,
        .progress = on_progress,
        .worker = on_worker,
        .goodbye = on_goodbye,
        .user = g,
    };
    return bus_start(&g->bus, &g->loop, &options, err);
}

static int open_parts(struct gateway *g, struct error *err)
{
    const struct gateway_config *config = g->config;
    const struct auth_options keys = {
        .path = strcmp(config->auth, "off") == 0 ? NULL : config->api_keys_file,
        .per_second = (double)config->rate_per_minute / 60,
        .burst = (double)config->rate_burst,
    };
    const struct job_table_options jobs = {.jobs_max = (size_t)config->jobs_max,
                                           .retention_ms = (uint64_t)config->job_retention_ms,
                                           .began_ms = clock_unix_ms(),
                                           .finished = on_finished,
                                           .user = g};
    g->jobs = job_table_create(&jobs);
    g->models = model_table_create((uint64_t)config->pool_grace_ms);
    g->cache = picture_cache_create((size_t)config->cache_entries_max);
    g->looks = picture_cache_create((size_t)config->cache_entries_max);
    int result = auth_create(&g->auth, &keys, err);
    if (result == 0 && config->redis_url[0] != '\0') {
        result = picture_lookup_create(&g->lookup, &g->loop, config->redis_url,
                                       (int)config->redis_timeout_ms, err);
    }
    return result;
}

static void close_parts(struct gateway *g)
{
    if (g->objects_fd >= 0) {
        close(g->objects_fd);
    }
    picture_lookup_destroy(g->lookup);
    auth_destroy(g->auth);
    job_table_destroy(g->jobs);
    model_table_destroy(g->models);
    picture_cache_destroy(g->cache);
    picture_cache_destroy(g->looks);
}

static void start_timers(struct run *run)
{
    uv_loop_t *loop = &run->g.loop;
    run->shutdown_poll.data = run->tick.data = run;
    uv_poll_init(loop, &run->shutdown_poll, shutdown_fd());
    uv_poll_start(&run->shutdown_poll, UV_READABLE, on_shutdown);
    uv_timer_init(loop, &run->tick);
    uv_timer_start(&run->tick, on_tick, 0, TICK_MS);
}

/* Stops what runs, lets the loop close its handles (and pool threads end), frees the rest. */
static void stop(struct run *run)
{
    struct gateway *g = &run->g;
    if (g->http != NULL) {
        answer_rest(g); /* whoever came since the last tick */
        http_server_stop(g->http);
    }
    if (g->bus != NULL) {
        bus_stop(g->bus);
    }
    uv_close((uv_handle_t *)&run->shutdown_poll, NULL);
    uv_close((uv_handle_t *)&run->tick, NULL);
    uv_run(&g->loop, UV_RUN_DEFAULT);
    bus_destroy(g->bus, FINAL_FLUSH_MS);
    http_server_destroy(g->http);
}

static int run_gateway(const struct service_context *context, struct error *err)
{
    struct run *run = xcalloc(1, sizeof(*run));
    struct gateway *g = &run->g;
    g->context = context;
    g->config = context->config;
    g->started_ms = clock_unix_ms();
    g->objects_fd = -1;
    raise_file_limit();
    /* Two threads: one that asks Kafka, one that asks Redis. */
    setenv("UV_THREADPOOL_SIZE", "2", 0);
    uv_loop_init(&g->loop);
    gateway_metrics_register();
    health_set_ready("kafka", false, "not connected yet");
    start_timers(run);
    int result = open_parts(g, err);
    if (result == 0) {
        result = start_bus(g, err);
    }
    if (result == 0) {
        result = start_http(run, err);
    }
    if (result == 0) {
        uv_run(&g->loop, UV_RUN_DEFAULT);
    }
    stop(run);
    close_parts(g);
    int left = uv_loop_close(&g->loop);
    ASSERT(left == 0);
    if (result == 0 && run->is_fatal) {
        result = ERROR(err, STATUS_INTERNAL, "Kafka's client cannot go on; start it again");
    }
    xfree(run);
    return result;
}

const struct service gateway_service = {
    .name = "gateway",
    .summary = "HTTP API: accepts jobs, tells of them, cancels them",
    .options = gateway_config_options,
    .config_size = sizeof(struct gateway_config),
    .check = gateway_config_check,
    .run = run_gateway,
};
