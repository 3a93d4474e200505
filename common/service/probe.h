/* Asks a service that runs beside this process for its health, as a container's health check does:
 * no image needs curl or a shell for it. */
#ifndef COMMON_SERVICE_PROBE_H
#define COMMON_SERVICE_PROBE_H

#include "common/base/error.h"

/* GET /<page> at the address that the service listens on ("127.0.0.1:9100", ":9100" for all
 * addresses: asked over loopback). page: "healthz" or "readyz". 0 when it answers 200 within 2 s;
 * UNAVAILABLE with its words otherwise; INVALID for port 0, which nobody can find, and for another
 * page. */
int probe_ask(const char *listen, const char *page, struct error *err) MUST_CHECK;

#endif
