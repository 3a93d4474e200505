/* Connections of the server in http.h: which of them owe us a request, since when, and how they are
 * ended. */
#ifndef GATEWAY_HTTP_CONNECTION_H
#define GATEWAY_HTTP_CONNECTION_H

#include "gateway/http_private.h"

/* MHD_OPTION_NOTIFY_CONNECTION of the server. */
void http_connection_notify(void *server, struct MHD_Connection *handle, void **context,
                            enum MHD_ConnectionNotificationCode what);
struct http_connection *http_connection_of(struct MHD_Connection *handle);

/* From now on the client owes us a whole request, within the request timeout; and no longer. */
void http_connection_start_receiving(struct http_server *s, struct http_connection *c);
void http_connection_stop_receiving(struct http_server *s, struct http_connection *c);

/* Writes an answer past the library and stops sending. What a fresh socket's buffer takes is enough
 * for our texts; a client that does not even take that gets a closed connection. r is whose headers
 * and id the answer has; NULL = there is none yet. */
void http_connection_answer(struct http_connection *c, const struct http_request *r,
                            unsigned status, const char *body);

/* Refuses requests that are late and ends what lingers too long; call twice a second. */
void http_connection_sweep(struct http_server *s);

#endif
