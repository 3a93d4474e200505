/* libmicrohttpd on libuv: see http.h.
 *
 * A request's way: access() is called by the library with the headers, then with pieces of the
 * body, then with none left. An answer that is ready is queued as soon as the library allows it;
 * one that is not suspends the connection until http_answer* resumes it, and the library calls
 * access() again.
 *
 * Refusing an upload: the library can only answer after the whole body or before any of it, and a
 * close with unread bytes makes the kernel send a reset that may overtake the answer. So a refused
 * body of up to DISCARD_BYTES_MAX is read and dropped and the answer sent normally; for more, the
 * answer is written to the socket at once, the sending side is closed and what still comes is
 * dropped until the client is done or LINGER_MS has passed. A request that is not there in full by
 * its deadline is answered (408) the same way. */
#include "gateway/http.h"

#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#include <microhttpd.h>

#include "common/base/buf.h"
#include "common/base/clock.h"
#include "common/base/id.h"
#include "common/base/log.h"
#include "common/base/panic.h"
#include "common/obs/exporter.h"
#include "gateway/problem.h"

#define DISCARD_BYTES_MAX (1024 * 1024)
#define LINGER_MS 3000
#define SWEEP_MS 500
#define HEADERS_MAX 12
#define HEADER_ROOM_BYTES (16 * 1024)
#define REQUEST_ID_SIZE 65
#define STREAM_BLOCK_BYTES 4096 /* an event or two; held by every stream */

struct connection {
    struct MHD_Connection *handle;
    int fd;
    bool receives;     /* in the server's list of connections that owe us a request */
    bool lingers;      /* answered by hand; drop what comes */
    bool has_served;   /* a request before this one */
    uint64_t since_ms; /* monotonic */
    struct connection *previous, *next;
    struct http_request *request;
};

struct header {
    const char *name; /* static */
    char *value;      /* owned */
};

struct http_request {
    struct http_server *server;
    struct connection *connection;
    char *method, *path;
    char id[REQUEST_ID_SIZE];
    bool is_complete, is_suspended, is_queued, is_upload_refused;
    size_t body_max, body_seen;
    struct buf body;
    double started_s;
    void *data;
    /* the answer */
    unsigned status; /* 0: none yet */
    struct MHD_Response *response;
    char *text; /* its body, when it is a text: for answers by hand */
    struct header headers[HEADERS_MAX];
    size_t header_count;
    http_stream_fill fill;
    void *fill_data;
};

struct http_server {
    struct http_server_options options;
    struct MHD_Daemon *daemon;
    uv_poll_t poll;
    uv_timer_t timer, sweep;
    uv_prepare_t prepare;
    bool is_dirty, is_quiet;
    int port;
    size_t connection_count, request_count;
    struct connection *first, *last; /* those that receive */
};

/* ---- Connections ---------------------------------------------------------------------------- */

static void stop_receiving(struct http_server *s, struct connection *c)
{
    if (!c->receives) {
        return;
    }
    *(c->previous != NULL ? &c->previous->next : &s->first) = c->next;
    *(c->next != NULL ? &c->next->previous : &s->last) = c->previous;
    c->receives = false;
    c->previous = c->next = NULL;
}

static void start_receiving(struct http_server *s, struct connection *c)
{
    stop_receiving(s, c);
    c->receives = true;
    c->since_ms = clock_monotonic_ms();
    c->previous = s->last;
    *(s->last != NULL ? &s->last->next : &s->first) = c;
    s->last = c;
}

static void on_connection(void *cls, struct MHD_Connection *handle, void **context,
                          enum MHD_ConnectionNotificationCode what)
{
    struct http_server *s = cls;
    if (what == MHD_CONNECTION_NOTIFY_STARTED) {
        struct connection *c = xcalloc(1, sizeof(*c));
        const union MHD_ConnectionInfo *info =
            MHD_get_connection_info(handle, MHD_CONNECTION_INFO_CONNECTION_FD);
        c->handle = handle;
        c->fd = info->connect_fd;
        /* A peer that vanished without a word is noticed by unacknowledged heartbeats. */
        unsigned timeout_ms = (unsigned)s->options.idle_timeout_ms;
        (void)setsockopt(c->fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &timeout_ms, sizeof(timeout_ms));
        *context = c;
        s->connection_count++;
        start_receiving(s, c);
    } else {
        struct connection *c = *context;
        stop_receiving(s, c);
        s->connection_count--;
        xfree(c);
        *context = NULL;
    }
}

static struct connection *connection_of(struct MHD_Connection *handle)
{
    return MHD_get_connection_info(handle, MHD_CONNECTION_INFO_SOCKET_CONTEXT)->socket_context;
}

/* Writes an answer past the library and stops sending. What a fresh socket's buffer takes is
 * enough for our texts; a client that does not even take that gets a closed connection. */
static void answer_by_hand(struct connection *c, unsigned status, const char *request_id,
                           const char *body)
{
    struct buf text;
    buf_init(&text, 64 * 1024);
    int result =
        buf_printf(&text, NULL,
                   "HTTP/1.1 %u %s\r\nContent-Type: application/json\r\n"
                   "Content-Length: %zu\r\nConnection: close\r\nx-request-id: %s\r\n\r\n%s",
                   status, MHD_get_reason_phrase_for(status), strlen(body), request_id, body);
    if (result == 0) {
        (void)!send(c->fd, text.data, text.size, MSG_NOSIGNAL | MSG_DONTWAIT);
    }
    buf_deinit(&text);
    shutdown(c->fd, SHUT_WR);
    c->lingers = true;
}

static void refuse_late(struct http_server *s, struct connection *c)
{
    const char *id = c->request != NULL ? c->request->id : "-";
    char message[160];
    snprintf(message, sizeof(message),
             "The request was not there in full after %" PRId64
             " s. Send it in one go; nothing was done.",
             s->options.request_timeout_ms / 1000);
    char *body = problem_body("request_timeout", message, NULL);
    answer_by_hand(c, 408, id, body);
    xfree(body);
    if (c->request != NULL) {
        c->request->status = 408;
    }
}

static void on_sweep(uv_timer_t *timer)
{
    struct http_server *s = timer->data;
    uint64_t now_ms = clock_monotonic_ms();
    struct connection *next;
    /* At its connection limit the library stops listening, and starts again only in some later run,
     * for which no event may come. */
    s->is_dirty = true;
    for (struct connection *c = s->first; c != NULL; c = next) {
        next = c->next;
        uint64_t limit_ms = c->lingers ? LINGER_MS : (uint64_t)s->options.request_timeout_ms;
        if (now_ms < c->since_ms + limit_ms) {
            continue;
        }
        /* A connection that rests between two requests is not late. */
        if (!c->lingers && (c->request != NULL || !c->has_served)) {
            refuse_late(s, c);
        }
        stop_receiving(s, c);
        shutdown(c->fd, SHUT_RDWR); /* the library sees the end and closes */
    }
}

/* ---- The loop ------------------------------------------------------------------------------- */

static void on_timer(uv_timer_t *timer)
{
    struct http_server *s = timer->data;
    s->is_dirty = true;
}

static void on_readable(uv_poll_t *poll, int status, int events)
{
    struct http_server *s = poll->data;
    (void)status;
    (void)events;
    s->is_dirty = true;
}

/* Runs right before the loop waits, so one pass serves everything that this round of callbacks
 * made ready. */
static void on_prepare(uv_prepare_t *prepare)
{
    struct http_server *s = prepare->data;
    MHD_UNSIGNED_LONG_LONG timeout_ms;
    if (!s->is_dirty || s->daemon == NULL) {
        return;
    }
    s->is_dirty = false;
    MHD_run(s->daemon);
    if (MHD_get_timeout(s->daemon, &timeout_ms) == MHD_YES) {
        uv_timer_start(&s->timer, on_timer, s->is_dirty ? 0 : timeout_ms, 0);
    } else if (s->is_dirty) {
        uv_timer_start(&s->timer, on_timer, 0, 0);
    } else {
        uv_timer_stop(&s->timer);
    }
}

/* ---- Requests ------------------------------------------------------------------------------- */

static bool is_request_id(const char *text)
{
    static const char allowed[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._:-";
    size_t size = text != NULL ? strspn(text, allowed) : 0;
    return size > 0 && size < REQUEST_ID_SIZE && text[size] == '\0';
}

static struct http_request *request_create(struct http_server *s, struct MHD_Connection *handle,
                                           const char *path, const char *method)
{
    struct http_request *r = xcalloc(1, sizeof(*r));
    r->server = s;
    r->connection = connection_of(handle);
    r->connection->request = r;
    r->method = xstrdup(method);
    r->path = xstrdup(path);
    r->started_s = clock_monotonic_seconds();
    buf_init(&r->body, 0);
    const char *id = MHD_lookup_connection_value(handle, MHD_HEADER_KIND, "x-request-id");
    if (is_request_id(id)) {
        memcpy(r->id, id, strlen(id) + 1);
    } else {
        id_make(r->id);
    }
    s->request_count++;
    return r;
}

static void request_destroy(struct http_request *r)
{
    r->server->request_count--;
    buf_deinit(&r->body);
    xfree(r->method);
    xfree(r->path);
    xfree(r->text);
    for (size_t i = 0; i < r->header_count; i++) {
        xfree(r->headers[i].value);
    }
    if (r->response != NULL) {
        MHD_destroy_response(r->response);
    }
    xfree(r);
}

static void on_completed(void *cls, struct MHD_Connection *handle, void **context,
                         enum MHD_RequestTerminationCode why)
{
    struct http_server *s = cls;
    struct http_request *r = *context;
    (void)handle;
    if (r == NULL) {
        return;
    }
    *context = NULL;
    bool was_sent = why == MHD_REQUEST_TERMINATED_COMPLETED_OK || r->connection->lingers;
    double seconds = clock_monotonic_seconds() - r->started_s;
    s->options.ended(s->options.user, r, was_sent ? r->status : 0, seconds);
    r->connection->request = NULL;
    r->connection->has_served = true;
    if (!r->connection->lingers) {
        start_receiving(s, r->connection); /* the next request on this connection */
    }
    request_destroy(r);
}

/* -1: not given; -2: not a number (the library refuses those itself). */
static int64_t content_length(const struct http_request *r)
{
    const char *text = http_request_header(r, "Content-Length");
    if (text == NULL) {
        return -1;
    }
    char *end = NULL;
    errno = 0;
    long long value = strtoll(text, &end, 10);
    return errno == 0 && end != text && *end == '\0' && value >= 0 ? value : INT64_MAX;
}

static bool has_body(const struct http_request *r)
{
    return http_request_header(r, "Transfer-Encoding") != NULL || content_length(r) > 0;
}

static void refuse_body(struct http_request *r)
{
    if (r->body_max == 0) {
        http_answer_problem(r, 413, "body_not_expected", NULL, "%s %s takes no request body.",
                            r->method, r->path);
    } else {
        http_answer_problem(r, 413, "body_too_large", NULL,
                            "The body is larger than %zu bytes, which is the limit here.",
                            r->body_max);
    }
}

static void check_headers(struct http_request *r)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(r->connection->handle, MHD_CONNECTION_INFO_REQUEST_HEADER_SIZE);
    int64_t limit = r->server->options.header_bytes_max;
    if (info != NULL && (int64_t)info->header_size > limit) {
        http_answer_problem(r, 431, "header_too_large", NULL,
                            "The request line and headers have %zu bytes; the limit is %" PRId64
                            ".",
                            info->header_size, limit);
    }
}

static enum MHD_Result queue_answer(struct http_request *r)
{
    r->is_queued = true;
    stop_receiving(r->server, r->connection);
    if (r->server->is_quiet && r->fill == NULL) {
        MHD_add_response_header(r->response, "Connection", "close");
    }
    return MHD_queue_response(r->connection->handle, r->status, r->response);
}

/* A refused upload that is (or may be) too long to be read to its end. */
static void refuse_upload_now(struct http_request *r)
{
    answer_by_hand(r->connection, r->status, r->id, r->text != NULL ? r->text : "");
    start_receiving(r->server, r->connection); /* the sweep ends the lingering */
}

static enum MHD_Result on_headers(struct http_request *r)
{
    struct http_server *s = r->server;
    check_headers(r);
    if (r->status == 0) {
        s->options.begin(s->options.user, r);
    }
    if (r->status == 0 && content_length(r) > (int64_t)r->body_max) {
        refuse_body(r);
    }
    if (r->status == 0) {
        if (r->body_max > 0) {
            buf_deinit(&r->body);
            buf_init(&r->body, r->body_max);
        }
        return MHD_YES;
    }
    if (!has_body(r)) {
        return MHD_YES; /* access() comes again; answering only then keeps the connection */
    }
    const char *expect = http_request_header(r, "Expect");
    if (expect != NULL && strcasecmp(expect, "100-continue") == 0) {
        return queue_answer(r); /* the client has not sent its body yet, and never will */
    }
    r->is_upload_refused = true;
    if (content_length(r) > DISCARD_BYTES_MAX) {
        refuse_upload_now(r);
    }
    return MHD_YES;
}

static enum MHD_Result on_body(struct http_request *r, const char *data, size_t size)
{
    r->body_seen += size;
    if (r->connection->lingers) {
        return MHD_YES;
    }
    if (r->is_upload_refused) {
        if (r->body_seen > DISCARD_BYTES_MAX) {
            refuse_upload_now(r);
        }
        return MHD_YES;
    }
    if (r->body_seen > r->body_max) {
        refuse_body(r);
        r->is_upload_refused = true;
        return MHD_YES;
    }
    return buf_append(&r->body, data, size, NULL) == 0 ? MHD_YES : MHD_NO;
}

static enum MHD_Result on_whole(struct http_request *r)
{
    struct http_server *s = r->server;
    if (r->connection->lingers) {
        return MHD_NO;
    }
    if (!r->is_complete) {
        r->is_complete = true;
        stop_receiving(s, r->connection);
        if (r->status == 0) {
            s->options.handle(s->options.user, r);
        }
    }
    if (r->status != 0) {
        return queue_answer(r);
    }
    r->is_suspended = true;
    MHD_suspend_connection(r->connection->handle);
    return MHD_YES;
}

static enum MHD_Result access_handler(void *cls, struct MHD_Connection *handle, const char *path,
                                      const char *method, const char *version, const char *data,
                                      size_t *size, void **context)
{
    struct http_server *s = cls;
    struct http_request *r = *context;
    (void)version;
    if (r == NULL) {
        r = *context = request_create(s, handle, path, method);
        return on_headers(r);
    }
    if (*size > 0) {
        enum MHD_Result result = on_body(r, data, *size);
        *size = 0;
        return result;
    }
    return on_whole(r);
}

const char *http_request_method(const struct http_request *r)
{
    return r->method;
}

const char *http_request_path(const struct http_request *r)
{
    return r->path;
}

const char *http_request_header(const struct http_request *r, const char *name)
{
    return MHD_lookup_connection_value(r->connection->handle, MHD_HEADER_KIND, name);
}

const char *http_request_id(const struct http_request *r)
{
    return r->id;
}

bool http_request_is_head(const struct http_request *r)
{
    return strcmp(r->method, "HEAD") == 0;
}

const char *http_request_body(const struct http_request *r, size_t *size)
{
    *size = r->body.size;
    return r->body.size > 0 ? r->body.data : "";
}

void http_request_expect_body(struct http_request *r, size_t size_max)
{
    r->body_max = size_max;
}

void http_request_set_data(struct http_request *r, void *data)
{
    r->data = data;
}

void *http_request_data(const struct http_request *r)
{
    return r->data;
}

/* ---- Answers -------------------------------------------------------------------------------- */

bool http_request_is_answered(const struct http_request *r)
{
    return r->status != 0;
}

void http_answer_header(struct http_request *r, const char *name, const char *value)
{
    ASSERT(r->header_count < HEADERS_MAX && r->status == 0);
    struct header *header = &r->headers[r->header_count++];
    header->name = name;
    header->value = xstrdup(value);
}

static void set_answer(struct http_request *r, unsigned status, const char *content_type,
                       struct MHD_Response *response)
{
    ASSERT(r->status == 0 && response != NULL);
    r->status = status;
    r->response = response;
    if (content_type != NULL) {
        MHD_add_response_header(response, "Content-Type", content_type);
    }
    MHD_add_response_header(response, "x-request-id", r->id);
    for (size_t i = 0; i < r->header_count; i++) {
        MHD_add_response_header(response, r->headers[i].name, r->headers[i].value);
    }
    if (r->is_suspended) {
        r->is_suspended = false;
        MHD_resume_connection(r->connection->handle);
        r->server->is_dirty = true;
    }
}

void http_answer(struct http_request *r, unsigned status, const char *content_type, char *body)
{
    size_t size = body != NULL ? strlen(body) : 0;
    xfree(r->text);
    r->text = body;
    /* PERSISTENT: the text lives in the request, which ends after the answer was sent. */
    set_answer(r, status, size > 0 ? content_type : NULL,
               MHD_create_response_from_buffer(size, body, MHD_RESPMEM_PERSISTENT));
}

void http_answer_problem(struct http_request *r, unsigned status, const char *code,
                         const struct problem_list *details, const char *format, ...)
{
    char message[1024];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message, sizeof(message), format, arguments);
    va_end(arguments);
    char *body = problem_body(code, message, details);
    http_answer(r, status, "application/json", body);
}

void http_answer_file(struct http_request *r, unsigned status, const char *content_type, int fd,
                      size_t size)
{
    struct MHD_Response *response = MHD_create_response_from_fd64(size, fd);
    if (response == NULL) {
        close(fd);
        http_answer_problem(r, 500, "internal", NULL, "The picture cannot be sent.");
        return;
    }
    set_answer(r, status, content_type, response);
}

static ssize_t on_stream(void *cls, uint64_t position, char *out, size_t max)
{
    struct http_request *r = cls;
    (void)position;
    ssize_t size = r->fill(r->fill_data, out, max);
    if (size == HTTP_STREAM_END) {
        return MHD_CONTENT_READER_END_OF_STREAM;
    }
    if (size == 0) {
        r->is_suspended = true;
        MHD_suspend_connection(r->connection->handle);
    }
    return size;
}

void http_answer_stream(struct http_request *r, const char *content_type, http_stream_fill fill,
                        void *data)
{
    r->fill = fill;
    r->fill_data = data;
    set_answer(r, 200, content_type,
               MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, STREAM_BLOCK_BYTES, on_stream, r,
                                                 NULL));
}

void http_stream_wake(struct http_request *r)
{
    if (r->is_suspended) {
        r->is_suspended = false;
        MHD_resume_connection(r->connection->handle);
        r->server->is_dirty = true;
    }
}

/* ---- Start and stop ------------------------------------------------------------------------- */

/* Paths stay as they came: nothing of ours needs an escape, and "%00" or "%2e%2e" never turn into
 * something else. */
static size_t keep_escaped(void *cls, struct MHD_Connection *handle, char *text)
{
    (void)cls;
    (void)handle;
    return strlen(text);
}

static void log_library(void *cls, const char *format, va_list arguments)
{
    (void)cls;
    char text[512];
    if (log_enabled(LOG_DEBUG)) {
        vsnprintf(text, sizeof(text), format, arguments);
        text[strcspn(text, "\n")] = '\0';
        log_debug("libmicrohttpd", "text=%s", LOG_QUOTED(text));
    }
}

static int resolve(const char *listen, struct addrinfo **address, struct error *err)
{
    char host[64], service[8];
    int port;
    int result = exporter_parse_listen(listen, host, &port, err);
    if (result != 0) {
        return result;
    }
    struct addrinfo hints = {.ai_flags = AI_PASSIVE | AI_NUMERICSERV, .ai_socktype = SOCK_STREAM};
    snprintf(service, sizeof(service), "%d", port);
    int code = getaddrinfo(host[0] != '\0' ? host : NULL, service, &hints, address);
    if (code != 0) {
        return ERROR(err, STATUS_INVALID, "listen address %s: %s", listen, gai_strerror(code));
    }
    return 0;
}

static struct MHD_Daemon *start_daemon(struct http_server *s, const struct addrinfo *address)
{
    const struct http_server_options *o = &s->options;
    unsigned flags = MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ERROR_LOG |
                     (address->ai_family == AF_INET6 ? MHD_USE_IPv6 : 0U);
    unsigned idle_s = (unsigned)((o->idle_timeout_ms + 999) / 1000);
    /* Room past our own limit, so that most oversized headers get our answer, not the library's. No
     * more: the library clears all of it after each request. */
    size_t memory = (size_t)o->header_bytes_max + HEADER_ROOM_BYTES;
    return MHD_start_daemon(
        flags, 0, NULL, NULL, access_handler, s, MHD_OPTION_EXTERNAL_LOGGER, log_library, NULL,
        MHD_OPTION_SOCK_ADDR, address->ai_addr, MHD_OPTION_CONNECTION_MEMORY_LIMIT, memory,
        MHD_OPTION_CONNECTION_LIMIT, (unsigned)o->connections_max,
        MHD_OPTION_PER_IP_CONNECTION_LIMIT, (unsigned)o->connections_per_address_max,
        MHD_OPTION_CONNECTION_TIMEOUT, idle_s, MHD_OPTION_NOTIFY_COMPLETED, on_completed, s,
        MHD_OPTION_NOTIFY_CONNECTION, on_connection, s, MHD_OPTION_UNESCAPE_CALLBACK, keep_escaped,
        NULL, MHD_OPTION_LISTENING_ADDRESS_REUSE, 1U, MHD_OPTION_LISTEN_BACKLOG_SIZE, 1024U,
        MHD_OPTION_STRICT_FOR_CLIENT, 1, MHD_OPTION_END);
}

int http_server_start(struct http_server **out, uv_loop_t *loop,
                      const struct http_server_options *options, struct error *err)
{
    struct addrinfo *address = NULL;
    *out = NULL;
    int result = resolve(options->listen, &address, err);
    if (result != 0) {
        return result;
    }
    struct http_server *s = xcalloc(1, sizeof(*s));
    s->options = *options;
    errno = 0;
    s->daemon = start_daemon(s, address);
    freeaddrinfo(address);
    if (s->daemon == NULL) {
        xfree(s);
        return ERROR(err, STATUS_IO, "cannot listen on %s: %s", options->listen, strerror(errno));
    }
    s->port = MHD_get_daemon_info(s->daemon, MHD_DAEMON_INFO_BIND_PORT)->port;
    int epoll_fd = MHD_get_daemon_info(s->daemon, MHD_DAEMON_INFO_EPOLL_FD)->epoll_fd;
    s->poll.data = s->timer.data = s->sweep.data = s->prepare.data = s;
    uv_poll_init(loop, &s->poll, epoll_fd);
    uv_timer_init(loop, &s->timer);
    uv_timer_init(loop, &s->sweep);
    uv_prepare_init(loop, &s->prepare);
    uv_poll_start(&s->poll, UV_READABLE, on_readable);
    uv_prepare_start(&s->prepare, on_prepare);
    uv_timer_start(&s->sweep, on_sweep, SWEEP_MS, SWEEP_MS);
    *out = s;
    return 0;
}

int http_server_port(const struct http_server *s)
{
    return s->port;
}

size_t http_server_connections(const struct http_server *s)
{
    return s->connection_count;
}

size_t http_server_requests(const struct http_server *s)
{
    return s->request_count;
}

void http_server_quiesce(struct http_server *s)
{
    if (s->is_quiet) {
        return;
    }
    s->is_quiet = true;
    MHD_socket listen_fd = MHD_quiesce_daemon(s->daemon);
    if (listen_fd != MHD_INVALID_SOCKET) {
        close(listen_fd);
    }
    s->is_dirty = true;
}

void http_server_stop(struct http_server *s)
{
    uv_poll_stop(&s->poll);
    MHD_run(s->daemon); /* lets resumed connections leave the suspended list */
    MHD_stop_daemon(s->daemon);
    s->daemon = NULL;
    uv_close((uv_handle_t *)&s->poll, NULL);
    uv_close((uv_handle_t *)&s->timer, NULL);
    uv_close((uv_handle_t *)&s->sweep, NULL);
    uv_close((uv_handle_t *)&s->prepare, NULL);
}

void http_server_destroy(struct http_server *s)
{
    xfree(s);
}
