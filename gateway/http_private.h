/* What the server (http.c), its connections (http_connection.h) and their requests (http_request.h)
 * know of each other; nobody else includes it. */
#ifndef GATEWAY_HTTP_PRIVATE_H
#define GATEWAY_HTTP_PRIVATE_H

#include <microhttpd.h>

#include "common/base/buf.h"
#include "gateway/http.h"

#define HTTP_HEADERS_MAX 12
#define HTTP_REQUEST_ID_SIZE 65

struct http_connection {
    struct MHD_Connection *handle;
    int fd;
    bool receives;     /* in the server's list of connections that owe us a request */
    bool lingers;      /* answered by hand; drop what comes */
    bool has_served;   /* a request before this one */
    uint64_t since_ms; /* monotonic */
    struct http_connection *previous, *next;
    struct http_request *request;
};

struct http_header {
    const char *name; /* static */
    char *value;      /* owned */
};

struct http_request {
    struct http_server *server;
    struct http_connection *connection;
    char *method, *path;
    char id[HTTP_REQUEST_ID_SIZE];
    bool is_complete, is_suspended, is_queued;
    size_t body_max, body_seen;
    struct buf body; /* counted in the server's body_bytes */
    double started_s;
    void *data;
    /* the answer */
    unsigned status; /* 0: none yet */
    struct MHD_Response *response;
    char *text; /* its body, when it is a text: for answers by hand */
    struct http_header headers[HTTP_HEADERS_MAX];
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
    bool is_dirty, is_quiet, is_stopping;
    int port;
    size_t connection_count, request_count, body_bytes;
    struct http_connection *first, *last; /* those that receive */
};

#endif
