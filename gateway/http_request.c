/* Requests and their answers: see http.h and http_request.h.
 *
 * A request's way: http_request_access() is called by the library with the headers, then with
 * pieces of the body, then with none left. An answer that is ready is queued as soon as the library
 * allows it; one that is not suspends the connection until http_answer* resumes it, and the library
 * calls again.
 *
 * Refusing an upload: the library can only answer after the whole body or before any of it. So a
 * refused body of up to DISCARD_BYTES_MAX is read and dropped and the answer sent normally; for
 * more, the answer is written to the socket at once (http_connection_answer).
 *
 * Bodies are held until their requests end, and are bounded together, by the bytes that came: what
 * a client only announces keeps nobody else out. */
#include "gateway/http_request.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/id.h"
#include "common/base/panic.h"
#include "gateway/gateway_metrics.h"
#include "gateway/http_connection.h"
#include "gateway/problem.h"

#define DISCARD_BYTES_MAX (1024 * 1024)
#define LARGE_BODY_BYTES ((size_t)256 * 1024)
#define STREAM_BLOCK_BYTES 4096 /* an event or two; held by every stream */

static bool is_request_id(const char *text)
{
    static const char allowed[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._:-";
    size_t size = text != NULL ? strspn(text, allowed) : 0;
    return size > 0 && size < HTTP_REQUEST_ID_SIZE && text[size] == '\0';
}

static struct http_request *request_create(struct http_server *s, struct MHD_Connection *handle,
                                           const char *path, const char *method)
{
    struct http_request *r = xcalloc(1, sizeof(*r));
    r->server = s;
    r->connection = http_connection_of(handle);
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

static void drop_body(struct http_request *r)
{
    r->server->body_bytes -= r->body.size;
    buf_deinit(&r->body);
}

static void request_destroy(struct http_request *r)
{
    r->server->request_count--;
    drop_body(r);
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

void http_request_completed(void *cls, struct MHD_Connection *handle, void **context,
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
        http_connection_start_receiving(s, r->connection); /* the next request on this connection */
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

/* Large bodies leave a quarter to small ones: whoever gives pictures keeps nobody from ordering. */
static bool has_room(const struct http_request *r, size_t more)
{
    size_t most = (size_t)r->server->options.bodies_bytes_max;
    most -= r->body_max > LARGE_BODY_BYTES ? most / 4 : 0;
    return more <= most && r->server->body_bytes <= most - more;
}

static void refuse_overload(struct http_request *r)
{
    gateway_metrics_refused(REFUSAL_OVERLOAD);
    http_answer_header(r, "Retry-After", "2");
    http_answer_problem(r, 503, "overloaded", NULL,
                        "Too much is being sent here at once. Try again in a moment.");
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
    http_connection_stop_receiving(r->server, r->connection);
    if (r->server->is_quiet && r->fill == NULL) {
        MHD_add_response_header(r->response, "Connection", "close");
    }
    return MHD_queue_response(r->connection->handle, r->status, r->response);
}

/* A refused upload that is (or may be) too long to be read to its end. */
static void refuse_upload_now(struct http_request *r)
{
    http_connection_answer(r->connection, r, r->status, r->text != NULL ? r->text : "");
    http_connection_start_receiving(r->server, r->connection); /* the sweep ends the lingering */
}

static enum MHD_Result on_headers(struct http_request *r)
{
    struct http_server *s = r->server;
    check_headers(r);
    if (r->status == 0 && s->is_stopping) {
        http_answer_header(r, "Retry-After", "2");
        http_answer_problem(r, 503, "shutting_down", NULL, "This gateway leaves. Try again.");
    }
    if (r->status == 0) {
        s->options.begin(s->options.user, r);
    }
    int64_t length = content_length(r);
    if (r->status == 0 && length > (int64_t)r->body_max) {
        refuse_body(r);
    } else if (r->status == 0 && length > 0 && !has_room(r, (size_t)length)) {
        refuse_overload(r);
    }
    if (r->status == 0) {
        r->body.size_max = r->body_max;
        return MHD_YES;
    }
    if (!has_body(r)) {
        return MHD_YES; /* access() comes again; answering only then keeps the connection */
    }
    const char *expect = http_request_header(r, "Expect");
    if (expect != NULL && strcasecmp(expect, "100-continue") == 0) {
        return queue_answer(r); /* the client has not sent its body yet, and never will */
    }
    if (length > DISCARD_BYTES_MAX) {
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
    if (r->status == 0 && r->body_seen > r->body_max) {
        refuse_body(r);
    } else if (r->status == 0 && !has_room(r, size)) {
        refuse_overload(r);
    }
    if (r->status == 0) {
        r->server->body_bytes += size;
        int result = buf_append(&r->body, data, size, NULL);
        ASSERT(result == 0); /* body_max is its maximum */
        return MHD_YES;
    }
    if (r->body.size > 0) {
        drop_body(r);
        buf_init(&r->body, 0);
    }
    if (r->body_seen > DISCARD_BYTES_MAX) {
        refuse_upload_now(r);
    }
    return MHD_YES;
}

static enum MHD_Result on_whole(struct http_request *r)
{
    struct http_server *s = r->server;
    if (r->connection->lingers) {
        return MHD_NO;
    }
    if (!r->is_complete) {
        r->is_complete = true;
        http_connection_stop_receiving(s, r->connection);
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

enum MHD_Result http_request_access(void *cls, struct MHD_Connection *handle, const char *path,
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

bool http_request_is_answered(const struct http_request *r)
{
    return r->status != 0;
}

/* ---- Answers -------------------------------------------------------------------------------- */

void http_answer_header(struct http_request *r, const char *name, const char *value)
{
    ASSERT(r->header_count < HTTP_HEADERS_MAX && r->status == 0);
    struct http_header *header = &r->headers[r->header_count++];
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
