#include "common/service/probe.h"

#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "common/obs/exporter.h"

#define TIMEOUT_S 2
#define ANSWER_BYTES_MAX 4096

/* A connected socket, or -1 with *err. */
static int dial(const char *host, int port, struct error *err)
{
    char port_text[8];
    snprintf(port_text, sizeof(port_text), "%d", port);
    struct addrinfo hints = {.ai_flags = AI_NUMERICSERV, .ai_socktype = SOCK_STREAM};
    struct addrinfo *address = NULL;
    /* Without a host this is loopback. */
    int failure = getaddrinfo(host[0] != '\0' ? host : "127.0.0.1", port_text, &hints, &address);
    if (failure != 0) {
        (void)ERROR(err, STATUS_INVALID, "\"%s\": %s", host, gai_strerror(failure));
        return -1;
    }
    const struct timeval timeout = {.tv_sec = TIMEOUT_S};
    int fd = socket(address->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd >= 0) {
        setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout));
        setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof(timeout));
    }
    if (fd < 0 || connect(fd, address->ai_addr, address->ai_addrlen) != 0) {
        (void)ERROR(err, STATUS_UNAVAILABLE, "nobody answers at %s:%d: %s", host, port,
                    strerror(errno));
        if (fd >= 0) {
            close(fd);
            fd = -1;
        }
    }
    freeaddrinfo(address);
    return fd;
}

/* Reads until the service closes, for at most ANSWER_BYTES_MAX. */
static void read_answer(int fd, char answer[ANSWER_BYTES_MAX])
{
    size_t used = 0;
    ssize_t got = 1;
    while (got > 0 && used < ANSWER_BYTES_MAX - 1) {
        got = recv(fd, answer + used, ANSWER_BYTES_MAX - 1 - used, 0);
        used += got > 0 ? (size_t)got : 0;
    }
    answer[used] = '\0';
}

int probe_ask(const char *listen, const char *page, struct error *err)
{
    char host[64], text[128], answer[ANSWER_BYTES_MAX];
    int port = 0;
    if (strcmp(page, "healthz") != 0 && strcmp(page, "readyz") != 0) {
        return ERROR(err, STATUS_INVALID, "--probe asks for healthz or readyz, not for \"%s\"",
                     page);
    }
    int status = exporter_parse_listen(listen, host, &port, err);
    if (status < 0) {
        return status;
    }
    if (port == 0) {
        return ERROR(err, STATUS_INVALID,
                     "CRAFTERSE_METRICS_LISTEN is \"%s\": give it a port that can be asked",
                     listen);
    }
    int fd = dial(host, port, err);
    if (fd < 0) {
        return err->status;
    }
    int length = snprintf(text, sizeof(text), "GET /%s HTTP/1.0\r\nHost: %s\r\n\r\n", page,
                          host[0] != '\0' ? host : "localhost");
    answer[0] = '\0';
    if (send(fd, text, (size_t)length, MSG_NOSIGNAL) == length) {
        read_answer(fd, answer);
    }
    close(fd);
    /* "HTTP/1.1 200 OK" */
    if (strncmp(answer, "HTTP/1.", 7) == 0 && strncmp(answer + 8, " 200 ", 5) == 0) {
        return 0;
    }
    const char *body = strstr(answer, "\r\n\r\n");
    return ERROR(err, STATUS_UNAVAILABLE, "/%s: %.200s", page,
                 body != NULL ? body + 4 : "no answer within 2 s");
}
