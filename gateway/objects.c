/* Pictures from a folder: see objects.h. The key's form is checked before the file system is asked
 * (endpoint.h), and the last part is never followed when it is a link. */
#include "gateway/objects.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/log.h"

static void answer_missing(struct operation *op)
{
    http_answer_problem(op->request, 404, "object_not_found", NULL, "There is no such picture.");
}

/* The uploader makes the folder, maybe after we started. */
static int open_object(struct gateway *g, const char *key)
{
    if (g->objects_fd < 0) {
        g->objects_fd = open(g->config->objects_folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    }
    return g->objects_fd < 0
               ? -1
               : openat(g->objects_fd, key, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
}

void objects_get(struct operation *op)
{
    const char *key = op->match.argument;
    struct stat info;
    char etag[80];
    if (op->gateway->config->objects_folder[0] == '\0' || !endpoint_is_object_key(key)) {
        answer_missing(op);
        return;
    }
    int fd = open_object(op->gateway, key);
    if (fd < 0 || fstat(fd, &info) != 0 || !S_ISREG(info.st_mode)) {
        if (fd < 0 && errno != ENOENT && errno != ENOTDIR) {
            log_warn("a picture cannot be opened", "key=%s reason=%s", key,
                     LOG_QUOTED(strerror(errno)));
        }
        if (fd >= 0) {
            close(fd);
        }
        answer_missing(op);
        return;
    }
    snprintf(etag, sizeof(etag), "\"%.64s\"", strrchr(key, '/') + 1);
    http_answer_header(op->request, "ETag", etag);
    http_answer_header(op->request, "Cache-Control", "public, max-age=31536000, immutable");
    const char *known = http_request_header(op->request, "If-None-Match");
    if (known != NULL && (strstr(known, etag) != NULL || strcmp(known, "*") == 0)) {
        close(fd);
        http_answer(op->request, 304, NULL, NULL);
        return;
    }
    http_answer_file(op->request, 200, "image/png", fd, (size_t)info.st_size);
}
