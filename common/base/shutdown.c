/* The handler only sets a flag and writes to an eventfd: both are safe in a signal handler. The
 * eventfd is never read, so it stays readable for every loop that watches it. */
#include "common/base/shutdown.h"

#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "common/base/panic.h"

static atomic_bool requested;
static int event_fd = -1;

void shutdown_request(void)
{
    int saved_errno = errno;
    atomic_store(&requested, true);
    uint64_t one = 1;
    if (event_fd >= 0 && write(event_fd, &one, sizeof(one)) < 0) {
        /* Only when the counter is full: then it is readable already. */
    }
    errno = saved_errno;
}

static void on_signal(int signal_number)
{
    (void)signal_number;
    shutdown_request();
}

void shutdown_init(void)
{
    if (event_fd >= 0) {
        return;
    }
    event_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (event_fd < 0) {
        PANIC("no eventfd: %s", strerror(errno));
    }
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    sigemptyset(&action.sa_mask);
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGINT, &action, NULL);
    action.sa_handler = SIG_IGN;
    sigaction(SIGPIPE, &action, NULL);
}

bool shutdown_requested(void)
{
    return atomic_load(&requested);
}

int shutdown_fd(void)
{
    ASSERT(event_fd >= 0);
    return event_fd;
}
