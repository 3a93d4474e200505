/* Submitting jobs: see submit.h.
 *
 * Steps: read the body -> name the job -> (with Idempotency-Key: look for the same order) ->
 * (unless they must be new: look for the pictures) -> send -> report -> (with Idempotency-Key: read
 * back whose order came first) -> answer. */
#include "gateway/submit.h"

#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "common/base/clock.h"
#include "common/base/digest.h"
#include "common/base/fault.h"
#include "common/base/log.h"
#include "common/base/panic.h"
#include "common/bus/bus_span.h"
#include "gateway/gateway_metrics.h"
#include "gateway/generation_request.h"
#include "gateway/job_fold.h"
#include "gateway/json_body.h"
#include "gateway/picture_plan.h"

#define IDEMPOTENCY_KEY_MAX 255
/* A router ends an order whose pictures are there as fast as it reads it: worth waiting for. */
#define HIT_HOLD_MS 1000

struct submission {
    struct generation_request request;
    char job_id[ID_SIZE];
    char key_id[AUTH_KEY_ID_SIZE];
    char traceparent[TRACE_PARENT_SIZE];
    char *tracestate;  /* NULL = none */
    struct span *send; /* the way to Kafka; NULL unless it is recorded */
    bool is_idempotent;
    bool is_sent;   /* Kafka has been given it; the report is out */
    bool is_first;  /* of those with its id here: it sends, and reads back what came of it */
    bool is_second; /* waits for that one */
    double sent_s;
    struct picture_plan plan;
    Crafterse__V1__Image *images;
    Crafterse__V1__Image **image_list;
    Crafterse__V1__Envelope envelope;
    Crafterse__V1__Job job;
    bool is_hit; /* its pictures are there already */
};

static void wake_seconds(struct gateway *g, const char *job_id);

static void destroy(struct operation *op)
{
    struct submission *s = op->submission;
    op->submission = NULL;
    if (s != NULL) {
        if (s->is_first) {
            wake_seconds(op->gateway, s->job_id);
        }
        generation_request_deinit(&s->request);
        picture_plan_deinit(&s->plan);
        tracing_end(s->send);
        xfree(s->tracestate);
        xfree(s->images);
        xfree(s->image_list);
        xfree(s);
    }
}

/* ---- The request's part of the trace --------------------------------------------------------- */

static void begin_trace(struct operation *op)
{
    const char *traceparent = http_request_header(op->request, "traceparent");
    struct trace_context client;
    bool has_client = traceparent != NULL && trace_parse(traceparent, &client);
    const char *state = has_client ? http_request_header(op->request, "tracestate") : NULL;
    op->tracestate = state != NULL && trace_state_is_valid(state) ? state : NULL;
    op->span =
        tracing_begin_request("POST /v1/generations", has_client ? &client : NULL, &op->trace);
    span_set_text(op->span, "http.request.method", "POST");
    span_set_text(op->span, "http.route", "/v1/generations");
    span_set_text(op->span, "url.path", "/v1/generations");
    span_set_text(op->span, "url.scheme", "http");
}

static void end_trace(struct operation *op, unsigned status)
{
    char type[16];
    snprintf(type, sizeof(type), "%u", status);
    if (status == 0) {
        span_fail(op->span, "client_closed_request", "the client left before the answer");
    } else {
        span_set_number(op->span, "http.response.status_code", status);
    }
    if (status >= 500) {
        span_fail(op->span, type, NULL);
    }
    tracing_end(op->span);
    op->span = NULL;
}

/* ---- Headers and body ----------------------------------------------------------------------- */

static bool is_json(const char *content_type)
{
    static const char json[] = "application/json";
    size_t size = sizeof(json) - 1;
    return content_type != NULL && strncasecmp(content_type, json, size) == 0 &&
           (content_type[size] == '\0' || strchr("; \t", content_type[size]) != NULL);
}

static bool is_idempotency_key(const char *text)
{
    size_t size = strlen(text);
    for (size_t i = 0; i < size; i++) {
        if (text[i] < 0x21 || text[i] > 0x7e) {
            return false;
        }
    }
    return size > 0 && size <= IDEMPOTENCY_KEY_MAX;
}

void submit_begin(struct operation *op)
{
    struct http_request *r = op->request;
    const char *key = http_request_header(r, "Idempotency-Key");
    begin_trace(op);
    if (!is_json(http_request_header(r, "Content-Type"))) {
        http_answer_problem(r, 415, "unsupported_media_type", NULL,
                            "Send the request as JSON, with Content-Type: application/json.");
    } else if (key != NULL && !is_idempotency_key(key)) {
        http_answer_problem(r, 400, "invalid_idempotency_key", NULL,
                            "Idempotency-Key must be 1 to 255 printable ASCII characters without "
                            "spaces.");
    } else {
        http_request_expect_body(r, (size_t)op->gateway->config->body_bytes_max);
        return;
    }
    gateway_metrics_refused(REFUSAL_INVALID);
}

static void answer_invalid(struct operation *op, const struct problem_list *problems)
{
    gateway_metrics_refused(REFUSAL_INVALID);
    http_answer_problem(op->request, 422, "invalid_request", problems,
                        problems->count == 1 ? "One field is not right: see details."
                                             : "%zu fields are not right: see details.",
                        problems->count);
}

/* Fills the submission's request from the body; false: answered. */
static bool read_body(struct operation *op)
{
    const struct gateway *g = op->gateway;
    struct error err;
    size_t size;
    const char *text = http_request_body(op->request, &size);
    cJSON *root = json_body_parse(text, size, &err);
    if (root == NULL) {
        gateway_metrics_refused(REFUSAL_INVALID);
        http_answer_problem(op->request, 400, "malformed_json", NULL, "%s", err.text);
        return false;
    }
    const struct generation_limits limits = {
        .models = g->models,
        .model_default = g->config->model_default,
        .prompt_characters_max = g->config->prompt_characters_max,
        .pictures_max = g->config->pictures_max,
        .embedded = g->context->kafka->embedded,
        .now_ms = clock_unix_ms(),
        .steady_ms = clock_steady_ms(),
    };
    struct problem_list problems; /* large: not cleared */
    problems.count = 0;
    int result = generation_request_read(&op->submission->request, root, &limits, &problems);
    cJSON_Delete(root);
    if (result == STATUS_UNAVAILABLE) {
        gateway_metrics_refused(REFUSAL_UNAVAILABLE);
        operation_answer_unavailable(op, "no_capacity",
                                     "No worker has announced a model yet. Try again in a moment.");
    } else if (result != 0) {
        answer_invalid(op, &problems);
    }
    return result == 0;
}

/* ---- Names ---------------------------------------------------------------------------------- */

void submit_idempotent_id(const char *key_id, const char *idempotency_key, char id[ID_SIZE])
{
    char text[AUTH_KEY_ID_SIZE + IDEMPOTENCY_KEY_MAX + 32], hex[DIGEST_HEX_SIZE];
    int size = snprintf(text, sizeof(text), "crafterse job 1\n%s\n%s", key_id, idempotency_key);
    digest_sha256_hex(text, (size_t)size, hex);
    /* RFC 9562: version 8, variant 10xx. */
    hex[12] = '8';
    hex[16] = "89ab"[(hex[16] <= '9' ? hex[16] - '0' : hex[16] - 'a' + 10) & 3];
    snprintf(id, ID_SIZE, "%.8s-%.4s-%.4s-%.4s-%.12s", hex, hex + 8, hex + 12, hex + 16, hex + 20);
}

/* A seed of 32 bits is easy to read and to type. That of an idempotent order follows from its id,
 * so that a retry asks for the very same picture. */
static uint64_t choose_seed(const struct submission *s)
{
    uint8_t digest[DIGEST_SIZE];
    if (!s->is_idempotent) {
        return id_random() & 0xffffffff;
    }
    digest_sha256(s->job_id, strlen(s->job_id), digest);
    return (uint64_t)digest[0] << 24 | (uint64_t)digest[1] << 16 | (uint64_t)digest[2] << 8 |
           digest[3];
}

static void name_job(struct operation *op)
{
    struct submission *s = op->submission;
    const char *key = http_request_header(op->request, "Idempotency-Key");
    s->is_idempotent = key != NULL;
    if (s->is_idempotent) {
        submit_idempotent_id(op->key_id, key, s->job_id);
    } else {
        id_make(s->job_id);
    }
    trace_format(&op->trace, s->traceparent);
    s->tracestate = op->tracestate != NULL ? xstrdup(op->tracestate) : NULL;
    span_set_text(op->span, "crafterse.job.id", s->job_id);
    if (!s->request.has_seed) {
        s->request.generation.seed = choose_seed(s);
    }
    memcpy(s->key_id, op->key_id, sizeof(s->key_id));
    picture_plan_init(&s->plan, &s->request.generation, s->key_id, s->request.has_seed,
                      s->request.cache);
}

/* ---- Messages ------------------------------------------------------------------------------- */

static void fill_images(struct submission *s)
{
    uint32_t n = s->request.generation.n;
    s->images = xcalloc(n, sizeof(*s->images));
    s->image_list = xcalloc(n, sizeof(Crafterse__V1__Image *));
    for (uint32_t i = 0; i < n; i++) {
        Crafterse__V1__Image *image = &s->images[i];
        crafterse__v1__image__init(image);
        image->index = i;
        struct picture *picture = &s->plan.pictures[i];
        image->seed = picture->seed;
        image->content_hash = picture->content_hash;
        image->object_key = picture->object_key;
        image->bytes = picture->bytes;
        image->width = picture->width;
        image->height = picture->height;
        image->store = picture->store;
        image->may_be_partial =
            s->request.on_deadline == CRAFTERSE__V1__ON_DEADLINE__ON_DEADLINE_PARTIAL;
        s->image_list[i] = image;
    }
}

static void fill_job(struct submission *s)
{
    crafterse__v1__envelope__init(&s->envelope);
    s->envelope.job_id = s->job_id;
    s->envelope.traceparent = s->traceparent;
    s->envelope.tracestate = s->tracestate != NULL ? s->tracestate : s->envelope.tracestate;
    s->envelope.deadline_ms = s->request.deadline_ms;
    fill_images(s);
    crafterse__v1__job__init(&s->job);
    s->job.envelope = &s->envelope;
    s->job.key_id = s->key_id;
    s->job.job_class = s->request.job_class;
    s->job.generation = &s->request.generation;
    s->job.n_images = s->request.generation.n;
    s->job.images = s->image_list;
    s->job.cache = s->request.cache;
    s->job.cache_key = s->plan.cache_key;
    s->job.on_deadline = s->request.on_deadline;
    s->job.is_drawn = s->is_hit;
    s->job.accepted_ms = clock_unix_ms();
}

static Crafterse__V1__Status make_end(struct submission *s)
{
    Crafterse__V1__Status ended = CRAFTERSE__V1__STATUS__INIT;
    ended.envelope = &s->envelope;
    ended.state = CRAFTERSE__V1__STATE__STATE_SUCCEEDED;
    ended.n_images = s->job.n_images;
    ended.images = s->image_list;
    ended.key_id = s->key_id;
    ended.model = s->request.generation.model;
    ended.steps = s->request.generation.steps;
    return ended;
}

/* ---- Sending and answering ------------------------------------------------------------------ */

static void look_for_order(struct operation *op);

/* Operations with the same id that came while ours was on its way look again. */
static void wake_seconds(struct gateway *g, const char *job_id)
{
    struct operation *next;
    for (struct operation *op = g->operations; op != NULL; op = next) {
        next = op->next;
        if (op->submission == NULL || !op->submission->is_second || !operation_is_open(op) ||
            strcmp(op->submission->job_id, job_id) != 0) {
            continue;
        }
        op->submission->is_second = false;
        op->deadline_ms = 0;
        look_for_order(op);
    }
}

static void answer_submitted(struct operation *op, struct job *job)
{
    char url[OPERATION_URL_SIZE + 64], trace[TRACE_PARENT_SIZE];
    if (op->span != NULL) {
        trace_format(&op->trace, trace);
        http_answer_header(op->request, "traceresponse", trace);
    }
    (void)job_view_url(job, op->gateway->public_url, url, sizeof(url));
    http_answer_header(op->request, "Location", url);
    operation_answer_job(op, job, 202);
}

static void on_accept_passed(struct operation *op)
{
    gateway_metrics_refused(REFUSAL_UNAVAILABLE);
    operation_answer_unavailable(
        op, "kafka_unavailable",
        "Kafka has not confirmed the job in time, so it is not accepted. It may still be drawn; "
        "send an Idempotency-Key with a retry to get one job in any case.");
}

static void on_read_back(struct operation *op, bool reached);

/* The answer to an order that Kafka has, or has refused. */
static void answer_delivered(struct operation *op, const char *job_id, const struct error *err)
{
    destroy(op);
    if (!operation_is_open(op)) {
        return;
    }
    struct job *job = err == NULL ? job_table_find(op->gateway->jobs, job_id) : NULL;
    op->deadline_ms = 0;
    if (err != NULL && err->status == STATUS_TOO_LARGE) {
        gateway_metrics_refused(REFUSAL_INVALID);
        http_answer_problem(op->request, 413, "body_too_large", NULL,
                            "Kafka takes no order of this size. Shorten the prompts.");
    } else if (job != NULL) {
        answer_submitted(op, job);
    } else {
        on_accept_passed(op);
    }
}

static void on_delivered(void *user, const struct error *err, const struct producer_place *place)
{
    (void)place;
    struct operation *op = user;
    struct gateway *g = op->gateway;
    struct submission *s = op->submission;
    char job_id[ID_SIZE];
    memcpy(job_id, s->job_id, sizeof(job_id));
    s->is_sent = false;
    log_set_job(job_id, 0, s->traceparent);
    if (err == NULL) {
        fault_point("gateway.reported");
        if (!s->is_idempotent) {
            job_fold_request(g->jobs, &s->job, clock_unix_ms());
        }
        gateway_metrics_accepted(clock_monotonic_seconds() - s->sent_s);
        log_info(s->is_hit ? "job accepted, its pictures are in the cache" : "job accepted",
                 "key=%s pictures=%" PRIu32, s->key_id, s->request.generation.n);
    } else {
        span_fail(s->send, status_name(err->status), err->text);
        log_warn("job not accepted", "reason=%s", LOG_QUOTED(err->text));
    }
    log_set_job(NULL, 0, NULL);
    tracing_end(s->send);
    s->send = NULL;
    if (err == NULL && s->is_idempotent && operation_is_open(op)) {
        operation_wait_for_end(op, on_read_back);
    } else {
        answer_delivered(op, job_id, err);
    }
    operation_release(op);
}

/* Its pictures are there: nothing is promised that Kafka would have to keep, so the client need not
 * wait for it; other gateways are told, so that they know the job. Not with an Idempotency-Key:
 * which of two orders under one key has it, at two gateways, is decided on `requests` alone. False
 * also when too many wait for Kafka at the moment: then it is sent as any other, and the router
 * ends it. */
static bool answer_hit(struct operation *op)
{
    struct gateway *g = op->gateway;
    struct submission *s = op->submission;
    uint64_t now_ms = s->envelope.sent_ms = clock_unix_ms();
    Crafterse__V1__Status ended = make_end(s);
    if (s->is_idempotent || bus_tell_hit(g->bus, &ended, NULL) != 0) {
        return false;
    }
    job_fold_request(g->jobs, &s->job, now_ms);
    struct job *job = job_fold_status(g->jobs, &ended, now_ms);
    log_debug("job answered from the cache", "job=%s trace_id=%.32s key=%s pictures=%" PRIu32,
              s->job_id, s->traceparent + 3, s->key_id, s->request.generation.n);
    destroy(op);
    answer_submitted(op, job);
    return true;
}

/* The job's other spans are children of this one: it is the message's creation. */
static void begin_send(struct operation *op)
{
    struct submission *s = op->submission;
    char topic[TOPIC_NAME_MAX];
    if (op->span == NULL) {
        return;
    }
    topic_name(op->gateway->context->kafka, TOPIC_REQUESTS, "", topic);
    s->send = bus_span_send("send requests", topic, op->span);
    if (s->send != NULL) {
        trace_format(&s->send->context, s->traceparent);
    }
}

static void send_job(struct operation *op)
{
    struct submission *s = op->submission;
    struct error err;
    fill_job(s);
    if (s->is_hit && answer_hit(op)) {
        return;
    }
    op->hold_ms = s->is_hit ? HIT_HOLD_MS : 0;
    begin_send(op);
    fault_point("gateway.before_send");
    s->sent_s = clock_monotonic_seconds();
    s->is_sent = true;
    operation_retain(op);
    if (bus_send(op->gateway->bus, TOPIC_REQUESTS, &s->job.base, on_delivered, op, &err) != 0) {
        on_delivered(op, &err, NULL);
        return;
    }
    fault_point("gateway.after_send");
    op->passed = on_accept_passed;
    op->deadline_ms = clock_monotonic_ms() + (uint64_t)op->gateway->config->accept_timeout_ms;
}

/* ---- Looking for the pictures --------------------------------------------------------------- */

static void use_pictures(struct operation *op, bool are_found, enum gateway_metrics_cache result)
{
    gateway_metrics_looked_up(result);
    op->submission->is_hit = are_found;
    span_set_text(op->span, "crafterse.cache", are_found ? "hit" : "miss");
    send_job(op);
}

static void on_looked_up(void *user, const struct picture *pictures)
{
    struct operation *op = user;
    if (operation_is_open(op)) {
        struct picture_plan *plan = &op->submission->plan;
        bool are_found = pictures != NULL && picture_plan_accept(plan, pictures);
        for (uint32_t i = 0; are_found && i < plan->generation->n; i++) {
            picture_cache_put(op->gateway->cache, &plan->pictures[i]);
        }
        use_pictures(op, are_found, are_found ? CACHE_HIT_REDIS : CACHE_MISS);
    } else {
        destroy(op); /* nothing was promised yet and nobody waits */
    }
    operation_release(op);
}

static void look_for_pictures(struct operation *op)
{
    struct gateway *g = op->gateway;
    struct picture_plan *plan = &op->submission->plan;
    op->submission->is_first = op->submission->is_idempotent;
    if (!picture_plan_wants_pictures(plan)) {
        send_job(op);
    } else if (picture_plan_find(plan, g->cache, g->looks)) {
        use_pictures(op, true, CACHE_HIT_PROCESS);
    } else if (g->lookup != NULL) {
        operation_retain(op);
        picture_lookup_start(g->lookup, plan->cache_key, plan->generation->n, on_looked_up, op);
    } else {
        use_pictures(op, false, CACHE_MISS);
    }
}

/* ---- Looking for the same order ------------------------------------------------------------- */

/* Of an order that its deadline cut short, the pictures that there are. */
static bool has_as_many_pictures(const struct job *job, uint32_t n)
{
    return job->image_count == n ||
           (job_is_partial(job) && job->image_count < n && (!job->has_request || job->n == n));
}

static bool is_same_order(const struct job *job, const struct submission *s)
{
    bool is_same = has_as_many_pictures(job, s->request.generation.n);
    bool is_batch = s->request.job_class == CRAFTERSE__V1__JOB_CLASS__JOB_CLASS_BATCH;
    for (size_t i = 0; is_same && i < job->image_count; i++) {
        is_same = picture_plan_matches(&s->plan, (uint32_t)i, &job->images[i]);
    }
    return is_same && (!job->has_request || job->is_batch == is_batch);
}

/* false: there is none yet. */
static bool answer_same_order(struct operation *op)
{
    struct submission *s = op->submission;
    struct job *job = job_table_find(op->gateway->jobs, s->job_id);
    if (job == NULL) {
        return false;
    }
    bool is_same = is_same_order(job, s);
    destroy(op);
    if (is_same) {
        answer_submitted(op, job);
    } else {
        gateway_metrics_refused(REFUSAL_INVALID);
        http_answer_problem(op->request, 409, "idempotency_key_reused", NULL,
                            "This Idempotency-Key belongs to job %s, which was ordered with a "
                            "different body. Use a new key for a new order.",
                            job->id);
    }
    return true;
}

/* The key's job is over for so long that only this is left of it: drawing again under its id would
 * be a second end. */
static bool answer_forgotten(struct operation *op)
{
    struct submission *s = op->submission;
    char job_id[ID_SIZE];
    if (!job_table_is_forgotten(op->gateway->jobs, s->job_id, s->key_id, clock_unix_ms())) {
        return false;
    }
    memcpy(job_id, s->job_id, sizeof(job_id));
    destroy(op);
    gateway_metrics_refused(REFUSAL_INVALID);
    http_answer_problem(op->request, 410, "job_expired", NULL,
                        "This Idempotency-Key belongs to job %s, which finished too long ago: it "
                        "is no longer known. Use a new key for a new order.",
                        job_id);
    return true;
}

/* Two gateways may have been given different orders under one key in the same moment: whose came to
 * Kafka first has the job, for every gateway, and the other one is told. */
static void on_read_back(struct operation *op, bool reached)
{
    struct submission *s = op->submission;
    op->deadline_ms = 0;
    if (!operation_is_open(op)) {
        return;
    }
    struct job *job = reached ? job_table_find(op->gateway->jobs, s->job_id) : NULL;
    if (job == NULL) {
        on_accept_passed(op);
        destroy(op);
        return;
    }
    (void)answer_same_order(op);
}

static bool is_being_sent(const struct operation *op)
{
    for (const struct operation *other = op->gateway->operations; other != NULL;
         other = other->next) {
        if (other != op && other->submission != NULL && other->submission->is_first &&
            strcmp(other->submission->job_id, op->submission->job_id) == 0) {
            return true;
        }
    }
    return false;
}

static void on_order_looked_for(struct operation *op, bool reached)
{
    op->deadline_ms = 0;
    if (!operation_is_open(op)) {
        return;
    }
    if (answer_same_order(op)) {
        return;
    }
    if (!reached) {
        on_accept_passed(op);
        destroy(op);
    } else if (answer_forgotten(op)) {
        return;
    } else if (is_being_sent(op)) {
        look_for_order(op);
    } else {
        look_for_pictures(op);
    }
}

static void on_second_passed(struct operation *op)
{
    on_accept_passed(op);
    destroy(op);
}

static void look_for_order(struct operation *op)
{
    if (answer_same_order(op)) {
        return;
    }
    if (is_being_sent(op)) {
        op->submission->is_second = true;
        op->passed = on_second_passed;
        op->deadline_ms = clock_monotonic_ms() + (uint64_t)op->gateway->config->accept_timeout_ms;
        return;
    }
    operation_wait_for_end(op, on_order_looked_for);
}

/* ---- Entry ---------------------------------------------------------------------------------- */

void submit_handle(struct operation *op)
{
    if (!operation_check_capacity(op)) {
        return;
    }
    op->submission = xcalloc(1, sizeof(*op->submission));
    if (!read_body(op)) {
        destroy(op);
        return;
    }
    name_job(op);
    if (op->submission->is_idempotent) {
        look_for_order(op);
    } else {
        look_for_pictures(op);
    }
}

void submit_end(struct operation *op, unsigned status)
{
    end_trace(op, status);
    /* What is on its way keeps its own share of the operation. */
    if (op->submission != NULL && !op->submission->is_sent && op->references == 1) {
        destroy(op);
    }
}
