/* URLs and absence here; tests/integration talks to a real Redis. The server below answers canned
 * bytes, to see what a broken or refusing Redis does to us. */
#include "common/store/redis.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "tests/harness/test.h"

static int open_url(const char *url, struct error *err)
{
    struct redis *r = NULL;
    int result = redis_create(&r, url, 100, err);
    CHECK((result == 0) == (r != NULL));
    redis_destroy(r);
    return result;
}

TEST(urls_are_checked_and_their_password_is_never_shown)
{
    static const char *const good[] = {
        "redis://localhost",          "redis://localhost:6380/2",  "redis://:secret@host",
        "redis://user:p%40ss@host:1", "redis://:a@b@[::1]:6379/0", "redis://127.0.0.1/",
    };
    static const char *const bad[] = {
        "",
        "localhost:6379",
        "http://localhost",
        "redis://",
        "redis://host:port",
        "redis://host:65536",
        "redis://host/x",
        "redis://hunter2@host",
        "redis://:hunter2%zz@host",
        "redis://:hunter2%00@host",
        "redis://:hunter2@[::1",
        "redis://:hunter2@",
    };
    struct error err = {0};
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        CHECK_INT(open_url(good[i], &err), 0);
    }
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        CHECK_INT(open_url(bad[i], &err), STATUS_INVALID);
        CHECK(strstr(err.text, "hunter2") == NULL);
    }
    CHECK_INT(open_url("rediss://host", &err), STATUS_UNSUPPORTED);
    CHECK_CONTAINS(err.text, "stunnel");
}

TEST(an_absent_redis_fails_fast_and_can_be_retried)
{
    struct redis *r = NULL;
    struct error err = {0};
    struct buf value;
    buf_init(&value, 100);
    log_init("test", "test", LOG_ERROR);
    REQUIRE(redis_create(&r, "redis://127.0.0.1:1", 200, &err) == 0);
    uint64_t before_ms = clock_monotonic_ms();
    CHECK_INT(redis_get(r, "k", &value, &err), STATUS_UNAVAILABLE);
    CHECK_CONTAINS(err.text, "127.0.0.1:1");
    for (int i = 0; i < 1000; i++) {
        CHECK_INT(redis_set(r, "k", "v", 1, 10, NULL), STATUS_UNAVAILABLE);
    }
    CHECK(clock_monotonic_ms() - before_ms < 1000);
    CHECK(err.retriable);
    redis_destroy(r);
    redis_destroy(NULL);
    buf_deinit(&value);
}

struct server {
    int fd;
    int port;
    const char *answers[4]; /* one a read; NULL = close, "" = say nothing */
    pthread_t thread;
};

static void *serve(void *user)
{
    struct server *server = user;
    int fd = accept(server->fd, NULL, NULL);
    char request[4096];
    for (int i = 0; i < 4 && server->answers[i] != NULL; i++) {
        if (read(fd, request, sizeof(request)) <= 0) {
            break;
        }
        size_t size = strlen(server->answers[i]);
        if (size > 0 && write(fd, server->answers[i], size) < 0) {
            break;
        }
    }
    close(fd);
    return NULL;
}

/* Listens on a free port; the URL has that user. */
static struct redis *open_at(struct server *server, const char *user, int timeout_ms)
{
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_addr = {.s_addr = htonl(INADDR_LOOPBACK)}};
    socklen_t size = sizeof(address);
    struct redis *r = NULL;
    char url[128];
    server->fd = socket(AF_INET, SOCK_STREAM, 0);
    if (bind(server->fd, (struct sockaddr *)&address, size) < 0 || listen(server->fd, 64) < 0 ||
        getsockname(server->fd, (struct sockaddr *)&address, &size) < 0) {
        return NULL;
    }
    snprintf(url, sizeof(url), "redis://%s127.0.0.1:%d", user, ntohs(address.sin_port));
    return redis_create(&r, url, timeout_ms, NULL) == 0 ? r : NULL;
}

static struct redis *connect_to(struct server *server, const char *user, int timeout_ms)
{
    struct redis *r = open_at(server, user, timeout_ms);
    pthread_create(&server->thread, NULL, serve, server);
    return r;
}

static void stop(struct server *server, struct redis *r)
{
    redis_destroy(r);
    pthread_join(server->thread, NULL);
    close(server->fd);
}

TEST(values_are_stored_and_read_and_absence_is_told)
{
    struct server server = {.answers = {"+OK\r\n", "$3\r\na\nb\r\n", "$-1\r\n"}};
    struct redis *r = connect_to(&server, "", 1000);
    struct error err = {0};
    struct buf value;
    buf_init(&value, 100);
    REQUIRE(r != NULL);
    CHECK_INT(redis_set(r, "k", "a\nb", 3, 60, &err), 0);
    CHECK_INT(redis_get(r, "k", &value, &err), 0);
    CHECK_STR(value.data, "a\nb");
    CHECK_INT(redis_get(r, "k", &value, &err), STATUS_NOT_FOUND);
    stop(&server, r);
    buf_deinit(&value);
}

TEST(refusals_and_silence_become_errors_within_the_timeout)
{
    struct server refusing = {.answers = {"-WRONGPASS invalid\r\n"}};
    struct server silent = {.answers = {""}};
    struct error err = {0};
    struct buf value;
    buf_init(&value, 100);
    struct redis *r = connect_to(&refusing, ":secret@", 1000);
    REQUIRE(r != NULL);
    CHECK_INT(redis_get(r, "k", &value, &err), STATUS_UNAVAILABLE);
    CHECK_CONTAINS(err.text, "refuses AUTH: WRONGPASS");
    CHECK(strstr(err.text, "secret") == NULL);
    stop(&refusing, r);
    r = connect_to(&silent, "", 200);
    REQUIRE(r != NULL);
    uint64_t before_ms = clock_monotonic_ms();
    CHECK_INT(redis_get(r, "k", &value, &err), STATUS_UNAVAILABLE);
    CHECK(clock_monotonic_ms() - before_ms < 2000);
    stop(&silent, r);
    buf_deinit(&value);
}

TEST(a_redis_that_takes_connections_and_hangs_is_asked_ever_more_seldom)
{
    struct server hanging = {.fd = -1}; /* nobody accepts: the kernel connects all the same */
    struct buf value;
    buf_init(&value, 100);
    struct redis *r = open_at(&hanging, "", 50);
    REQUIRE(r != NULL);
    int waits = 0;
    uint64_t begun_ms = clock_monotonic_ms(), before_ms;
    while ((before_ms = clock_monotonic_ms()) < begun_ms + 1200) {
        CHECK_INT(redis_get(r, "k", &value, NULL), STATUS_UNAVAILABLE);
        waits += clock_monotonic_ms() - before_ms >= 40;
        clock_sleep_ms(1);
    }
    CHECK(waits >= 1 && waits <= 4); /* at 0, 150, 400 and 850 ms, and not every 150 */
    redis_destroy(r);
    close(hanging.fd);
    buf_deinit(&value);
}

TEST_MAIN()
