/* libmicrohttpd with one thread of its own. Limits are small: only probes and a scraper come here.
 */
#include "common/obs/exporter.h"

#include <errno.h>
#include <microhttpd.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "common/base/buf.h"
#include "common/base/panic.h"
#include "common/obs/health.h"
#include "common/obs/metrics.h"

#define CONNECTIONS_MAX 32
#define CONNECTION_MEMORY 16384
#define IDLE_SECONDS 15
#define THREAD_STACK_BYTES (256 * 1024)
#define ANSWER_BYTES_MAX (1024 * 1024)

struct exporter {
    struct MHD_Daemon *daemon;
    int port;
};

int exporter_parse_listen(const char *listen, char host[64], int *port, struct error *err)
{
    const char *colon = strrchr(listen, ':');
    const char *name = listen;
    size_t length = colon != NULL ? (size_t)(colon - listen) : 0;
    if (colon != NULL && length >= 2 && name[0] == '[' && colon[-1] == ']') {
        name++;
        length -= 2;
    } else if (colon != NULL && memchr(name, ':', length) != NULL) {
        colon = NULL; /* an IPv6 address without brackets: its last part is no port */
    }
    char *end = NULL;
    long number = colon != NULL ? strtol(colon + 1, &end, 10) : -1;
    bool is_number =
        colon != NULL && strspn(colon + 1, "0123456789") == strlen(colon + 1) && end != colon + 1;
    if (!is_number || number > 65535 || length >= 64) {
        return ERROR(err, STATUS_INVALID,
                     "\"%s\" is no listen address: write HOST:PORT, :PORT for all addresses, or "
                     "[IPv6]:PORT, with a port from 0 (any free one) to 65535",
                     listen);
    }
    memcpy(host, name, length);
    host[length] = '\0';
    *port = (int)number;
    return 0;
}

static enum MHD_Result answer(struct MHD_Connection *connection, unsigned code,
                              const char *content_type, struct buf *body)
{
    size_t size = 0;
    char *bytes = buf_take(body, &size);
    struct MHD_Response *response =
        MHD_create_response_from_buffer(size, bytes, MHD_RESPMEM_MUST_COPY);
    xfree(bytes);
    if (response == NULL) {
        return MHD_NO;
    }
    MHD_add_response_header(response, "Content-Type", content_type);
    MHD_add_response_header(response, "Cache-Control", "no-store");
    enum MHD_Result result = MHD_queue_response(connection, code, response);
    MHD_destroy_response(response);
    return result;
}

static enum MHD_Result handle(void *user, struct MHD_Connection *connection, const char *url,
                              const char *method, const char *version, const char *upload,
                              size_t *upload_size, void **state)
{
    (void)user, (void)version, (void)upload, (void)state;
    *upload_size = 0;
    struct buf body;
    buf_init(&body, ANSWER_BYTES_MAX);
    unsigned code = MHD_HTTP_OK;
    const char *content_type = "text/plain; charset=utf-8";
    if (strcmp(method, "GET") != 0 && strcmp(method, "HEAD") != 0) {
        code = MHD_HTTP_METHOD_NOT_ALLOWED;
        buf_printf(&body, NULL, "only GET and HEAD are answered here\n");
    } else if (strcmp(url, "/metrics") == 0) {
        content_type = "text/plain; version=0.0.4; charset=utf-8";
        metrics_render(&body);
    } else if (strcmp(url, "/healthz") == 0) {
        bool live = health_is_live();
        code = live ? MHD_HTTP_OK : MHD_HTTP_SERVICE_UNAVAILABLE;
        buf_printf(&body, NULL, "%s\n",
                   live ? "live" : "loop: no progress for 60 seconds: restart this process");
    } else if (strcmp(url, "/readyz") == 0) {
        bool ready = health_is_ready(&body);
        code = ready ? MHD_HTTP_OK : MHD_HTTP_SERVICE_UNAVAILABLE;
        if (ready) {
            buf_printf(&body, NULL, "ready\n");
        }
    } else {
        code = MHD_HTTP_NOT_FOUND;
        buf_printf(&body, NULL, "not found: this port has /metrics, /healthz and /readyz\n");
    }
    enum MHD_Result result = answer(connection, code, content_type, &body);
    buf_deinit(&body);
    return result;
}

/* libmicrohttpd's own messages concern broken clients of the probes: nobody needs them. */
static void drop_message(void *user, const char *format, va_list args)
{
    (void)user, (void)format, (void)args;
}

int exporter_start(struct exporter **out, const char *listen, struct error *err)
{
    char host[64], port_text[8];
    int port = 0;
    *out = NULL;
    int result = exporter_parse_listen(listen, host, &port, err);
    if (result < 0) {
        return result;
    }
    snprintf(port_text, sizeof(port_text), "%d", port);
    struct addrinfo hints = {.ai_flags = AI_PASSIVE | AI_NUMERICSERV, .ai_socktype = SOCK_STREAM};
    struct addrinfo *address = NULL;
    int failure = getaddrinfo(host[0] != '\0' ? host : NULL, port_text, &hints, &address);
    if (failure != 0) {
        return ERROR(err, STATUS_INVALID, "cannot listen on \"%s\": %s", listen,
                     gai_strerror(failure));
    }
    unsigned flags = MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_POLL | MHD_USE_ERROR_LOG |
                     (address->ai_family == AF_INET6 ? MHD_USE_IPv6 : 0);
    errno = 0;
    struct MHD_Daemon *daemon = MHD_start_daemon(
        flags, (uint16_t)port, NULL, NULL, handle, NULL, MHD_OPTION_EXTERNAL_LOGGER, drop_message,
        NULL, MHD_OPTION_SOCK_ADDR, address->ai_addr, MHD_OPTION_CONNECTION_LIMIT,
        (unsigned)CONNECTIONS_MAX, MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)CONNECTION_MEMORY,
        MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)IDLE_SECONDS, MHD_OPTION_THREAD_STACK_SIZE,
        (size_t)THREAD_STACK_BYTES, MHD_OPTION_END);
    int saved_errno = errno;
    freeaddrinfo(address);
    if (daemon == NULL) {
        return ERROR(err, STATUS_IO, "cannot listen on \"%s\": %s", listen, strerror(saved_errno));
    }
    const union MHD_DaemonInfo *info = MHD_get_daemon_info(daemon, MHD_DAEMON_INFO_BIND_PORT);
    struct exporter *e = xcalloc(1, sizeof(*e));
    e->daemon = daemon;
    e->port = info != NULL ? info->port : port;
    *out = e;
    return 0;
}

void exporter_stop(struct exporter *e)
{
    if (e == NULL) {
        return;
    }
    MHD_stop_daemon(e->daemon);
    xfree(e);
}

int exporter_port(const struct exporter *e)
{
    return e->port;
}
