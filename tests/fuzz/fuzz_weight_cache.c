/* Any bytes as a file of packed weights: refused, or every blob lies inside the file, behind the
 * one before it. The digest is mended, or nothing behind it would ever be looked at. */
#include <stdlib.h>
#include <string.h>

#include "common/base/panic.h"
#include "tests/fuzz/fuzz.h"
#include "worker/engine/weights/weight_cache_file.h"

#define IDENTITY "model a"

static void mend(unsigned char *bytes, size_t size)
{
    struct weight_cache_header *header = (struct weight_cache_header *)(void *)bytes;
    uint64_t table = header->table_offset, entry = sizeof(struct weight_cache_entry);
    if (table > size || header->blobs > (size - table) / entry) {
        return;
    }
    memset(header->digest, 0, sizeof(header->digest));
    struct digest *digest = digest_create();
    digest_update(digest, header, sizeof(*header));
    digest_update(digest, bytes + table, (size_t)(header->blobs * entry));
    digest_finish_hex(digest, header->digest);
}

/* Both ends of every blob: outside the file they would be outside the allocation. */
static unsigned touch(const unsigned char *bytes, const struct weight_cache_entry *entries,
                      size_t count)
{
    unsigned sum = 0;
    uint64_t end = WEIGHT_CACHE_HEADER_BYTES;
    for (size_t i = 0; i < count; i++) {
        ASSERT(entries[i].offset >= end && entries[i].size > 0);
        ASSERT(strlen(entries[i].name) < WEIGHT_CACHE_NAME_MAX);
        end = entries[i].offset + entries[i].size;
        sum += bytes[entries[i].offset] + (unsigned)bytes[end - 1];
    }
    return sum;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct error err;
    const struct weight_cache_entry *entries;
    size_t count;
    unsigned char *bytes = aligned_alloc(64, (size + 64) / 64 * 64);
    unsigned char *exact = NULL;
    ASSERT(bytes != NULL);
    memcpy(bytes, data, size);
    if (size >= WEIGHT_CACHE_HEADER_BYTES) {
        mend(bytes, size);
    }
    /* Aligned, and ending where the input ends. */
    ASSERT(posix_memalign((void **)&exact, 64, size > 0 ? size : 1) == 0);
    memcpy(exact, bytes, size);
    if (weight_cache_file_check(exact, size, IDENTITY, &entries, &count, &err) == STATUS_OK) {
        volatile unsigned sum = touch(exact, entries, count);
        (void)sum;
    } else {
        ASSERT(err.text[0] != '\0' && entries == NULL && count == 0);
    }
    free(bytes);
    free(exact);
    return 0;
}
