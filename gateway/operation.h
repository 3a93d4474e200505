/* One HTTP request on its way through the gateway, and what all of them share.
 *
 * An operation belongs to its request and to every answer from elsewhere that it still waits for
 * (Kafka's report, a look into Redis): it is freed when the last of them is done, so a client that
 * leaves early costs nothing but the work already asked for. Leaving never cancels a job. */
#ifndef GATEWAY_OPERATION_H
#define GATEWAY_OPERATION_H

#include <stdbool.h>
#include <stdint.h>

#include <uv.h>

#include "common/obs/tracing.h"
#include "common/service/service.h"
#include "gateway/auth.h"
#include "gateway/bus.h"
#include "gateway/endpoint.h"
#include "gateway/gateway_config.h"
#include "gateway/http.h"
#include "gateway/job.h"
#include "gateway/job_view.h"
#include "gateway/model_table.h"
#include "gateway/picture_cache.h"
#include "gateway/picture_lookup.h"

#define OPERATION_URL_SIZE 600

/* What the endpoints work with; filled and emptied by gateway.c. */
struct gateway {
    const struct service_context *context;
    const struct gateway_config *config;
    uint64_t started_ms; /* Unix time */
    uv_loop_t loop;
    struct http_server *http;
    struct bus *bus;
    struct auth *auth;
    struct job_table *jobs;
    struct model_table *models;
    struct picture_cache *cache;
    struct picture_cache *looks;   /* what was ordered without a seed -> the seed it got */
    struct picture_lookup *lookup; /* NULL without Redis */
    char public_url[OPERATION_URL_SIZE], cdn_base_url[OPERATION_URL_SIZE];
    int objects_fd; /* the object folder, or -1 */
    struct operation *operations;
    size_t stream_count;
    bool is_draining;
};

struct submission;
struct event_stream;
struct input_upload;

struct operation {
    struct gateway *gateway;
    struct http_request *request; /* NULL once it ended */
    int references;
    struct operation *previous, *next;
    struct endpoint_match match;
    char key_id[AUTH_KEY_ID_SIZE];
    uint64_t deadline_ms;                 /* monotonic; 0 = none */
    void (*passed)(struct operation *op); /* the deadline did */
    struct bus_waiter end;
    void (*read_to_end)(struct operation *op, bool reached);
    void (*found)(struct operation *op, struct job *job);
    struct job_watcher watcher;
    unsigned wait_s, status_open;
    unsigned hold_ms; /* submit.c: the answer with a job may wait for its end for so long */
    struct submission *submission; /* submit.c */
    struct trace_context trace;    /* submit.c: what the job's spans are children of */
    const char *tracestate;        /* submit.c: the client's; NULL = none */
    struct span *span;             /* submit.c: the request's; NULL unless it is recorded */
    struct event_stream *stream;   /* events.c */
    struct input_upload *upload;   /* inputs.c; freed with the operation */
};

/* Attached to the request as its data. */
struct operation *operation_create(struct gateway *g, struct http_request *request,
                                   const struct endpoint_match *match);
void operation_retain(struct operation *op);
void operation_release(struct operation *op);
/* The request ended: releases its share. */
void operation_end(struct operation *op);
/* Calls what passed; every 100 ms or so. */
void operation_check_deadlines(struct gateway *g);
/* The client waits for an answer still. */
bool operation_is_open(const struct operation *op);

/* Kafka has not answered or is away: 503 with Retry-After. */
void operation_answer_unavailable(struct operation *op, const char *code, const char *message);

/* Whether Kafka is there and not too many jobs are unfinished; false: answered 503. */
bool operation_check_capacity(struct operation *op);

/* Calls read_to_end once all that is on the topics at this moment has been folded; reached is false
 * when Kafka does not answer in time. */
void operation_wait_for_end(struct operation *op,
                            void (*read_to_end)(struct operation *op, bool reached));

/* Calls then(op, job) with the job of the request's id; answers 404, 410 or 503 itself. A job that
 * is not known is looked for up to the end of the topics at this moment; another key's job is not
 * found. */
void operation_with_job(struct operation *op, void (*then)(struct operation *op, struct job *job));

struct job_view operation_view(const struct gateway *g, const struct job *job);
/* Answers with the job: at once, or - when the client prefers to wait and the job is not done -
 * when it is done or the wait is over. 200 when it is done, else status_open. */
void operation_answer_job(struct operation *op, struct job *job, unsigned status_open);

#endif
