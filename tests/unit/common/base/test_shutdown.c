#include "common/base/shutdown.h"

#include <poll.h>
#include <signal.h>

#include "tests/harness/test.h"

TEST(a_signal_asks_for_shutdown_and_wakes_loops_for_good)
{
    shutdown_init();
    shutdown_init();
    struct pollfd waiter = {.fd = shutdown_fd(), .events = POLLIN};
    CHECK(!shutdown_requested());
    CHECK_INT(poll(&waiter, 1, 0), 0);
    raise(SIGTERM);
    CHECK(shutdown_requested());
    CHECK_INT(poll(&waiter, 1, 0), 1);
    raise(SIGINT);
    shutdown_request();
    CHECK(shutdown_requested());
    CHECK_INT(poll(&waiter, 1, 0), 1);
}

TEST(a_broken_pipe_does_not_end_the_process)
{
    shutdown_init();
    CHECK_INT(raise(SIGPIPE), 0);
}

TEST_MAIN()
