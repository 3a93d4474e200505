/* One table says everything about the topics; names and creation follow from it.
 *
 * Partition counts are modest because a managed cluster's free tier has about 100 partitions in
 * all: 39 with one pool of 8 lanes. */
#include "common/bus/topics.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "common/base/buf.h"
#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/panic.h"
#include "common/base/shutdown.h"
#include "common/bus/kafka_client.h"

#define MINUTE_MS ((int64_t)60 * 1000)
#define HOUR_MS (60 * MINUTE_MS)
#define DAY_MS (24 * HOUR_MS)
#define MIB ((int64_t)1 << 20)
#define POOLS_MAX 32
#define POOL_NAME_MAX 32
#define REQUEST_TIMEOUT_MS 5000
#define CREATE_TIMEOUT_MS 20000

struct topic_entry {
    const char *base;   /* after the prefix */
    const char *suffix; /* after the pool; NULL: the topic is not a pool's */
    struct topic_policy policy;
};

static const struct topic_entry entries[TOPIC_COUNT] = {
    [TOPIC_REQUESTS] = {"requests", NULL, {4, "delete", 7 * DAY_MS, -1, MIB}},
    [TOPIC_QUEUE_INTERACTIVE] = {"queue.", ".interactive", {4, "delete", 7 * DAY_MS, -1, MIB}},
    [TOPIC_QUEUE_BATCH] = {"queue.", ".batch", {4, "delete", 7 * DAY_MS, -1, MIB}},
    [TOPIC_JOBS] = {"jobs.", "", {8, "delete", 7 * DAY_MS, -1, MIB}},
    [TOPIC_RETRY] = {"retry.", "", {2, "delete", 7 * DAY_MS, -1, MIB}},
    [TOPIC_RESULTS] = {"results",
                       NULL,
                       {4, "delete", 7 * DAY_MS, 2048 * MIB, TOPIC_MESSAGE_BYTES_MAX}},
    [TOPIC_STATUS] = {"status", NULL, {4, "delete", 2 * DAY_MS, -1, MIB}},
    [TOPIC_HITS] = {"hits", NULL, {1, "delete", 2 * DAY_MS, -1, MIB}},
    [TOPIC_PROGRESS] = {"progress", NULL, {2, "delete", 10 * MINUTE_MS, 64 * MIB, MIB}},
    /* Who was cut off must still read that a paused pool was resumed, for as long as his queue
     * holds jobs for it. */
    [TOPIC_WORKERS] = {"workers", NULL, {1, "compact", 8 * DAY_MS, -1, MIB}},
    /* As long as a job may wait in its queue: who starts late must still know that it is cancelled.
     */
    [TOPIC_CONTROL] = {"control", NULL, {1, "delete", 8 * DAY_MS, -1, MIB}},
    [TOPIC_DEADLETTER] = {"deadletter",
                          NULL,
                          {1, "delete", 28 * DAY_MS, 2048 * MIB, TOPIC_MESSAGE_BYTES_MAX}},
    [TOPIC_INPUTS] = {"inputs",
                      NULL,
                      {2, "delete", 7 * DAY_MS, 1024 * MIB, TOPIC_MESSAGE_BYTES_MAX}},
    [TOPIC_REPAIRS] = {"repairs", NULL, {1, "delete", 28 * DAY_MS, -1, MIB}},
};

void topic_name(const struct kafka_config *kafka, enum topic topic, const char *pool,
                char name[TOPIC_NAME_MAX])
{
    const struct topic_entry *entry = &entries[topic];
    ASSERT((entry->suffix != NULL) == (pool[0] != '\0'));
    snprintf(name, TOPIC_NAME_MAX, "%s%s%s%s", kafka->topic_prefix, entry->base, pool,
             entry->suffix != NULL ? entry->suffix : "");
}

const struct topic_policy *topic_policy(enum topic topic)
{
    return &entries[topic].policy;
}

static void add_spec(struct topic_spec *spec, const struct kafka_config *kafka, enum topic topic,
                     const char *pool, int lanes)
{
    *spec = (struct topic_spec){.topic = topic,
                                .partitions =
                                    topic == TOPIC_JOBS ? lanes : entries[topic].policy.partitions};
    topic_name(kafka, topic, pool, spec->name);
}

struct topic_spec *topics_list(const struct kafka_config *kafka, const char *const *pools,
                               size_t pool_count, int lanes, size_t *count)
{
    struct topic_spec *specs = xcalloc(TOPIC_COUNT * (pool_count + 1), sizeof(*specs));
    *count = 0;
    for (enum topic topic = TOPIC_REQUESTS; topic < TOPIC_COUNT; topic++) {
        if (entries[topic].suffix == NULL) {
            add_spec(&specs[(*count)++], kafka, topic, "", lanes);
            continue;
        }
        for (size_t i = 0; i < pool_count; i++) {
            add_spec(&specs[(*count)++], kafka, topic, pools[i], lanes);
        }
    }
    return specs;
}

/* ---- Pools ----------------------------------------------------------------------------------- */

static int check_pool(const char *name, size_t length, char *const *pools, size_t count,
                      struct error *err)
{
    if (length == 0 || length > POOL_NAME_MAX ||
        strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789-") < length) {
        return ERROR(err, STATUS_INVALID,
                     "pool name \"%.*s\": expected 1 to %d small letters, digits or dashes",
                     (int)(length < 64 ? length : 64), name, POOL_NAME_MAX);
    }
    for (size_t i = 0; i < count; i++) {
        if (strlen(pools[i]) == length && strncmp(pools[i], name, length) == 0) {
            return ERROR(err, STATUS_INVALID, "pool \"%s\" is named twice", pools[i]);
        }
    }
    if (count == POOLS_MAX) {
        return ERROR(err, STATUS_TOO_LARGE, "more than %d pools", POOLS_MAX);
    }
    return 0;
}

int topics_parse_pools(const char *text, char ***pools, size_t *count, struct error *err)
{
    char **names = xcalloc(POOLS_MAX, sizeof(*names));
    size_t found = 0;
    for (const char *at = text;; at++) {
        size_t length = strcspn(at, ",");
        int result = check_pool(at, length, names, found, err);
        if (result < 0) {
            topics_free_pools(names, found);
            return result;
        }
        names[found] = xmalloc(length + 1);
        memcpy(names[found], at, length);
        names[found++][length] = '\0';
        at += length;
        if (*at == '\0') {
            break;
        }
    }
    *pools = names;
    *count = found;
    return 0;
}

void topics_free_pools(char **pools, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        xfree(pools[i]);
    }
    xfree(pools);
}

/* ---- Creation -------------------------------------------------------------------------------- */

static bool has_topic(const rd_kafka_metadata_t *metadata, const struct topic_spec *spec)
{
    for (int i = 0; i < metadata->topic_cnt; i++) {
        const rd_kafka_metadata_topic_t *topic = &metadata->topics[i];
        if (strcmp(topic->topic, spec->name) != 0) {
            continue;
        }
        if (topic->err == RD_KAFKA_RESP_ERR_NO_ERROR && topic->partition_cnt < spec->partitions) {
            log_warn("a topic has fewer partitions than it should; it is used as it is",
                     "topic=%s partitions=%d wanted=%d", spec->name, topic->partition_cnt,
                     spec->partitions);
        }
        return topic->err == RD_KAFKA_RESP_ERR_NO_ERROR;
    }
    return false;
}

/* Moves the specs that the cluster lacks to the front and returns how many; negative on failure. */
static int find_missing(rd_kafka_t *rk, struct topic_spec *specs, size_t count, struct error *err)
{
    const rd_kafka_metadata_t *metadata = NULL;
    rd_kafka_resp_err_t code = rd_kafka_metadata(rk, 1, NULL, &metadata, REQUEST_TIMEOUT_MS);
    if (code != RD_KAFKA_RESP_ERR_NO_ERROR) {
        return kafka_client_error(err, code, "cannot list the topics");
    }
    int missing = 0;
    for (size_t i = 0; i < count; i++) {
        if (!has_topic(metadata, &specs[i])) {
            struct topic_spec swapped = specs[missing];
            specs[missing++] = specs[i];
            specs[i] = swapped;
        }
    }
    rd_kafka_metadata_destroy(metadata);
    return missing;
}

__attribute__((format(printf, 3, 4))) static void
set_config(rd_kafka_NewTopic_t *new_topic, const char *name, const char *format, ...)
{
    char value[64];
    va_list args;
    va_start(args, format);
    vsnprintf(value, sizeof(value), format, args);
    va_end(args);
    rd_kafka_NewTopic_set_config(new_topic, name, value);
}

static rd_kafka_NewTopic_t *describe(const struct topic_spec *spec, int replication_factor,
                                     struct error *err)
{
    char text[256];
    const struct topic_policy *policy = &entries[spec->topic].policy;
    rd_kafka_NewTopic_t *new_topic =
        rd_kafka_NewTopic_new(spec->name, spec->partitions, replication_factor, text, sizeof(text));
    if (new_topic == NULL) {
        ERROR(err, STATUS_INVALID, "cannot describe topic %s: %s", spec->name, text);
        return NULL;
    }
    set_config(new_topic, "cleanup.policy", "%s", policy->cleanup_policy);
    set_config(new_topic, "max.message.bytes", "%lld", (long long)policy->message_bytes_max);
    if (replication_factor >= 3) {
        /* acks=all then means two copies, and one broker may be away. */
        set_config(new_topic, "min.insync.replicas", "2");
    }
    if (strcmp(policy->cleanup_policy, "compact") == 0) {
        /* Small segments: only closed ones are compacted, and every reader folds the whole. */
        set_config(new_topic, "segment.ms", "%lld", 10LL * 60 * 1000);
        set_config(new_topic, "delete.retention.ms", "%lld", (long long)policy->retention_ms);
        return new_topic;
    }
    set_config(new_topic, "retention.ms", "%lld", (long long)policy->retention_ms);
    if (policy->retention_bytes > 0) {
        set_config(new_topic, "retention.bytes", "%lld", (long long)policy->retention_bytes);
    }
    if (policy->retention_ms < DAY_MS) {
        /* Only closed segments go, so they must close within the retention. */
        set_config(new_topic, "segment.ms", "%lld", (long long)policy->retention_ms);
    }
    return new_topic;
}

/* Collects every topic's failure; a topic that another service made meanwhile is none. */
static int judge(rd_kafka_event_t *event, struct error *err)
{
    rd_kafka_resp_err_t code = rd_kafka_event_error(event);
    if (code != RD_KAFKA_RESP_ERR_NO_ERROR) {
        return kafka_client_error(err, code, "cannot create topics");
    }
    size_t count = 0;
    const rd_kafka_topic_result_t **results =
        rd_kafka_CreateTopics_result_topics(rd_kafka_event_CreateTopics_result(event), &count);
    int result = 0;
    struct buf problems;
    buf_init(&problems, ERROR_TEXT_MAX - 64);
    for (size_t i = 0; i < count; i++) {
        code = rd_kafka_topic_result_error(results[i]);
        const char *name = rd_kafka_topic_result_name(results[i]);
        if (code == RD_KAFKA_RESP_ERR_NO_ERROR || code == RD_KAFKA_RESP_ERR_TOPIC_ALREADY_EXISTS) {
            log_info("topic is there", "topic=%s created=%s", name,
                     code == RD_KAFKA_RESP_ERR_NO_ERROR ? "yes" : "no");
            continue;
        }
        const char *detail = rd_kafka_topic_result_error_string(results[i]);
        buf_printf(&problems, NULL, "%s%s: %s", problems.size > 0 ? "; " : "", name,
                   detail != NULL ? detail : rd_kafka_err2str(code));
        result = kafka_client_error(err, code, "cannot create topics");
    }
    if (result < 0) {
        snprintf(err->text, sizeof(err->text), "cannot create topics: %s", problems.data);
    }
    buf_deinit(&problems);
    return result;
}

static int create(rd_kafka_t *rk, const struct topic_spec *specs, int count, int replication_factor,
                  struct error *err)
{
    char text[256];
    rd_kafka_NewTopic_t **topics = xcalloc((size_t)count, sizeof(rd_kafka_NewTopic_t *));
    rd_kafka_queue_t *queue = rd_kafka_queue_new(rk);
    rd_kafka_AdminOptions_t *options =
        rd_kafka_AdminOptions_new(rk, RD_KAFKA_ADMIN_OP_CREATETOPICS);
    rd_kafka_event_t *event = NULL;
    int result = 0;
    for (int i = 0; i < count; i++) {
        topics[i] = describe(&specs[i], replication_factor, err);
        if (topics[i] == NULL) {
            result = err->status;
            goto out;
        }
    }
    rd_kafka_AdminOptions_set_request_timeout(options, REQUEST_TIMEOUT_MS, text, sizeof(text));
    rd_kafka_CreateTopics(rk, topics, (size_t)count, options, queue);
    event = rd_kafka_queue_poll(queue, REQUEST_TIMEOUT_MS + 2000);
    if (event == NULL) {
        result = ERROR(err, STATUS_UNAVAILABLE, "cannot create topics: no broker answered");
        goto out;
    }
    result = judge(event, err);
out:
    if (event != NULL) {
        rd_kafka_event_destroy(event);
    }
    for (int i = 0; i < count && topics[i] != NULL; i++) {
        rd_kafka_NewTopic_destroy(topics[i]);
    }
    rd_kafka_AdminOptions_destroy(options);
    rd_kafka_queue_destroy(queue);
    xfree(topics);
    return result;
}

/* Creates what is missing and waits until the cluster shows it: metadata lags behind creation. */
static int ensure(rd_kafka_t *rk, struct topic_spec *specs, size_t count, int replication_factor,
                  struct error *err)
{
    uint64_t deadline_ms = clock_monotonic_ms() + CREATE_TIMEOUT_MS;
    bool created = false;
    for (;;) {
        int missing = find_missing(rk, specs, count, err);
        int result = missing;
        if (missing > 0 && !created) {
            result = create(rk, specs, missing, replication_factor, err);
            created = result == 0;
        }
        if (missing <= 0 || (result < 0 && !err->retriable)) {
            return result; /* no broker: the caller says so, and tries again */
        }
        if (shutdown_requested()) {
            return ERROR(err, STATUS_CANCELLED, "asked to stop while the topics were made");
        }
        if (clock_monotonic_ms() >= deadline_ms) {
            return result < 0 ? result
                              : ERROR(err, STATUS_UNAVAILABLE,
                                      "topic %s was created but does not show up", specs[0].name);
        }
        clock_sleep_ms(100);
    }
}

/* The admin handle's errors are answers to its requests; nobody polls it for others. */
static int check_answers(rd_kafka_t *rk, struct error *err)
{
    const rd_kafka_metadata_t *metadata = NULL;
    rd_kafka_resp_err_t code = rd_kafka_metadata(rk, 0, NULL, &metadata, REQUEST_TIMEOUT_MS);
    if (code != RD_KAFKA_RESP_ERR_NO_ERROR) {
        return kafka_client_error(err, code, "devbroker does not answer");
    }
    rd_kafka_metadata_destroy(metadata);
    return 0;
}

int topics_create(const struct kafka_config *kafka, const char *const *pools, size_t pool_count,
                  int lanes, int replication_factor, struct error *err)
{
    const struct kafka_client_property none[] = {{NULL, NULL}};
    rd_kafka_conf_t *conf = kafka_client_conf(kafka, none, err);
    rd_kafka_t *rk = conf != NULL ? kafka_client_open(RD_KAFKA_PRODUCER, conf, kafka, err) : NULL;
    if (rk == NULL) {
        return err->status;
    }
    int result;
    if (kafka->embedded) {
        result = check_answers(rk, err);
    } else {
        size_t count = 0;
        struct topic_spec *specs = topics_list(kafka, pools, pool_count, lanes, &count);
        result = ensure(rk, specs, count, replication_factor, err);
        xfree(specs);
    }
    kafka_client_close(rk, 0, 5000);
    return result;
}
