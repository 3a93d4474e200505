/* Requests as they come in and their answers, as libmicrohttpd sees them; what the rest of the
 * gateway calls is in http.h. */
#ifndef GATEWAY_HTTP_REQUEST_H
#define GATEWAY_HTTP_REQUEST_H

#include "gateway/http_private.h"

/* The library's access handler, and MHD_OPTION_NOTIFY_COMPLETED, of the server. */
enum MHD_Result http_request_access(void *server, struct MHD_Connection *handle, const char *path,
                                    const char *method, const char *version, const char *data,
                                    size_t *size, void **context);
void http_request_completed(void *server, struct MHD_Connection *handle, void **context,
                            enum MHD_RequestTerminationCode why);

#endif
