/* Counters, gauges and histograms in the Prometheus text format 0.0.4.
 *
 * Metrics are declared as static structs and registered once, before threads start; updates are
 * lock-free and safe from any thread. Names: crafterse_<service>_<what>_<unit>, counters end in
 * _total. Labels are fixed at registration (a small known set, never ids): one struct a label set.
 */
#ifndef COMMON_OBS_METRICS_H
#define COMMON_OBS_METRICS_H

#include <stdatomic.h>
#include <stdint.h>

#include "common/base/buf.h"

enum metric_kind { METRIC_COUNTER, METRIC_GAUGE, METRIC_HISTOGRAM };

#define METRIC_BUCKETS_MAX 20

struct metric {
    const char *name;
    const char *labels; /* "state=\"failed\"" or "" */
    const char *help;
    enum metric_kind kind;
    const double *buckets; /* upper bounds, ascending; histograms only */
    int bucket_count;
    /* private: values as bit patterns of double */
    _Atomic uint64_t value;
    _Atomic uint64_t counts[METRIC_BUCKETS_MAX + 1];
    struct metric *next;
};

#define METRIC_DEFINE_COUNTER(id, metric_name, metric_labels, metric_help) \
    static struct metric id = {.name = (metric_name), \
                               .labels = (metric_labels), \
                               .help = (metric_help), \
                               .kind = METRIC_COUNTER}
#define METRIC_DEFINE_GAUGE(id, metric_name, metric_labels, metric_help) \
    static struct metric id = {.name = (metric_name), \
                               .labels = (metric_labels), \
                               .help = (metric_help), \
                               .kind = METRIC_GAUGE}

/* id keeps the distribution of durations in seconds, in metric_seconds_buckets. */
#define METRIC_DEFINE_SECONDS(id, metric_name, metric_labels, metric_help) \
    static struct metric id = {.name = (metric_name), \
                               .labels = (metric_labels), \
                               .help = (metric_help), \
                               .kind = METRIC_HISTOGRAM, \
                               .buckets = metric_seconds_buckets, \
                               .bucket_count = METRIC_SECONDS_BUCKET_COUNT}

/* 0.005 ... 1800 s: from a pipeline hop to the longest job. */
#define METRIC_SECONDS_BUCKET_COUNT 18
extern const double metric_seconds_buckets[];
extern const int metric_seconds_bucket_count;

void metric_register(struct metric *m);
/* For label values known only at start (pool names): allocated and registered; never freed. A
 * histogram gets metric_seconds_buckets. */
struct metric *metric_create(enum metric_kind kind, const char *name, const char *labels,
                             const char *help);
/* Escapes a text for use between the quotes of a label ("a\"b" becomes a\\"b), cut to what out
 * holds; returns out. */
#define METRIC_LABEL_MAX 256
const char *metric_label_value(const char *text, char *out, size_t size);

void metric_add(struct metric *m, double amount);
void metric_increment(struct metric *m);
void metric_set(struct metric *m, double value);
void metric_observe(struct metric *m, double value);
double metric_value(const struct metric *m);

/* The whole registry plus process_* metrics (resident memory, CPU seconds, open fds, start time).
 */
void metrics_render(struct buf *out);

#endif
