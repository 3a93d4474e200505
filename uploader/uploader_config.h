/* The uploader's settings. */
#ifndef UPLOADER_UPLOADER_CONFIG_H
#define UPLOADER_UPLOADER_CONFIG_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/config.h"
#include "uploader/store.h"

struct uploader_config {
    const char *store; /* "folder" or "s3" */
    const char *store_folder;
    const char *s3_endpoint, *s3_region, *s3_bucket;
    const char *s3_access_key_id, *s3_secret_access_key;
    int64_t s3_timeout_ms;
    const char *object_prefix;
    int64_t uploads;
    int64_t retry_max_ms;
    int64_t drain_limit_ms;
    const char *redis_url; /* "" = no cache entries */
    int64_t cache_ttl_ms;
};

extern const struct config_option uploader_config_options[];

/* For struct service: what no single option can tell. */
int uploader_config_check(const void *config, struct error *err);

/* Opens the store that the settings name; they must outlive it. durable: of the folder store. */
int uploader_config_open_store(const struct uploader_config *config, bool durable,
                               struct store **out, struct error *err) MUST_CHECK;

#endif
