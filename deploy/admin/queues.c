/* Lag by topic, and the age of the oldest job: the record at the first uncommitted offset of each
 * partition says when its job was accepted. */
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/panic.h"
#include "common/bus/codec.h"
#include "common/bus/lag.h"
#include "common/bus/record_reader.h"
#include "deploy/admin/admin.h"

#define TIMEOUT_MS 15000
#define PARTITIONS_MAX 1024

/* When the record's job was accepted; 0 when it does not say. */
static uint64_t accepted_ms(const uint8_t *payload, size_t size)
{
    struct error err;
    ProtobufCMessage *message = codec_unpack(&crafterse__v1__job__descriptor, payload, size, &err);
    uint64_t at_ms = message != NULL ? ((const Crafterse__V1__Job *)message)->accepted_ms : 0;
    codec_free(message);
    return at_ms;
}

/* Seconds since the oldest unfinished job was accepted; negative when nothing says. */
static double oldest_age(const struct admin *admin, const char *topic,
                         const struct lag_partition *partitions, size_t count)
{
    struct record_reader *reader = NULL;
    struct error err;
    uint64_t now_ms = clock_unix_ms(), oldest_ms = now_ms + 1;
    if (record_reader_create(&reader, admin->kafka, topic, &err) < 0) {
        return -1;
    }
    for (size_t i = 0; i < count; i++) {
        uint8_t *payload = NULL;
        size_t size = 0;
        if (partitions[i].records > 0 &&
            record_reader_read(reader, (int32_t)i, partitions[i].first, TIMEOUT_MS, &payload, &size,
                               &err) == STATUS_OK) {
            uint64_t at_ms = accepted_ms(payload, size);
            oldest_ms = at_ms > 0 && at_ms < oldest_ms ? at_ms : oldest_ms;
            xfree(payload);
        }
    }
    record_reader_destroy(reader);
    return oldest_ms <= now_ms ? (double)(now_ms - oldest_ms) / 1000.0 : -1;
}

static int print_topic(const struct admin *admin, struct lag *lag, const char *group_name,
                       enum topic topic, const char *pool, struct error *err)
{
    char name[TOPIC_NAME_MAX], group[TOPIC_NAME_MAX];
    struct lag_partition partitions[PARTITIONS_MAX];
    size_t count = 0;
    topic_name(admin->kafka, topic, pool, name);
    snprintf(group, sizeof(group), "%s%s", admin->kafka->topic_prefix, group_name);
    int result = lag_query(lag, group, name, partitions, PARTITIONS_MAX, &count, TIMEOUT_MS, err);
    if (result < 0) {
        return result;
    }
    int64_t waiting = 0;
    for (size_t i = 0; i < count; i++) {
        waiting += partitions[i].records;
    }
    /* A Result or a Repair is no Job, and says nothing that could be read as one. */
    bool are_jobs = topic != TOPIC_RESULTS && topic != TOPIC_REPAIRS;
    double age = waiting > 0 && are_jobs ? oldest_age(admin, name, partitions, count) : -1;
    printf("%-44s %10" PRId64, name, waiting);
    if (age >= 0) {
        printf(" %12.1f s", age);
    }
    printf("\n");
    return STATUS_OK;
}

int admin_queues(const struct admin *admin, struct error *err)
{
    struct lag *lag = lag_create(admin->kafka);
    printf("%-44s %10s %14s\n", "topic", "waiting", "oldest job");
    int result = print_topic(admin, lag, "router", TOPIC_REQUESTS, "", err);
    for (size_t i = 0; result == STATUS_OK && i < admin->pool_count; i++) {
        const char *pool = admin->pools[i];
        char worker[TOPIC_NAME_MAX];
        snprintf(worker, sizeof(worker), "worker.%s", pool);
        if ((result = print_topic(admin, lag, "router", TOPIC_QUEUE_INTERACTIVE, pool, err)) < 0 ||
            (result = print_topic(admin, lag, "router", TOPIC_QUEUE_BATCH, pool, err)) < 0 ||
            (result = print_topic(admin, lag, "router", TOPIC_RETRY, pool, err)) < 0) {
            break;
        }
        result = print_topic(admin, lag, worker, TOPIC_JOBS, pool, err);
    }
    if (result == STATUS_OK) {
        result = print_topic(admin, lag, "uploader", TOPIC_RESULTS, "", err);
    }
    if (result == STATUS_OK) {
        result = print_topic(admin, lag, "uploader", TOPIC_REPAIRS, "", err);
    }
    lag_destroy(lag);
    return result;
}
