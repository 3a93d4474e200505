/* A whole text file in memory, with a limit: the files are other people's. */
#ifndef WORKER_ENGINE_CONFIG_TEXT_FILE_H
#define WORKER_ENGINE_CONFIG_TEXT_FILE_H

#include <stddef.h>

#include "common/base/error.h"

/* *text: the content and a NUL after it, *length without that. xfree it. STATUS_NOT_FOUND,
 * STATUS_IO, or STATUS_TOO_LARGE past limit bytes. */
int text_file_read(const char *path, size_t limit, char **text, size_t *length,
                   struct error *err) MUST_CHECK;

#endif
