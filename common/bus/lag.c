/* One handle a group, made when the group is first asked for. librdkafka has an admin call that
 * reads any group's offsets with one handle, but in 2.0.2 it crashes when the coordinator answers
 * with an error (seen with "coordinator load in progress" of a broker that just started). A handle
 * that never subscribes does not join its group. */
#include "common/bus/lag.h"

#include <string.h>

#include "common/base/panic.h"
#include "common/bus/kafka_client.h"

struct group {
    struct group *next;
    char *name;
    rd_kafka_t *rk;
};

struct lag {
    const struct kafka_config *kafka;
    struct group *groups;
};

struct lag *lag_create(const struct kafka_config *kafka)
{
    struct lag *l = xcalloc(1, sizeof(*l));
    l->kafka = kafka;
    return l;
}

void lag_destroy(struct lag *l)
{
    if (l == NULL) {
        return;
    }
    for (struct group *g = l->groups, *next; g != NULL; g = next) {
        next = g->next;
        kafka_client_close(g->rk, RD_KAFKA_DESTROY_F_NO_CONSUMER_CLOSE, 5000);
        xfree(g->name);
        xfree(g);
    }
    xfree(l);
}

static rd_kafka_t *find_group(struct lag *l, const char *name, struct error *err)
{
    const struct kafka_client_property properties[] = {{"group.id", name}, {NULL, NULL}};
    for (struct group *g = l->groups; g != NULL; g = g->next) {
        if (strcmp(g->name, name) == 0) {
            return g->rk;
        }
    }
    rd_kafka_conf_t *conf = kafka_client_conf(l->kafka, properties, err);
    rd_kafka_t *rk =
        conf != NULL ? kafka_client_open(RD_KAFKA_CONSUMER, conf, l->kafka, err) : NULL;
    if (rk == NULL) {
        return NULL;
    }
    struct group *g = xcalloc(1, sizeof(*g));
    *g = (struct group){.next = l->groups, .name = xstrdup(name), .rk = rk};
    l->groups = g;
    return rk;
}

static int count_partitions(rd_kafka_t *rk, const char *topic, size_t *count, int timeout_ms,
                            struct error *err)
{
    const struct rd_kafka_metadata *metadata = NULL;
    rd_kafka_topic_t *handle = rd_kafka_topic_new(rk, topic, NULL);
    rd_kafka_resp_err_t code = rd_kafka_metadata(rk, 0, handle, &metadata, timeout_ms);
    int status = 0;
    *count = 0;
    if (code != RD_KAFKA_RESP_ERR_NO_ERROR) {
        status = kafka_client_error(err, code, "metadata of %s", topic);
    } else if (metadata->topic_cnt == 1 && metadata->topics[0].err == 0) {
        *count = (size_t)metadata->topics[0].partition_cnt;
    }
    if (status == 0 && *count == 0) {
        status = ERROR(err, STATUS_NOT_FOUND, "the topic %s does not exist", topic);
    }
    if (metadata != NULL) {
        rd_kafka_metadata_destroy(metadata);
    }
    rd_kafka_topic_destroy(handle);
    return status;
}

/* ListOffsets for all partitions of the list at once; which is RD_KAFKA_OFFSET_END or BEGINNING,
 * which are what the protocol calls these timestamps. */
static int ask_offsets(rd_kafka_t *rk, rd_kafka_topic_partition_list_t *list, int64_t which,
                       int timeout_ms, struct error *err)
{
    for (int i = 0; i < list->cnt; i++) {
        list->elems[i].offset = which;
    }
    rd_kafka_resp_err_t code = rd_kafka_offsets_for_times(rk, list, timeout_ms);
    for (int i = 0; code == RD_KAFKA_RESP_ERR_NO_ERROR && i < list->cnt; i++) {
        code = list->elems[i].err;
    }
    if (code != RD_KAFKA_RESP_ERR_NO_ERROR) {
        return kafka_client_error(err, code, "offsets of %s", list->elems[0].topic);
    }
    return 0;
}

/* committed[partition] = offset, or negative where the group has none. */
static int ask_committed(rd_kafka_t *rk, rd_kafka_topic_partition_list_t *list, int64_t *committed,
                         int timeout_ms, struct error *err)
{
    rd_kafka_resp_err_t code = rd_kafka_committed(rk, list, timeout_ms);
    for (int i = 0; code == RD_KAFKA_RESP_ERR_NO_ERROR && i < list->cnt; i++) {
        code = list->elems[i].err;
        committed[i] = list->elems[i].offset;
    }
    if (code != RD_KAFKA_RESP_ERR_NO_ERROR) {
        return kafka_client_error(err, code, "committed offsets of %s", list->elems[0].topic);
    }
    return 0;
}

static int subtract(rd_kafka_t *rk, rd_kafka_topic_partition_list_t *list, const int64_t *committed,
                    struct lag_partition *partitions, int timeout_ms, struct error *err)
{
    bool lags = false;
    int status = ask_offsets(rk, list, RD_KAFKA_OFFSET_END, timeout_ms, err);
    for (int i = 0; status == 0 && i < list->cnt; i++) {
        partitions[i].records = list->elems[i].offset;
        lags |= committed[i] < partitions[i].records;
    }
    /* What was deleted before it was committed is not there to be done: nobody would ever commit
     * it, and it would hold its lane's credit for good. */
    if (status == 0 && lags) {
        status = ask_offsets(rk, list, RD_KAFKA_OFFSET_BEGINNING, timeout_ms, err);
    }
    for (int i = 0; status == 0 && i < list->cnt; i++) {
        int64_t beginning = lags ? list->elems[i].offset : 0;
        int64_t from = committed[i] > beginning ? committed[i] : beginning;
        int64_t end = partitions[i].records;
        partitions[i] =
            (struct lag_partition){.records = end > from ? end - from : 0, .first = from};
    }
    return status;
}

int lag_query(struct lag *l, const char *group, const char *topic, struct lag_partition *partitions,
              size_t max, size_t *count, int timeout_ms, struct error *err)
{
    rd_kafka_t *rk = find_group(l, group, err);
    if (rk == NULL) {
        return err->status;
    }
    int status = count_partitions(rk, topic, count, timeout_ms, err);
    if (status < 0) {
        return status;
    }
    *count = *count < max ? *count : max;
    int64_t *committed = xcalloc(*count, sizeof(*committed));
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new((int)*count);
    for (size_t i = 0; i < *count; i++) {
        rd_kafka_topic_partition_list_add(list, topic, (int32_t)i);
    }
    /* Committed first: an offset committed between the two questions makes the lag too large for
     * a moment, never negative. */
    status = ask_committed(rk, list, committed, timeout_ms, err);
    if (status == 0) {
        status = subtract(rk, list, committed, partitions, timeout_ms, err);
    }
    rd_kafka_topic_partition_list_destroy(list);
    xfree(committed);
    return status;
}
