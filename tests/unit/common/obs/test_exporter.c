#include "common/obs/exporter.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/obs/health.h"
#include "tests/harness/test.h"

static char answer[65536];

/* The whole answer to one raw request. */
static const char *ask(int port, const char *request)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    inet_pton(AF_INET, "127.0.0.1", &address.sin_addr);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    size_t size = 0;
    answer[0] = '\0';
    if (connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0 &&
        write(fd, request, strlen(request)) > 0) {
        ssize_t got;
        while ((got = read(fd, answer + size, sizeof(answer) - 1 - size)) > 0) {
            size += (size_t)got;
        }
    }
    answer[size] = '\0';
    close(fd);
    return answer;
}

#define GET(path) "GET " path " HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"

TEST(answers_metrics_and_probes_and_refuses_the_rest)
{
    struct exporter *e = NULL;
    struct error err = {0};
    REQUIRE(exporter_start(&e, "127.0.0.1:0", &err) == 0);
    int port = exporter_port(e);
    CHECK(port > 0);
    CHECK_CONTAINS(ask(port, GET("/metrics")), "process_resident_memory_bytes");
    CHECK_CONTAINS(answer, "text/plain; version=0.0.4");
    CHECK_CONTAINS(ask(port, GET("/healthz")), "200 OK");
    CHECK_CONTAINS(ask(port, GET("/readyz")), "503 ");
    CHECK_CONTAINS(answer, "service: starting");
    health_set_ready("kafka", true, NULL);
    CHECK_CONTAINS(ask(port, GET("/readyz")), "200 OK");
    CHECK_CONTAINS(ask(port, GET("/secret")), "404 ");
    CHECK_CONTAINS(ask(port, "POST /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
                             "Content-Length: 3\r\n\r\nabc"),
                   "405 ");
    ask(port, "\x01\x02 nonsense\r\n\r\n");
    CHECK_CONTAINS(ask(port, GET("/healthz")), "200 OK");
    exporter_stop(e);
}

TEST(a_taken_port_is_an_error_that_names_it)
{
    struct exporter *first = NULL, *second = NULL;
    struct error err = {0};
    char listen[64];
    REQUIRE(exporter_start(&first, "127.0.0.1:0", &err) == 0);
    snprintf(listen, sizeof(listen), "127.0.0.1:%d", exporter_port(first));
    CHECK_INT(exporter_start(&second, listen, &err), STATUS_IO);
    CHECK_CONTAINS(err.text, listen);
    CHECK(second == NULL);
    exporter_stop(first);
    exporter_stop(NULL);
}

TEST(listen_addresses_split_into_host_and_port)
{
    char host[64];
    int port = -1;
    struct error err = {0};
    CHECK_INT(exporter_parse_listen("127.0.0.1:9100", host, &port, &err), 0);
    CHECK_STR(host, "127.0.0.1");
    CHECK_INT(port, 9100);
    CHECK_INT(exporter_parse_listen(":0", host, &port, &err), 0);
    CHECK_STR(host, "");
    CHECK_INT(port, 0);
    CHECK_INT(exporter_parse_listen("[::1]:8080", host, &port, &err), 0);
    CHECK_STR(host, "::1");
    static const char *const bad[] = {"",        "9100",   "host:", "host:x",  "host:65536",
                                      "host:-1", "::1:80", "[::1]", "host: 80"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        CHECK_INT(exporter_parse_listen(bad[i], host, &port, &err), STATUS_INVALID);
    }
    CHECK_CONTAINS(err.text, "host: 80");
}

TEST_MAIN()
