/* The gateway's settings; docs/CONFIGURATION.md is made from the table. */
#ifndef GATEWAY_GATEWAY_CONFIG_H
#define GATEWAY_GATEWAY_CONFIG_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/config.h"

struct gateway_config {
    const char *http_listen;
    const char *public_url, *cdn_base_url; /* "": made from the port that was bound */
    int64_t pool_grace_ms;
    const char *second_cdn_base_url;
    const char *objects_folder;
    const char *auth, *api_keys_file;
    int64_t rate_per_minute, rate_burst;
    const char *redis_url;
    int64_t redis_timeout_ms;
    const char *model_default;
    int64_t body_bytes_max, input_bytes_max, bodies_bytes_max, header_bytes_max;
    int64_t connections_max, connections_per_address_max;
    int64_t idle_timeout_ms, request_timeout_ms, accept_timeout_ms, wait_max_ms, drain_ms;
    int64_t prompt_characters_max, pictures_max;
    int64_t jobs_in_flight_max, jobs_max, job_retention_ms, cache_entries_max;
};

extern const struct config_option gateway_config_options[];

/* What no single setting can check: see service.h. */
int gateway_config_check(const void *config, struct error *err);

#endif
