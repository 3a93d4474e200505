/* The uploader's settings. */
#ifndef UPLOADER_UPLOADER_CONFIG_H
#define UPLOADER_UPLOADER_CONFIG_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/config.h"
#include "uploader/store_pair.h"

/* One place where pictures are kept. */
struct uploader_place {
    const char *kind; /* "folder" or "s3"; of the second also "none" */
    const char *folder;
    const char *s3_endpoint, *s3_region, *s3_bucket;
    const char *s3_access_key_id, *s3_secret_access_key;
    int64_t s3_timeout_ms;
};

struct uploader_config {
    struct uploader_place first, second;
    int64_t patience_ms; /* with the first */
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

bool uploader_config_has_second(const struct uploader_config *config);
/* Opens the stores that the settings name, the second only when there is one; the settings must
 * outlive them. durable: of folder stores. */
int uploader_config_open_stores(const struct uploader_config *config, bool durable,
                                struct store_pair *out, struct error *err) MUST_CHECK;

#endif
