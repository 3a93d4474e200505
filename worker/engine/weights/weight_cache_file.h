/* The form of a file of packed weights (weight_cache.h): what is in it and how one is judged. Pure:
 * it looks at bytes, not at files.
 *
 *   struct weight_cache_header    4096 bytes; written last
 *   blobs                         each on a page of its own, in the order in which they were made
 *   struct weight_cache_entry[]   one for each blob, in the same order
 *
 * Numbers are this machine's. A file is used only when every field of the header is as expected,
 * the identity is the very text that the reader asks for, the SHA-256 over header and entries is
 * right, every blob lies inside, after the one before it, and begins and ends with the bytes that
 * it had when it was made. The bytes between are not looked at: a whole check of gigabytes would
 * take longer than packing them anew. So a file that was cut short, or of which only some pages
 * reached the disk, is seen; a forger who may write into the folder is not.
 */
#ifndef WORKER_ENGINE_WEIGHTS_WEIGHT_CACHE_FILE_H
#define WORKER_ENGINE_WEIGHTS_WEIGHT_CACHE_FILE_H

#include <stddef.h>
#include <stdint.h>

#include "common/base/digest.h"
#include "common/base/error.h"
#include "worker/engine/weights/weight_cache.h"

#define WEIGHT_CACHE_HEADER_BYTES 4096
#define WEIGHT_CACHE_ALIGNMENT 4096
#define WEIGHT_CACHE_BLOBS_MAX 65536

struct weight_cache_header {
    char magic[16];
    uint32_t version, byte_order;
    uint64_t file_bytes, table_offset, blobs;
    char identity[WEIGHT_CACHE_IDENTITY_MAX]; /* the rest is zeros */
    char digest[DIGEST_HEX_SIZE];             /* of this header, with zeros here, and the entries */
};

struct weight_cache_entry {
    char name[WEIGHT_CACHE_NAME_MAX]; /* the rest is zeros */
    uint64_t offset, size;            /* of the blob, in the file */
    uint64_t ends;                    /* weight_cache_file_ends of it */
};

/* A hash of the first and the last 64 bytes of a blob. */
uint64_t weight_cache_file_ends(const void *blob, size_t size);

/* The header of a file of these entries, which begin at table_offset. identity: see above. */
void weight_cache_file_describe(struct weight_cache_header *header, const char *identity,
                                const struct weight_cache_entry *entries, size_t count,
                                uint64_t table_offset);

/* Judge size bytes, aligned to 64, as such a file. *entries points into them. STATUS_CORRUPT says
 * what is wrong, STATUS_NOT_FOUND that it is the file of another identity. */
int weight_cache_file_check(const void *bytes, size_t size, const char *identity,
                            const struct weight_cache_entry **entries, size_t *count,
                            struct error *err) MUST_CHECK;

#endif
