/* libmicrohttpd on libuv: see http.h. */
#include "gateway/http.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/base/log.h"
#include "common/base/panic.h"
#include "common/obs/exporter.h"
#include "gateway/http_connection.h"
#include "gateway/http_request.h"

#define SWEEP_MS 500
#define HEADER_ROOM_BYTES (16 * 1024)

/* ---- The loop ------------------------------------------------------------------------------- */

static void on_timer(uv_timer_t *timer)
{
    struct http_server *s = timer->data;
    s->is_dirty = true;
}

static void on_sweep(uv_timer_t *timer)
{
    struct http_server *s = timer->data;
    /* At its connection limit the library stops listening, and starts again only in some later run,
     * for which no event may come. */
    s->is_dirty = true;
    http_connection_sweep(s);
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
        flags, 0, NULL, NULL, http_request_access, s, MHD_OPTION_EXTERNAL_LOGGER, log_library, NULL,
        MHD_OPTION_SOCK_ADDR, address->ai_addr, MHD_OPTION_CONNECTION_MEMORY_LIMIT, memory,
        MHD_OPTION_CONNECTION_LIMIT, (unsigned)o->connections_max,
        MHD_OPTION_PER_IP_CONNECTION_LIMIT, (unsigned)o->connections_per_address_max,
        MHD_OPTION_CONNECTION_TIMEOUT, idle_s, MHD_OPTION_NOTIFY_COMPLETED, http_request_completed,
        s, MHD_OPTION_NOTIFY_CONNECTION, http_connection_notify, s, MHD_OPTION_UNESCAPE_CALLBACK,
        keep_escaped, NULL, MHD_OPTION_LISTENING_ADDRESS_REUSE, 1U, MHD_OPTION_LISTEN_BACKLOG_SIZE,
        1024U, MHD_OPTION_STRICT_FOR_CLIENT, 1, MHD_OPTION_END);
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

size_t http_server_body_bytes(const struct http_server *s)
{
    return s->body_bytes;
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
    s->is_stopping = true;
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
