/* /metrics, /healthz and /readyz over HTTP on the service's own port, from a thread of its own
 * (libmicrohttpd), so that a busy service still answers its probes. */
#ifndef COMMON_OBS_EXPORTER_H
#define COMMON_OBS_EXPORTER_H

#include "common/base/error.h"

struct exporter;

/* listen: "127.0.0.1:9100", ":9100" (all addresses), "[::1]:0"; port 0 takes a free one. */
int exporter_start(struct exporter **out, const char *listen, struct error *err) MUST_CHECK;
void exporter_stop(struct exporter *e);
int exporter_port(const struct exporter *e);

/* Splits a listen address; host is "" for all addresses. Shared with the gateway. */
int exporter_parse_listen(const char *listen, char host[64], int *port, struct error *err);

#endif
