/* A singly linked registry that only grows. Values are bit patterns of double in atomics: an update
 * is one compare-and-swap loop, and a reader may see a sum and its count a moment apart, which the
 * text format allows. */
#include "common/obs/metrics.h"

#include <dirent.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/panic.h"

const double metric_seconds_buckets[] = {0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1,    2.5,
                                         5,     10,   30,    60,   120, 300,  600, 1200, 1800};
const int metric_seconds_bucket_count = METRIC_SECONDS_BUCKET_COUNT;
_Static_assert(sizeof(metric_seconds_buckets) / sizeof(double) == METRIC_SECONDS_BUCKET_COUNT,
               "the count in the header is that of the table");

static pthread_mutex_t registry_lock = PTHREAD_MUTEX_INITIALIZER;
static struct metric *registry_first;
static struct metric **registry_last = &registry_first;

static uint64_t bits_of(double value)
{
    uint64_t bits;
    memcpy(&bits, &value, sizeof(bits));
    return bits;
}

static double value_of(uint64_t bits)
{
    double value;
    memcpy(&value, &bits, sizeof(value));
    return value;
}

void metric_register(struct metric *m)
{
    ASSERT(m->bucket_count <= METRIC_BUCKETS_MAX);
    ASSERT((m->kind == METRIC_HISTOGRAM) == (m->bucket_count > 0));
    pthread_mutex_lock(&registry_lock);
    for (struct metric *other = registry_first; other != NULL; other = other->next) {
        ASSERT(strcmp(other->name, m->name) != 0 || strcmp(other->labels, m->labels) != 0);
        ASSERT(strcmp(other->name, m->name) != 0 || other->kind == m->kind);
    }
    m->next = NULL;
    *registry_last = m;
    registry_last = &m->next;
    pthread_mutex_unlock(&registry_lock);
}

struct metric *metric_create(enum metric_kind kind, const char *name, const char *labels,
                             const char *help)
{
    struct metric *m = xcalloc(1, sizeof(*m));
    m->name = xstrdup(name);
    m->labels = xstrdup(labels);
    m->help = xstrdup(help);
    m->kind = kind;
    if (kind == METRIC_HISTOGRAM) {
        m->buckets = metric_seconds_buckets;
        m->bucket_count = METRIC_SECONDS_BUCKET_COUNT;
    }
    metric_register(m);
    return m;
}

const char *metric_label_value(const char *text, char *out, size_t size)
{
    size_t used = 0;
    for (const char *at = text; *at != '\0' && used + 3 <= size; at++) {
        if (*at == '"' || *at == '\\' || *at == '\n') {
            out[used++] = '\\';
        }
        out[used++] = *at == '\n' ? 'n' : *at;
    }
    out[used] = '\0';
    return out;
}

void metric_add(struct metric *m, double amount)
{
    uint64_t seen = atomic_load_explicit(&m->value, memory_order_relaxed);
    while (!atomic_compare_exchange_weak_explicit(&m->value, &seen,
                                                  bits_of(value_of(seen) + amount),
                                                  memory_order_relaxed, memory_order_relaxed)) {
    }
}

void metric_increment(struct metric *m)
{
    metric_add(m, 1);
}

void metric_set(struct metric *m, double value)
{
    ASSERT(m->kind == METRIC_GAUGE);
    atomic_store_explicit(&m->value, bits_of(value), memory_order_relaxed);
}

void metric_observe(struct metric *m, double value)
{
    ASSERT(m->kind == METRIC_HISTOGRAM);
    int bucket = 0;
    while (bucket < m->bucket_count && value > m->buckets[bucket]) {
        bucket++;
    }
    atomic_fetch_add_explicit(&m->counts[bucket], 1, memory_order_relaxed);
    metric_add(m, value);
}

double metric_value(const struct metric *m)
{
    return value_of(atomic_load_explicit(&m->value, memory_order_relaxed));
}

/* ---- The text format ------------------------------------------------------------------------- */

/* The shortest form that reads back as the same number. */
static const char *format_value(double value, char text[40])
{
    if (isinf(value)) {
        return value > 0 ? "+Inf" : "-Inf";
    }
    if (isnan(value)) {
        return "NaN";
    }
    for (int precision = 6; precision <= 17; precision++) {
        snprintf(text, 40, "%.*g", precision, value);
        if (bits_of(strtod(text, NULL)) == bits_of(value)) {
            break;
        }
    }
    return text;
}

static void render_sample(struct buf *out, const char *name, const char *labels, double value)
{
    char text[40];
    bool has_labels = labels[0] != '\0';
    buf_printf(out, NULL, "%s%s%s%s %s\n", name, has_labels ? "{" : "", labels,
               has_labels ? "}" : "", format_value(value, text));
}

static void render_histogram(struct buf *out, const struct metric *m)
{
    char name[256], text[40];
    const char *comma = m->labels[0] != '\0' ? "," : "";
    uint64_t total = 0;
    for (int i = 0; i <= m->bucket_count; i++) {
        total += atomic_load_explicit(&m->counts[i], memory_order_relaxed);
        buf_printf(out, NULL, "%s_bucket{%s%sle=\"%s\"} %llu\n", m->name, m->labels, comma,
                   format_value(i < m->bucket_count ? m->buckets[i] : (double)INFINITY, text),
                   (unsigned long long)total);
    }
    snprintf(name, sizeof(name), "%s_sum", m->name);
    render_sample(out, name, m->labels, metric_value(m));
    snprintf(name, sizeof(name), "%s_count", m->name);
    render_sample(out, name, m->labels, (double)total);
}

static void render_header(struct buf *out, const char *name, const char *kind, const char *help)
{
    buf_printf(out, NULL, "# HELP %s ", name);
    for (const char *at = help; *at != '\0'; at++) {
        const char *escaped = *at == '\n' ? "\\n" : *at == '\\' ? "\\\\" : NULL;
        buf_append(out, escaped != NULL ? escaped : at, escaped != NULL ? 2 : 1, NULL);
    }
    buf_printf(out, NULL, "\n# TYPE %s %s\n", name, kind);
}

static void render_value(struct buf *out, const char *name, const char *kind, const char *help,
                         double value)
{
    render_header(out, name, kind, help);
    render_sample(out, name, "", value);
}

/* The first line of a file of proc(5); "" when it cannot be read. */
static void read_line(const char *path, char *line, int size)
{
    FILE *file = fopen(path, "re");
    if (file == NULL || fgets(line, size, file) == NULL) {
        line[0] = '\0';
    }
    if (file != NULL) {
        fclose(file);
    }
}

/* The number that follows `skip` spaces in text; 0 when there is none. */
static double number_after(const char *text, int skip)
{
    for (; skip > 0 && text != NULL; skip--) {
        text = strchr(text, ' ');
        text = text != NULL ? text + 1 : NULL;
    }
    return text != NULL ? (double)strtoull(text, NULL, 10) : 0;
}

static double read_boot_seconds(void)
{
    char line[1024];
    double seconds = 0;
    FILE *file = fopen("/proc/stat", "re");
    while (file != NULL && fgets(line, sizeof(line), file) != NULL) {
        if (strncmp(line, "btime ", 6) == 0) {
            seconds = number_after(line, 1);
        }
    }
    if (file != NULL) {
        fclose(file);
    }
    return seconds;
}

/* Seconds since the epoch when the process started, and CPU seconds used. */
static void read_process_times(double *start_seconds, double *cpu_seconds)
{
    char line[1024];
    read_line("/proc/self/stat", line, sizeof(line));
    /* The second field is the program's name in brackets and may hold anything; counted from its
     * end, user time, system time and start time are the 12th, 13th and 20th field. */
    const char *rest = strrchr(line, ')');
    double ticks = (double)sysconf(_SC_CLK_TCK);
    *cpu_seconds = (number_after(rest, 12) + number_after(rest, 13)) / ticks;
    *start_seconds = read_boot_seconds() + number_after(rest, 20) / ticks;
}

static double read_resident_bytes(void)
{
    char line[256];
    read_line("/proc/self/statm", line, sizeof(line));
    return number_after(line, 1) * (double)sysconf(_SC_PAGESIZE);
}

static double count_open_fds(void)
{
    int count = 0;
    DIR *folder = opendir("/proc/self/fd");
    while (folder != NULL && readdir(folder) != NULL) {
        count++;
    }
    if (folder != NULL) {
        closedir(folder);
    }
    /* ".", ".." and the folder's own descriptor are not counted. */
    return count > 3 ? count - 3 : 0;
}

static void render_process(struct buf *out)
{
    double start_seconds = 0, cpu_seconds = 0;
    read_process_times(&start_seconds, &cpu_seconds);
    render_value(out, "process_resident_memory_bytes", "gauge", "Resident memory.",
                 read_resident_bytes());
    render_value(out, "process_cpu_seconds_total", "counter", "User and system CPU time.",
                 cpu_seconds);
    render_value(out, "process_open_fds", "gauge", "Open file descriptors.", count_open_fds());
    render_value(out, "process_start_time_seconds", "gauge", "Start of the process, Unix time.",
                 start_seconds);
}

static bool is_first_of_name(const struct metric *m)
{
    for (const struct metric *other = registry_first; other != m; other = other->next) {
        if (strcmp(other->name, m->name) == 0) {
            return false;
        }
    }
    return true;
}

/* The format wants all label sets of a name together, under one header. */
static void render_name(struct buf *out, const struct metric *first)
{
    static const char *const kinds[] = {"counter", "gauge", "histogram"};
    render_header(out, first->name, kinds[first->kind], first->help);
    for (const struct metric *m = first; m != NULL; m = m->next) {
        if (strcmp(m->name, first->name) != 0) {
            continue;
        }
        if (m->kind == METRIC_HISTOGRAM) {
            render_histogram(out, m);
        } else {
            render_sample(out, m->name, m->labels, metric_value(m));
        }
    }
}

void metrics_render(struct buf *out)
{
    pthread_mutex_lock(&registry_lock);
    for (const struct metric *m = registry_first; m != NULL; m = m->next) {
        if (is_first_of_name(m)) {
            render_name(out, m);
        }
    }
    pthread_mutex_unlock(&registry_lock);
    render_process(out);
}
