/* What every service's main does: arguments, settings, log, signals, probes - then its own run.
 *
 *   int main(int argc, char **argv) { return service_main(&gateway_service, argc, argv); }
 *
 * Arguments: --help, --version, --check-config (0 and "settings are valid", or 1 and every
 * problem), --print-config, --config-table (markdown of its own settings, for docs),
 * --config-table-shared (markdown of those that services share), --probe healthz|readyz (0 when the
 * service that listens at METRICS_LISTEN says so: for a container's health check). Settings come
 * from the environment.
 *
 * Shared settings: LOG_LEVEL, INSTANCE (default <service>-<random>), METRICS_LISTEN
 * (default 127.0.0.1:0), PORT_FILE: a file that gets one "name=port" line for every bound port once
 * the service listens, so that whoever started it with port 0 can find it.
 */
#ifndef COMMON_SERVICE_SERVICE_H
#define COMMON_SERVICE_SERVICE_H

#include <stddef.h>

#include "common/base/config.h"
#include "common/base/error.h"
#include "common/bus/kafka_config.h"

struct service_settings {
    const char *log_level;
    const char *instance; /* never empty once loaded */
    const char *metrics_listen;
    const char *port_file;
    int64_t hang_limit_ms;
};

struct service_context {
    const struct service_settings *settings;
    const struct kafka_config *kafka; /* NULL with no_kafka */
    void *config;                     /* the service's own struct, loaded */
};

struct service {
    const char *name;    /* "gateway" */
    const char *summary; /* one sentence for --help */
    const struct config_option *options;
    size_t config_size;
    bool no_kafka; /* it is no client of Kafka: takes none of its settings */
    /* Checks across settings ("STORE=s3 needs S3_BUCKET"); may be NULL. Runs in --check-config. */
    int (*check)(const void *config, struct error *err);
    /* Runs until shutdown_requested(); returns 0 after a clean drain. */
    int (*run)(const struct service_context *context, struct error *err);
};

int service_main(const struct service *service, int argc, char **argv);

/* Adds a "name=port" line to PORT_FILE (atomically: write and rename). */
int service_publish_port(const struct service_context *context, const char *name, int port,
                         struct error *err);

#endif
