/* Every topic: its name, policy and who makes it. docs/PROTOCOL.md tells what each one means. */
#ifndef COMMON_BUS_TOPICS_H
#define COMMON_BUS_TOPICS_H

#include <stddef.h>
#include <stdint.h>

#include "common/base/error.h"
#include "common/bus/kafka_config.h"

enum topic {
    TOPIC_REQUESTS,
    TOPIC_QUEUE_INTERACTIVE, /* one a pool */
    TOPIC_QUEUE_BATCH,       /* one a pool */
    TOPIC_JOBS,              /* one a pool; partitions are lanes */
    TOPIC_RETRY,             /* one a pool */
    TOPIC_RESULTS,
    TOPIC_STATUS,
    TOPIC_HITS,
    TOPIC_PROGRESS,
    TOPIC_WORKERS,
    TOPIC_CONTROL,
    TOPIC_DEADLETTER,
    TOPIC_INPUTS,
    TOPIC_REPAIRS,
    TOPIC_COUNT
};

#define TOPIC_NAME_MAX 160
/* results and inputs carry pictures: what a topic takes, and what a record's payload and key may
 * be, which leaves room for what Kafka writes around them. */
#define TOPIC_MESSAGE_BYTES_MAX (16 * 1024 * 1024)
#define TOPIC_PAYLOAD_BYTES_MAX 16000000

/* pool is "" for topics that are not a pool's. "crafterse.queue.default.interactive" */
void topic_name(const struct kafka_config *kafka, enum topic topic, const char *pool,
                char name[TOPIC_NAME_MAX]);

struct topic_policy {
    int partitions;
    const char *cleanup_policy; /* "delete" | "compact" */
    int64_t retention_ms;       /* of a compacted one: of its tombstones */
    int64_t retention_bytes;    /* a partition; -1 = no limit */
    int64_t message_bytes_max;
};
const struct topic_policy *topic_policy(enum topic topic);

/* All topics of these pools with their partitions; lanes = partitions of jobs.<pool>. Free the
 * array with xfree. */
struct topic_spec {
    char name[TOPIC_NAME_MAX];
    enum topic topic;
    int partitions;
};
struct topic_spec *topics_list(const struct kafka_config *kafka, const char *const *pools,
                               size_t pool_count, int lanes, size_t *count);

/* Creates the topics that are missing (all of the list's pools'), with their policies; existing
 * ones are left as they are. lanes = partitions of jobs.<pool>. With EMBEDDED only checks that
 * devbroker answers: it has made them. Blocks for up to 25 s: UNAVAILABLE (retriable) when no
 * broker answers, CANCELLED once shutdown was requested. */
int topics_create(const struct kafka_config *kafka, const char *const *pools, size_t pool_count,
                  int lanes, int replication_factor, struct error *err) MUST_CHECK;

/* Splits "default,fast" into names. Names are [a-z0-9-]{1,32}, at most 32 of them, each once. */
int topics_parse_pools(const char *text, char ***pools, size_t *count,
                       struct error *err) MUST_CHECK;
void topics_free_pools(char **pools, size_t count);

#endif
