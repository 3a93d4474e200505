/* The cache entry that the uploader writes and the gateway reads: an order -> its stored pictures.
 *
 * Key "crafterse:order:<cache key of the job>"; value: a packed crafterse.v1.CacheEntry, about 300
 * bytes a picture. One SET a job by the uploader, one GET a submission by the gateway: two
 * operations a job, as a small Redis plan counts them. */
#ifndef COMMON_STORE_CACHE_ENTRY_H
#define COMMON_STORE_CACHE_ENTRY_H

#define CACHE_ENTRY_KEY_SIZE 96

void cache_entry_key(const char *cache_key, char key[CACHE_ENTRY_KEY_SIZE]);

#endif
