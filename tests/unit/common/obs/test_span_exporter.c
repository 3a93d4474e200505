#include "common/obs/span_exporter.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/base/buf.h"
#include "common/base/clock.h"
#include "common/obs/metrics.h"
#include "tests/harness/test.h"

/* A receiver that gives these answers, one a connection, and then hangs up on all that come. */
struct receiver {
    const char *const *answers;
    int fd, port;
    pthread_t thread;
    atomic_int asked;
};

static void *serve(void *user)
{
    struct receiver *r = user;
    int fd;
    while ((fd = accept(r->fd, NULL, NULL)) >= 0) {
        char request[65536];
        size_t size = 0;
        ssize_t got;
        const char *answer = r->answers[atomic_fetch_add(&r->asked, 1)];
        while ((got = read(fd, request + size, sizeof(request) - 1 - size)) > 0) {
            size += (size_t)got;
            request[size] = '\0';
            const char *body = strstr(request, "\r\n\r\n");
            const char *length = strstr(request, "Content-Length: ");
            if (body != NULL && length != NULL &&
                request + size >= body + 4 + strtol(length + 16, NULL, 10)) {
                break;
            }
        }
        if (answer == NULL) {
            close(fd);
            break;
        }
        (void)!write(fd, answer, strlen(answer));
        close(fd);
    }
    return NULL;
}

static void receiver_start(struct receiver *r, const char *const *answers)
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t size = sizeof(address);
    *r = (struct receiver){.answers = answers, .fd = socket(AF_INET, SOCK_STREAM, 0)};
    inet_pton(AF_INET, "127.0.0.1", &address.sin_addr);
    if (bind(r->fd, (struct sockaddr *)&address, size) != 0 || listen(r->fd, 8) != 0 ||
        getsockname(r->fd, (struct sockaddr *)&address, &size) != 0) {
        abort();
    }
    r->port = ntohs(address.sin_port);
    pthread_create(&r->thread, NULL, serve, r);
}

static void receiver_stop(struct receiver *r)
{
    shutdown(r->fd, SHUT_RDWR);
    pthread_join(r->thread, NULL);
    close(r->fd);
}

static struct span_exporter *start(int port, int64_t queue_max, int64_t export_timeout_ms)
{
    static const struct pairs none;
    char url[64];
    struct span_exporter *e = NULL;
    struct error err;
    snprintf(url, sizeof(url), "http://127.0.0.1:%d/v1/traces", port);
    const struct span_exporter_options options = {.url = url,
                                                  .ca_file = "",
                                                  .version = "1",
                                                  .headers = &none,
                                                  .resource = &none,
                                                  .timeout_ms = 10000,
                                                  .schedule_delay_ms = 1,
                                                  .export_timeout_ms = export_timeout_ms,
                                                  .queue_max = queue_max,
                                                  .batch_max = 2};
    return span_exporter_start(&e, &options, &err) == 0 ? e : NULL;
}

static void push(struct span_exporter *e, int count)
{
    for (int i = 0; i < count; i++) {
        struct trace_context context;
        trace_make_root(&context);
        struct span *span = span_create("x", SPAN_INTERNAL, &context, NULL);
        span_finish(span, 0);
        span_exporter_push(e, span);
    }
}

/* The value on /metrics of the sample that begins with this. */
static double sample(const char *name)
{
    struct buf page;
    buf_init(&page, 1 << 20);
    metrics_render(&page);
    const char *at = strstr(page.data, name);
    double value = at != NULL ? strtod(at + strlen(name), NULL) : -1;
    buf_deinit(&page);
    return value;
}

#define EXPORTED "\ncrafterse_trace_exported_spans_total "
#define DROPPED(reason) "\ncrafterse_trace_dropped_spans_total{reason=\"" reason "\"} "
#define OK "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"

static void wait_for(const char *name, double value)
{
    for (int i = 0; i < 500 && sample(name) < value; i++) {
        clock_sleep_ms(10);
    }
    CHECK_NEAR(sample(name), value, 0);
}

TEST(a_receiver_that_asks_for_a_pause_gets_the_spans_after_it)
{
    static const char *const answers[] = {
        "HTTP/1.1 503 Busy\r\nRetry-After: 1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", OK,
        NULL};
    struct receiver r;
    span_exporter_register_metrics();
    receiver_start(&r, answers);
    struct span_exporter *e = start(r.port, 10, 30000);
    REQUIRE(e != NULL);
    double began = clock_monotonic_seconds();
    push(e, 1);
    wait_for(EXPORTED, 1);
    CHECK(clock_monotonic_seconds() - began >= 0.99);
    CHECK_INT(r.asked, 2);
    span_exporter_stop(e, 1000);
    receiver_stop(&r);
}

TEST(what_is_refused_is_counted_and_not_sent_again)
{
    static const char *const answers[] = {
        "HTTP/1.1 401 Who\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\n\x0a\x02\x08\x01", NULL};
    struct receiver r;
    receiver_start(&r, answers);
    struct span_exporter *e = start(r.port, 10, 30000);
    REQUIRE(e != NULL);
    push(e, 2);
    wait_for(DROPPED("refused"), 2);
    push(e, 2);
    wait_for(EXPORTED, 2); /* one more than before: the other one was refused */
    CHECK_NEAR(sample(DROPPED("refused")), 3, 0);
    CHECK_INT(r.asked, 2);
    span_exporter_stop(e, 1000);
    receiver_stop(&r);
}

TEST(a_full_queue_drops_and_a_stop_does_not_wait_for_who_is_away)
{
    static const char *const answers[] = {NULL};
    struct receiver r;
    receiver_start(&r, answers);
    receiver_stop(&r); /* nobody listens on its port now */
    struct span_exporter *e = start(r.port, 4, 30000);
    REQUIRE(e != NULL);
    double began = clock_monotonic_seconds();
    push(e, 100); /* two are on their way, or not yet; four wait */
    CHECK(sample(DROPPED("queue_full")) >= 94);
    CHECK(clock_monotonic_seconds() - began < 0.5);
    span_exporter_stop(e, 3000);
    CHECK(clock_monotonic_seconds() - began < 1);
    CHECK_NEAR(sample(DROPPED("queue_full")) + sample(DROPPED("undelivered")), 100, 0);
}

TEST(a_stop_ends_in_time_when_the_receiver_never_answers)
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t size = sizeof(address);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    inet_pton(AF_INET, "127.0.0.1", &address.sin_addr);
    REQUIRE(bind(fd, (struct sockaddr *)&address, size) == 0 && listen(fd, 8) == 0 &&
            getsockname(fd, (struct sockaddr *)&address, &size) == 0);
    struct span_exporter *e = start(ntohs(address.sin_port), 10, 30000);
    REQUIRE(e != NULL);
    double dropped = sample(DROPPED("undelivered"));
    push(e, 3);
    clock_sleep_ms(50);
    double began = clock_monotonic_seconds();
    span_exporter_stop(e, 200);
    CHECK(clock_monotonic_seconds() - began < 2);
    CHECK_NEAR(sample(DROPPED("undelivered")), dropped + 3, 0);
    close(fd);
}

TEST_MAIN()
