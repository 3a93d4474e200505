/* Metrics of the gateway: see gateway_metrics.h. Label sets are made at start from the small
 * tables below. */
#include "gateway/gateway_metrics.h"

#include <stdio.h>
#include <string.h>

#include "common/obs/metrics.h"

#define CLASS_COUNT 6 /* 1xx (the client left) to 5xx, by first digit */

METRIC_DEFINE_COUNTER(metric_accepted, "crafterse_gateway_jobs_accepted_total", "",
                      "Jobs that Kafka acknowledged.");
METRIC_DEFINE_SECONDS(metric_acknowledge, "crafterse_gateway_accept_seconds", "",
                      "From a checked submission to Kafka's acknowledgement.");
/* The service levels' own bounds are among them (deploy/monitoring/rules). */
static const double job_buckets[] = {0.5, 1,  2.5, 5,   10,  15,  20,  25,  30,  40,
                                     45,  60, 90,  120, 180, 300, 600, 900, 1200};
static struct metric metric_job_seconds = {.name = "crafterse_gateway_job_seconds",
                                           .labels = "",
                                           .help = "From accepted to finished, of succeeded jobs.",
                                           .kind = METRIC_HISTOGRAM,
                                           .buckets = job_buckets,
                                           .bucket_count =
                                               sizeof(job_buckets) / sizeof(job_buckets[0])};
METRIC_DEFINE_GAUGE(metric_connections, "crafterse_gateway_connections", "", "Open connections.");
METRIC_DEFINE_GAUGE(metric_body_bytes, "crafterse_gateway_body_bytes", "",
                    "Request bodies held in memory.");
METRIC_DEFINE_GAUGE(metric_streams, "crafterse_gateway_event_streams", "",
                    "Clients that follow a job's events.");
METRIC_DEFINE_GAUGE(metric_workers, "crafterse_gateway_workers_live", "",
                    "Workers that announced themselves lately.");

/* docs/PROTOCOL.md, Why a job ended. The last one stands for those that are newer than this. */
static const char *const reasons[] = {"no_capacity",
                                      "size_not_served",
                                      "steps_not_served",
                                      "scheduler_not_served",
                                      "deadline_passed",
                                      "cancelled_by_client",
                                      "engine_error",
                                      "attempts_exhausted",
                                      "time_limit",
                                      "input_expired",
                                      "invalid_input",
                                      "picture_too_large",
                                      "storage_refused",
                                      "picture_missing",
                                      "undecodable",
                                      "waited_too_long",
                                      "other"};
#define REASON_COUNT (sizeof(reasons) / sizeof(reasons[0]))

/* Between which moments of a job each stage lies. */
static const struct {
    const char *name;
    enum job_moment from, until;
} stages[] = {{"admit", MOMENT_ACCEPTED, MOMENT_QUEUED},
              {"queue", MOMENT_QUEUED, MOMENT_DISPATCHED},
              {"start", MOMENT_DISPATCHED, MOMENT_RUNNING},
              {"draw", MOMENT_RUNNING, MOMENT_RENDERED},
              {"upload", MOMENT_RENDERED, MOMENT_FINISHED}};
#define STAGE_COUNT (sizeof(stages) / sizeof(stages[0]))

static struct metric *metric_requests[ENDPOINT_COUNT][CLASS_COUNT];
static struct metric *metric_seconds[ENDPOINT_COUNT];
static struct metric *metric_refused[REFUSAL_COUNT];
static struct metric *metric_cache[CACHE_COUNT];
static struct metric *metric_finished[4];
static struct metric *metric_ended[REASON_COUNT];
static struct metric *metric_stages[STAGE_COUNT];
static struct metric *metric_jobs[6];

static const char *const refusals[REFUSAL_COUNT] = {"invalid", "unauthorized", "rate", "overload",
                                                    "unavailable"};
static const char *const cache_results[CACHE_COUNT] = {"hit_process", "hit_redis", "miss"};
static const char *const job_levels[6] = {"waiting", "working",   "succeeded",
                                          "failed",  "cancelled", "expired"};

static struct metric *make(enum metric_kind kind, const char *name, const char *label,
                           const char *value, const char *help)
{
    char labels[96];
    snprintf(labels, sizeof(labels), "%s=\"%s\"", label, value);
    return metric_create(kind, name, labels, help);
}

static void register_requests(enum endpoint endpoint)
{
    static const char *const classes[CLASS_COUNT] = {"none", "1xx", "2xx", "3xx", "4xx", "5xx"};
    char labels[96];
    for (int class = 0; class < CLASS_COUNT; class ++) {
        snprintf(labels, sizeof(labels), "endpoint=\"%s\",code=\"%s\"", endpoint_name(endpoint),
                 classes[class]);
        metric_requests[endpoint][class] =
            metric_create(METRIC_COUNTER, "crafterse_gateway_requests_total", labels,
                          "Requests by endpoint and class of status; none: the client left first.");
    }
    metric_seconds[endpoint] =
        make(METRIC_HISTOGRAM, "crafterse_gateway_request_seconds", "endpoint",
             endpoint_name(endpoint), "From the headers to the end of the answer.");
}

void gateway_metrics_register(void)
{
    for (int endpoint = 0; endpoint < ENDPOINT_COUNT; endpoint++) {
        register_requests((enum endpoint)endpoint);
    }
    for (int i = 0; i < REFUSAL_COUNT; i++) {
        metric_refused[i] = make(METRIC_COUNTER, "crafterse_gateway_refused_total", "reason",
                                 refusals[i], "Requests that were refused, by reason.");
    }
    for (int i = 0; i < CACHE_COUNT; i++) {
        metric_cache[i] = make(METRIC_COUNTER, "crafterse_gateway_cache_lookups_total", "result",
                               cache_results[i],
                               "Submissions that asked for a picture that may be there already.");
    }
    for (int i = 0; i < 6; i++) {
        metric_jobs[i] = make(METRIC_GAUGE, "crafterse_gateway_jobs", "state", job_levels[i],
                              "Jobs in memory by state.");
    }
    for (int i = 0; i < 4; i++) {
        metric_finished[i] = make(METRIC_COUNTER, "crafterse_gateway_jobs_finished_total", "state",
                                  job_levels[2 + i], "Ends of jobs read from status.");
    }
    for (size_t i = 0; i < REASON_COUNT; i++) {
        metric_ended[i] = make(METRIC_COUNTER, "crafterse_gateway_job_failures_total", "reason",
                               reasons[i], "Jobs that ended without a picture, by reason.");
    }
    for (size_t i = 0; i < STAGE_COUNT; i++) {
        metric_stages[i] =
            make(METRIC_HISTOGRAM, "crafterse_gateway_job_stage_seconds", "stage", stages[i].name,
                 "How long succeeded jobs were in each stage of the pipeline.");
    }
    metric_register(&metric_accepted);
    metric_register(&metric_acknowledge);
    metric_register(&metric_job_seconds);
    metric_register(&metric_connections);
    metric_register(&metric_body_bytes);
    metric_register(&metric_streams);
    metric_register(&metric_workers);
}

void gateway_metrics_request(enum endpoint endpoint, unsigned status, double seconds)
{
    unsigned class = status / 100 < CLASS_COUNT ? status / 100 : CLASS_COUNT - 1;
    metric_increment(metric_requests[endpoint][class]);
    metric_observe(metric_seconds[endpoint], seconds);
}

void gateway_metrics_accepted(double seconds_to_acknowledge)
{
    metric_increment(&metric_accepted);
    metric_observe(&metric_acknowledge, seconds_to_acknowledge);
}

void gateway_metrics_refused(enum gateway_metrics_refusal why)
{
    metric_increment(metric_refused[why]);
}

void gateway_metrics_looked_up(enum gateway_metrics_cache result)
{
    metric_increment(metric_cache[result]);
}

static void observe_stages(const struct job *job)
{
    for (size_t i = 0; i < STAGE_COUNT; i++) {
        uint64_t from_ms = job->at_ms[stages[i].from], until_ms = job->at_ms[stages[i].until];
        /* Answers from the cache have none of them. */
        if (from_ms > 0 && until_ms >= from_ms) {
            metric_observe(metric_stages[i], (double)(until_ms - from_ms) / 1000);
        }
    }
    uint64_t from_ms = job->at_ms[MOMENT_ACCEPTED], until_ms = job->at_ms[MOMENT_FINISHED];
    if (from_ms > 0 && until_ms >= from_ms) {
        metric_observe(&metric_job_seconds, (double)(until_ms - from_ms) / 1000);
    }
}

static void count_reason(const char *reason)
{
    size_t i = 0;
    while (i < REASON_COUNT - 1 && strcmp(reasons[i], reason) != 0) {
        i++;
    }
    metric_increment(metric_ended[i]);
}

void gateway_metrics_finished(const struct job *job)
{
    int index = (int)job->state - CRAFTERSE__V1__STATE__STATE_SUCCEEDED;
    metric_increment(metric_finished[index >= 0 && index < 4 ? index : 1]);
    if (index == 0) {
        observe_stages(job);
    } else {
        count_reason(job->reason);
    }
}

void gateway_metrics_levels(size_t connections, size_t body_bytes, size_t streams,
                            const struct job_counts *jobs, size_t workers)
{
    const size_t levels[6] = {jobs->waiting, jobs->working,   jobs->succeeded,
                              jobs->failed,  jobs->cancelled, jobs->expired};
    for (int i = 0; i < 6; i++) {
        metric_set(metric_jobs[i], (double)levels[i]);
    }
    metric_set(&metric_connections, (double)connections);
    metric_set(&metric_body_bytes, (double)body_bytes);
    metric_set(&metric_streams, (double)streams);
    metric_set(&metric_workers, (double)workers);
}
