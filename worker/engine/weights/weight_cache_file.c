#include "worker/engine/weights/weight_cache_file.h"

#include <stdbool.h>
#include <string.h>

#include "common/base/panic.h"

#define VERSION 1
#define BYTE_ORDER_MARK 0x01020304U
#define END_BYTES 64

static const char magic[16] = "crafterse-packed";

_Static_assert(sizeof(struct weight_cache_header) <= WEIGHT_CACHE_HEADER_BYTES, "one page");
_Static_assert(sizeof(struct weight_cache_entry) % 8 == 0, "entries follow each other aligned");

/* FNV-1a, 64 bits. */
static uint64_t hash_bytes(uint64_t hash, const unsigned char *bytes, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        hash = (hash ^ bytes[i]) * 0x100000001B3U;
    }
    return hash;
}

uint64_t weight_cache_file_ends(const void *blob, size_t size)
{
    const unsigned char *bytes = blob;
    size_t count = size < END_BYTES ? size : END_BYTES;
    uint64_t hash = hash_bytes(0xCBF29CE484222325U, bytes, count);
    return hash_bytes(hash, bytes + size - count, count);
}

static void digest_of(const struct weight_cache_header *header,
                      const struct weight_cache_entry *entries, size_t count,
                      char hex[DIGEST_HEX_SIZE])
{
    struct weight_cache_header blank = *header;
    memset(blank.digest, 0, sizeof(blank.digest));
    struct digest *digest = digest_create();
    digest_update(digest, &blank, sizeof(blank));
    digest_update(digest, entries, count * sizeof(*entries));
    digest_finish_hex(digest, hex);
}

void weight_cache_file_describe(struct weight_cache_header *header, const char *identity,
                                const struct weight_cache_entry *entries, size_t count,
                                uint64_t table_offset)
{
    ASSERT(strlen(identity) < sizeof(header->identity));
    memset(header, 0, sizeof(*header)); /* padding too: it is digested */
    memcpy(header->magic, magic, sizeof(magic));
    header->version = VERSION;
    header->byte_order = BYTE_ORDER_MARK;
    header->table_offset = table_offset;
    header->blobs = count;
    header->file_bytes = table_offset + count * sizeof(*entries);
    memcpy(header->identity, identity, strlen(identity));
    digest_of(header, entries, count, header->digest);
}

static int check_header(const struct weight_cache_header *header, size_t size, struct error *err)
{
    if (memcmp(header->magic, magic, sizeof(magic)) != 0 || header->byte_order != BYTE_ORDER_MARK) {
        return ERROR(err, STATUS_CORRUPT, "not a file of packed weights of this machine's kind");
    }
    if (header->version != VERSION) {
        return ERROR(err, STATUS_CORRUPT, "version %u, expected %d", header->version, VERSION);
    }
    if (header->file_bytes != size) {
        return ERROR(err, STATUS_CORRUPT, "%zu bytes, and it says that it has %llu", size,
                     (unsigned long long)header->file_bytes);
    }
    if (header->blobs > WEIGHT_CACHE_BLOBS_MAX || header->table_offset > size ||
        header->table_offset < WEIGHT_CACHE_HEADER_BYTES ||
        header->table_offset % WEIGHT_CACHE_ALIGNMENT != 0 ||
        header->blobs * sizeof(struct weight_cache_entry) != size - header->table_offset) {
        return ERROR(err, STATUS_CORRUPT, "its table does not fit");
    }
    if (memchr(header->identity, '\0', sizeof(header->identity)) == NULL ||
        memchr(header->digest, '\0', sizeof(header->digest)) == NULL) {
        return ERROR(err, STATUS_CORRUPT, "a text without an end");
    }
    return STATUS_OK;
}

/* Blob by blob: *end is where the one before ended. */
static int check_entry(const struct weight_cache_header *header, const unsigned char *bytes,
                       const struct weight_cache_entry *entry, uint64_t *end, struct error *err)
{
    if (memchr(entry->name, '\0', sizeof(entry->name)) == NULL) {
        return ERROR(err, STATUS_CORRUPT, "a blob's name without an end");
    }
    if (entry->offset < *end || entry->offset % WEIGHT_CACHE_ALIGNMENT != 0 ||
        entry->offset > header->table_offset || entry->size == 0 ||
        entry->size > header->table_offset - entry->offset) {
        return ERROR(err, STATUS_CORRUPT, "%s lies outside its place", entry->name);
    }
    if (weight_cache_file_ends(bytes + entry->offset, (size_t)entry->size) != entry->ends) {
        return ERROR(err, STATUS_CORRUPT, "%s is damaged", entry->name);
    }
    *end = entry->offset + entry->size;
    return STATUS_OK;
}

int weight_cache_file_check(const void *bytes, size_t size, const char *identity,
                            const struct weight_cache_entry **entries, size_t *count,
                            struct error *err)
{
    char digest[DIGEST_HEX_SIZE];
    uint64_t end = WEIGHT_CACHE_HEADER_BYTES;
    *entries = NULL;
    *count = 0;
    if (size < WEIGHT_CACHE_HEADER_BYTES) {
        return ERROR(err, STATUS_CORRUPT, "%zu bytes are too few", size);
    }
    const struct weight_cache_header *header = bytes;
    int result = check_header(header, size, err);
    if (result < 0) {
        return result;
    }
    const void *table = (const char *)bytes + header->table_offset;
    const struct weight_cache_entry *found = table;
    digest_of(header, found, (size_t)header->blobs, digest);
    if (strcmp(digest, header->digest) != 0) {
        return ERROR(err, STATUS_CORRUPT, "its header or its table is damaged");
    }
    if (strcmp(header->identity, identity) != 0) {
        return ERROR(err, STATUS_NOT_FOUND, "it is of \"%s\"", header->identity);
    }
    for (uint64_t i = 0; i < header->blobs; i++) {
        if ((result = check_entry(header, bytes, &found[i], &end, err)) < 0) {
            return result;
        }
    }
    *entries = found;
    *count = (size_t)header->blobs;
    return STATUS_OK;
}
