/* Whole files, for txt2img. */
#ifndef WORKER_CLI_FILE_H
#define WORKER_CLI_FILE_H

#include <stddef.h>
#include <stdint.h>

#include "common/base/error.h"

/* *bytes (xfree) and *size of the file; NULL on failure. STATUS_NOT_FOUND, STATUS_IO, or
 * STATUS_TOO_LARGE past size_max. */
int file_read(const char *path, size_t size_max, uint8_t **bytes, size_t *size,
              struct error *err) MUST_CHECK;

/* STATUS_IO when it can be seen already that file_write of this path will fail. */
int file_check_writable(const char *path, struct error *err) MUST_CHECK;

int file_write(const char *path, const uint8_t *bytes, size_t size, struct error *err) MUST_CHECK;

#endif
