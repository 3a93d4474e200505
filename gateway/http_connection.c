/* See http_connection.h. A close with unread bytes makes the kernel send a reset that may overtake
 * the answer. So after an answer by hand only the sending side is closed, and what still comes is
 * dropped until the client is done or LINGER_MS has passed. */
#include "gateway/http_connection.h"

#include <inttypes.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "common/base/clock.h"
#include "common/base/panic.h"
#include "gateway/problem.h"

#define LINGER_MS 3000

void http_connection_stop_receiving(struct http_server *s, struct http_connection *c)
{
    if (!c->receives) {
        return;
    }
    *(c->previous != NULL ? &c->previous->next : &s->first) = c->next;
    *(c->next != NULL ? &c->next->previous : &s->last) = c->previous;
    c->receives = false;
    c->previous = c->next = NULL;
}

void http_connection_start_receiving(struct http_server *s, struct http_connection *c)
{
    http_connection_stop_receiving(s, c);
    c->receives = true;
    c->since_ms = clock_monotonic_ms();
    c->previous = s->last;
    *(s->last != NULL ? &s->last->next : &s->first) = c;
    s->last = c;
}

void http_connection_notify(void *cls, struct MHD_Connection *handle, void **context,
                            enum MHD_ConnectionNotificationCode what)
{
    struct http_server *s = cls;
    if (what == MHD_CONNECTION_NOTIFY_STARTED) {
        struct http_connection *c = xcalloc(1, sizeof(*c));
        const union MHD_ConnectionInfo *info =
            MHD_get_connection_info(handle, MHD_CONNECTION_INFO_CONNECTION_FD);
        c->handle = handle;
        c->fd = info->connect_fd;
        /* A peer that vanished without a word is noticed by unacknowledged heartbeats. */
        unsigned timeout_ms = (unsigned)s->options.idle_timeout_ms;
        (void)setsockopt(c->fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &timeout_ms, sizeof(timeout_ms));
        *context = c;
        s->connection_count++;
        http_connection_start_receiving(s, c);
    } else {
        struct http_connection *c = *context;
        http_connection_stop_receiving(s, c);
        s->connection_count--;
        xfree(c);
        *context = NULL;
    }
}

struct http_connection *http_connection_of(struct MHD_Connection *handle)
{
    return MHD_get_connection_info(handle, MHD_CONNECTION_INFO_SOCKET_CONTEXT)->socket_context;
}

void http_connection_answer(struct http_connection *c, const struct http_request *r,
                            unsigned status, const char *body)
{
    struct buf text;
    buf_init(&text, 64 * 1024);
    int result = buf_printf(&text, NULL,
                            "HTTP/1.1 %u %s\r\nContent-Type: application/json\r\n"
                            "Content-Length: %zu\r\nConnection: close\r\nx-request-id: %s\r\n",
                            status, MHD_get_reason_phrase_for(status), strlen(body),
                            r != NULL ? r->id : "-");
    for (size_t i = 0; r != NULL && i < r->header_count && result == 0; i++) {
        result = buf_printf(&text, NULL, "%s: %s\r\n", r->headers[i].name, r->headers[i].value);
    }
    if (result == 0 && buf_printf(&text, NULL, "\r\n%s", body) == 0) {
        (void)!send(c->fd, text.data, text.size, MSG_NOSIGNAL | MSG_DONTWAIT);
    }
    buf_deinit(&text);
    shutdown(c->fd, SHUT_WR);
    c->lingers = true;
}

static void refuse_late(struct http_server *s, struct http_connection *c)
{
    char message[160];
    snprintf(message, sizeof(message),
             "The request was not there in full after %" PRId64
             " s. Send it in one go; nothing was done.",
             s->options.request_timeout_ms / 1000);
    char *body = problem_body("request_timeout", message, NULL);
    http_connection_answer(c, c->request, 408, body);
    xfree(body);
    if (c->request != NULL) {
        c->request->status = 408;
    }
}

void http_connection_sweep(struct http_server *s)
{
    uint64_t now_ms = clock_monotonic_ms();
    struct http_connection *next;
    for (struct http_connection *c = s->first; c != NULL; c = next) {
        next = c->next;
        uint64_t limit_ms = c->lingers ? LINGER_MS : (uint64_t)s->options.request_timeout_ms;
        if (now_ms < c->since_ms + limit_ms) {
            continue;
        }
        /* A connection that rests between two requests is not late. */
        if (!c->lingers && (c->request != NULL || !c->has_served)) {
            refuse_late(s, c);
        }
        http_connection_stop_receiving(s, c);
        shutdown(c->fd, SHUT_RDWR); /* the library sees the end and closes */
    }
}
