/* safetensors files: 8 bytes of little-endian header length, a JSON header, raw tensor data.
 *
 * Reading maps the file and trusts nothing: the header is checked against the size of the file
 * before it is read, and every tensor against the header (known dtype, shape times element size
 * equal to the bytes it points at, no tensor past the end, no overlap, no hole, no name twice).
 * A file that lies gets one error with all its problems. Nothing is allocated by a size that a
 * header claims, and tensor data is not touched.
 *
 * Format: https://huggingface.co/docs/safetensors and the rules of its Rust implementation.
 * A mapped file that another process truncates raises SIGBUS: replace model files, never edit them.
 */
#ifndef WORKER_ENGINE_WEIGHTS_SAFETENSORS_H
#define WORKER_ENGINE_WEIGHTS_SAFETENSORS_H

#include <stddef.h>
#include <stdint.h>

#include "common/base/error.h"

#define SAFETENSORS_RANK_MAX 8
#define SAFETENSORS_HEADER_MAX ((size_t)16 << 20)

enum safetensors_dtype {
    SAFETENSORS_F64,
    SAFETENSORS_F32,
    SAFETENSORS_F16,
    SAFETENSORS_BF16,
    SAFETENSORS_F8_E4M3,
    SAFETENSORS_F8_E5M2,
    SAFETENSORS_I64,
    SAFETENSORS_I32,
    SAFETENSORS_I16,
    SAFETENSORS_I8,
    SAFETENSORS_U64,
    SAFETENSORS_U32,
    SAFETENSORS_U16,
    SAFETENSORS_U8,
    SAFETENSORS_BOOL,
};

struct safetensors_entry {
    const char *name;
    enum safetensors_dtype dtype;
    int rank; /* 0 is a scalar */
    int64_t shape[SAFETENSORS_RANK_MAX];
    const void *data; /* row-major, little-endian; aligned to nothing in particular */
    size_t size;      /* bytes */
};

struct safetensors;

/* Map and check the file. STATUS_NOT_FOUND, STATUS_IO, or STATUS_CORRUPT naming every problem.
 * Entries, names and data live until safetensors_close (accepts NULL). */
int safetensors_open(struct safetensors **out, const char *path, struct error *err) MUST_CHECK;
void safetensors_close(struct safetensors *file);

/* Give back the memory that size bytes of mapped data take; what is read again is mapped again.
 * Data that is not the file's is left alone. */
void safetensors_drop_pages(const struct safetensors *file, const void *data, size_t size);

const char *safetensors_path(const struct safetensors *file);

/* Entries in the order of their names (bytewise). */
size_t safetensors_count(const struct safetensors *file);
const struct safetensors_entry *safetensors_entry_at(const struct safetensors *file, size_t i);

/* NULL when there is no such tensor. */
const struct safetensors_entry *safetensors_find(const struct safetensors *file, const char *name);

/* The text of a key of the header's __metadata__, or NULL. */
const char *safetensors_metadata(const struct safetensors *file, const char *key);

size_t safetensors_dtype_size(enum safetensors_dtype dtype);      /* bytes an element */
const char *safetensors_dtype_name(enum safetensors_dtype dtype); /* as in the header: "F32" */

/* Write a file with the entries in the given order (size must equal shape times element size;
 * names must differ). metadata is NULL or the text of a JSON object of strings, stored as
 * __metadata__. The file appears whole under its name or not at all. STATUS_IO. */
int safetensors_write(const char *path, const struct safetensors_entry *entries, size_t count,
                      const char *metadata, struct error *err) MUST_CHECK;

#endif
