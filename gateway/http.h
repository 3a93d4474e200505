/* HTTP/1.1 on the libuv loop: libmicrohttpd parses and writes, its epoll descriptor is a uv_poll,
 * its timeout a uv_timer (docs/adr/0002-http-library.md). This file hides both and adds what they
 * lack: limits with answers that say what was wrong, a deadline for a whole request (a client that
 * sends a byte now and then holds nothing), requests that wait without a thread, streams that are
 * woken when there is something to send.
 *
 * Thread rule: everything on the loop thread. A request lives until its `ended` callback. */
#ifndef GATEWAY_HTTP_H
#define GATEWAY_HTTP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include <uv.h>

#include "common/base/error.h"

struct http_server;
struct http_request;

struct http_server_options {
    const char *listen; /* "127.0.0.1:8080", ":8080", "[::1]:0" */
    int64_t header_bytes_max;
    int64_t bodies_bytes_max; /* held of all requests together; past it they are answered 503 */
    int64_t connections_max;
    int64_t connections_per_address_max; /* 0 = no limit */
    int64_t idle_timeout_ms;             /* no byte either way */
    int64_t request_timeout_ms;          /* from the connection's start or its last answer until a
                                          * request is there in full */

    /* The headers are there. Answer at once to refuse, or say with http_request_expect_body how
     * much body may come (none unless said). */
    void (*begin)(void *user, struct http_request *r);
    /* The whole request is there and was not answered yet. Answer now, or later: the connection
     * waits (its client's death is noticed only when it is answered). */
    void (*handle)(void *user, struct http_request *r);
    /* The answer was sent or the client is gone; frees what the handlers attached. status is 0
     * when nothing was answered. */
    void (*ended)(void *user, struct http_request *r, unsigned status, double seconds);
    void *user;
};

int http_server_start(struct http_server **out, uv_loop_t *loop,
                      const struct http_server_options *options, struct error *err) MUST_CHECK;
int http_server_port(const struct http_server *s);
size_t http_server_connections(const struct http_server *s);
size_t http_server_requests(const struct http_server *s); /* begun and not ended */
size_t http_server_body_bytes(const struct http_server *s);
/* Takes no new connection; those that are there are served on, and closed after their answer. */
void http_server_quiesce(struct http_server *s);
/* Every request must have been answered and every stream ended (its fill said so); one that begins
 * only now is answered 503 here. Closes all connections; run the loop once more afterwards so that
 * its handles close, then destroy. */
void http_server_stop(struct http_server *s);
void http_server_destroy(struct http_server *s);

/* ---- What was asked; the texts live as long as the request ---------------------------------- */

const char *http_request_method(const struct http_request *r);
const char *http_request_path(const struct http_request *r); /* not decoded, without the query */
const char *http_request_header(const struct http_request *r, const char *name); /* or NULL */
const char *http_request_id(const struct http_request *r); /* x-request-id of the answer */
bool http_request_is_head(const struct http_request *r);
/* NUL-terminated; "" when none came. */
const char *http_request_body(const struct http_request *r, size_t *size);

void http_request_expect_body(struct http_request *r, size_t size_max);
void http_request_set_data(struct http_request *r, void *data); /* freed by `ended` */
void *http_request_data(const struct http_request *r);

/* ---- Answers: exactly one a request --------------------------------------------------------- */

bool http_request_is_answered(const struct http_request *r);
/* Adds a header to the answer that follows. */
void http_answer_header(struct http_request *r, const char *name, const char *value);
/* body is taken (xfree); "" and NULL mean none. */
void http_answer(struct http_request *r, unsigned status, const char *content_type, char *body);
/* {"error": ...}; details may be NULL (problem.h). */
struct problem_list;
void http_answer_problem(struct http_request *r, unsigned status, const char *code,
                         const struct problem_list *details, const char *format, ...)
    __attribute__((format(printf, 5, 6)));
/* Sends `size` bytes of the file; the descriptor is taken. */
void http_answer_file(struct http_request *r, unsigned status, const char *content_type, int fd,
                      size_t size);

/* A body without known length. fill writes at most max bytes and returns how many; 0 = nothing now
 * (call http_stream_wake when there is), HTTP_STREAM_END = that was all. It is not called after
 * the request ended. */
#define HTTP_STREAM_END (-1)
typedef ssize_t (*http_stream_fill)(void *data, char *out, size_t max);
void http_answer_stream(struct http_request *r, const char *content_type, http_stream_fill fill,
                        void *data);
void http_stream_wake(struct http_request *r);

#endif
