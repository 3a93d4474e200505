/* A broker for one machine, so that the first run needs no Java and no containers. It hosts
 * librdkafka's mock cluster: the one mock in the product, and it says so. */
#include <poll.h>
#include <stdio.h>

#include "common/base/log.h"
#include "common/base/panic.h"
#include "common/base/shutdown.h"
#include "common/bus/embedded_broker.h"
#include "common/bus/topics.h"
#include "common/obs/health.h"
#include "common/service/service.h"

#define BEAT_MS 1000

struct devbroker_config {
    const char *pools;
    int64_t lanes;
    const char *topic_prefix;
};

static const struct config_option devbroker_options[] = {
    {.name = "POOLS",
     .type = CONFIG_STRING,
     .offset = offsetof(struct devbroker_config, pools),
     .default_text = "default",
     .help = "The pools whose topics are made, separated by commas."},
    {.name = "LANES",
     .type = CONFIG_INT,
     .offset = offsetof(struct devbroker_config, lanes),
     .default_text = "8",
     .min = 1,
     .max = 64,
     .help = "Partitions of each pool's jobs topic: at least twice the most workers."},
    {.name = "KAFKA_TOPIC_PREFIX",
     .type = CONFIG_STRING,
     .offset = offsetof(struct devbroker_config, topic_prefix),
     .default_text = "crafterse.",
     .help = "What the names of all topics begin with."},
    {.name = NULL},
};

static int add_topics(struct embedded_broker *broker, const struct devbroker_config *config,
                      struct error *err)
{
    const struct kafka_config kafka = {.topic_prefix = config->topic_prefix};
    char **pools = NULL;
    size_t pool_count = 0, count = 0;
    int result = topics_parse_pools(config->pools, &pools, &pool_count, err);
    if (result < 0) {
        return result;
    }
    struct topic_spec *specs =
        topics_list(&kafka, (const char *const *)pools, pool_count, (int)config->lanes, &count);
    for (size_t i = 0; i < count && result == 0 && !shutdown_requested(); i++) {
        result = embedded_broker_add_topic(broker, specs[i].name, specs[i].partitions, err);
    }
    xfree(specs);
    topics_free_pools(pools, pool_count);
    return result;
}

static int run(const struct service_context *context, struct error *err)
{
    struct embedded_broker *broker = NULL;
    int result = embedded_broker_start(&broker, err);
    if (result < 0 || (result = add_topics(broker, context->config, err)) < 0 ||
        (result = service_publish_port(context, "kafka", embedded_broker_port(broker), err)) < 0) {
        goto out;
    }
    log_warn("this is a mock of Kafka for trying things out: it keeps nothing when it ends, and at "
             "most 5 MiB a partition while it runs",
             "address=%s", embedded_broker_address(broker));
    printf("kafka=%s\n", embedded_broker_address(broker));
    fflush(stdout);
    health_set_ready("broker", true, NULL);
    struct pollfd waiter = {.fd = shutdown_fd(), .events = POLLIN};
    while (!shutdown_requested()) {
        health_beat();
        poll(&waiter, 1, BEAT_MS);
    }
    health_set_draining();
out:
    embedded_broker_stop(broker);
    return result;
}

static int check(const void *config, struct error *err)
{
    const struct devbroker_config *devbroker = config;
    char **pools = NULL;
    size_t count = 0;
    int result = topics_parse_pools(devbroker->pools, &pools, &count, err);
    if (result < 0) {
        error_wrap(err, "CRAFTERSE_POOLS");
        return result;
    }
    topics_free_pools(pools, count);
    return 0;
}

static const struct service devbroker_service = {
    .name = "devbroker",
    .summary =
        "A stand-in for Kafka on one machine: librdkafka's mock cluster with all topics made.\n"
        "It is the one mock in the product. It keeps nothing when it ends, at most 5 MiB a\n"
        "partition while it runs, and answers on 127.0.0.1 only. For anything that matters\n"
        "use Apache Kafka.",
    .options = devbroker_options,
    .config_size = sizeof(struct devbroker_config),
    .no_kafka = true,
    .check = check,
    .run = run,
};

int main(int argc, char **argv)
{
    return service_main(&devbroker_service, argc, argv);
}
