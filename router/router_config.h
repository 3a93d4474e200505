/* The router's settings; docs/CONFIGURATION.md is generated from this table. */
#ifndef ROUTER_ROUTER_CONFIG_H
#define ROUTER_ROUTER_CONFIG_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/config.h"

struct router_config {
    const char *pools;
    int64_t lanes;
    int64_t lane_credit;
    int64_t batch_floor;
    int64_t worker_ttl_ms;
    int64_t pool_grace_ms;
    int64_t results_bytes_max;
    bool topics_create;
    int64_t topics_replication;
};

extern const struct config_option router_config_options[];

/* Checks what one option alone cannot say. */
int router_config_check(const void *config, struct error *err) MUST_CHECK;

#endif
