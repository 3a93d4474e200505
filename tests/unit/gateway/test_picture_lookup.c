/* A slow Redis; tests/integration asks a real one. */
#include "gateway/picture_lookup.h"

#include <netinet/in.h>
#include <pthread.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "tests/harness/test.h"

#define QUESTIONS 30
#define ANSWER_MS 100
#define TIMEOUT_MS 300
#define TURN_MS 50

struct waiting {
    uv_timer_t timer;
    struct picture_lookup *lookup;
    uint64_t since_ms, last_ms;
    int answered, found;
};

static int server_fd;

/* Knows nothing, and takes its time to say so. */
static void *serve(void *user)
{
    char request[4096];
    (void)user;
    int fd = accept(server_fd, NULL, NULL);
    while (read(fd, request, sizeof(request)) > 0) {
        usleep(ANSWER_MS * 1000);
        if (write(fd, "$-1\r\n", 5) < 0) {
            break;
        }
    }
    close(fd);
    return NULL;
}

static void listen_at(char url[64])
{
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_addr = {.s_addr = htonl(INADDR_LOOPBACK)}};
    socklen_t size = sizeof(address);
    server_fd = socket(AF_INET, SOCK_STREAM, 0);
    CHECK(bind(server_fd, (struct sockaddr *)&address, size) == 0 && listen(server_fd, 1) == 0 &&
          getsockname(server_fd, (struct sockaddr *)&address, &size) == 0);
    snprintf(url, 64, "redis://127.0.0.1:%d", ntohs(address.sin_port));
}

static void on_answer(void *user, const struct picture *pictures)
{
    struct waiting *w = user;
    w->answered++;
    w->found += pictures != NULL;
    w->last_ms = clock_monotonic_ms();
}

static void on_turn(uv_timer_t *timer)
{
    struct waiting *w = timer->data;
    picture_lookup_give_up_late(w->lookup);
    if (picture_lookup_is_idle(w->lookup)) {
        uv_close((uv_handle_t *)timer, NULL);
    }
}

TEST(nobody_waits_for_a_slow_redis_for_longer_than_the_timeout)
{
    char url[64], key[DIGEST_HEX_SIZE];
    struct error err = {0};
    struct waiting w = {.since_ms = clock_monotonic_ms()};
    uv_loop_t loop;
    pthread_t server;
    log_init("test", "test", LOG_ERROR);
    listen_at(url);
    pthread_create(&server, NULL, serve, NULL);
    uv_loop_init(&loop);
    uv_timer_init(&loop, &w.timer);
    w.timer.data = &w;
    REQUIRE(picture_lookup_create(&w.lookup, &loop, url, TIMEOUT_MS, &err) == 0);
    memset(key, 'a', sizeof(key));
    key[sizeof(key) - 1] = '\0';
    for (int i = 0; i < QUESTIONS; i++) {
        picture_lookup_start(w.lookup, key, 1, on_answer, &w);
    }
    CHECK_INT(w.answered, 0);
    uv_timer_start(&w.timer, on_turn, TURN_MS, TURN_MS);
    uv_run(&loop, UV_RUN_DEFAULT);
    CHECK_INT(w.answered, QUESTIONS);
    CHECK_INT(w.found, 0);
    /* All of them, one after the other, took 3 s. */
    CHECK(w.last_ms - w.since_ms < QUESTIONS * ANSWER_MS / 2);
    picture_lookup_destroy(w.lookup);
    CHECK_INT(uv_loop_close(&loop), 0);
    pthread_join(server, NULL);
    close(server_fd);
}

TEST_MAIN()
