/* The worker's settings; docs/CONFIGURATION.md is generated from this table. */
#ifndef WORKER_WORKER_CONFIG_H
#define WORKER_WORKER_CONFIG_H

#include <stdint.h>

#include "common/base/config.h"

struct worker_config {
    const char *pool;
    const char *model_path;
    const char *model_name;
    const char *vae_path;
    const char *lora_folder;
    const char *embedding_folder;
    const char *weights;      /* "file" or "f32": enum engine_storage */
    const char *precision;    /* "f32", "f16", "bf16", "int8": enum engine_precision */
    int64_t memory_limit;     /* bytes; 0: the control group's or the machine's */
    const char *cache_folder; /* "": the default place */
    int64_t cache_limit;      /* bytes; 0: no cache */
    int64_t threads;
    int64_t attempts_max;
    int64_t retry_first_ms, retry_max_ms;
    int64_t time_limit_ms;
    int64_t drain_timeout_ms;
    const char *price_per_hour; /* dollars; worker_metrics.h */
};

extern const struct config_option worker_config_options[];

int worker_config_check(const void *config, struct error *err) MUST_CHECK;

#endif
