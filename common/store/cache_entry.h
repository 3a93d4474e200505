/* The cache entry that the uploader writes and the gateway reads: content hash -> stored picture.
 *
 * Key "crafterse:picture:<content_hash>"; value: a packed crafterse.v1.Image. One SET a picture by
 * the uploader, one GET a submission by the gateway: two operations a job. */
#ifndef COMMON_STORE_CACHE_ENTRY_H
#define COMMON_STORE_CACHE_ENTRY_H

#define CACHE_ENTRY_KEY_SIZE 96

void cache_entry_key(const char *content_hash, char key[CACHE_ENTRY_KEY_SIZE]);

#endif
