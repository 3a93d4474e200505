/* How much of a topic a consumer group has not finished: end offsets against committed offsets.
 *
 * For the router's credit and for metrics. It asks without joining any group; a connection a group.
 * Every query blocks for some round trips, so it belongs on a thread of its own.
 *
 * Thread rule: one thread calls everything here. */
#ifndef COMMON_BUS_LAG_H
#define COMMON_BUS_LAG_H

#include <stddef.h>
#include <stdint.h>

#include "common/base/error.h"
#include "common/bus/kafka_config.h"

struct lag;

/* The settings stay the caller's. */
struct lag *lag_create(const struct kafka_config *kafka);
void lag_destroy(struct lag *l); /* accepts NULL */

struct lag_partition {
    int64_t records; /* that the group has not committed */
    int64_t first;   /* offset of the oldest of them */
};

/* Fills partitions[i] for every partition of the topic up to max, and *count with the number of
 * partitions. A partition without a committed offset, or with one whose record is deleted by now,
 * counts from its beginning, as a new member would read it. NOT_FOUND when the topic does not
 * exist, UNAVAILABLE (retriable) when Kafka does not answer in timeout_ms. */
int lag_query(struct lag *l, const char *group, const char *topic, struct lag_partition *partitions,
              size_t max, size_t *count, int timeout_ms, struct error *err) MUST_CHECK;

#endif
