/* SIGTERM and SIGINT ask a service to drain: it stops taking work, finishes what it holds, and
 * leaves. A second signal changes nothing; SIGKILL is always safe too (docs/ARCHITECTURE.md). */
#ifndef COMMON_BASE_SHUTDOWN_H
#define COMMON_BASE_SHUTDOWN_H

#include <stdbool.h>

void shutdown_init(void); /* installs the handlers; ignores SIGPIPE; call first in main */
bool shutdown_requested(void);
int shutdown_fd(void); /* becomes readable once asked: for event loops */
void shutdown_request(void);

#endif
