/* How long one hop of the pipeline takes: producer_send on one thread to consumer_take on another,
 * at a steady rate, for several fetch waits. Usage:
 *
 *   bench_kafka_hops [BROKERS] [WAIT_MS ...]
 *
 * Without BROKERS (or with "-") an embedded broker runs in a process of its own. Prints one line a
 * case: mean, p50 and p99 in ms, and the CPU that client and broker used. */
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/panic.h"
#include "common/bus/consumer.h"
#include "common/bus/embedded_broker.h"
#include "common/bus/kafka_client.h"
#include "common/bus/producer.h"

#define SAMPLES_MAX 1000
#define SECONDS 10

struct bench {
    struct kafka_config kafka;
    char topic[64];
    atomic_bool stop, warm;
    atomic_int count;
    double latencies_ms[SAMPLES_MAX];
};

static void *consume(void *user)
{
    struct bench *bench = user;
    struct consumer *c = NULL;
    struct error err = {0};
    const char *topic = bench->topic;
    const struct consumer_options options = {.group = topic, .topics = &topic, .topic_count = 1};
    if (consumer_create(&c, &bench->kafka, &options, &err) < 0) {
        PANIC("%s", err.text);
    }
    while (!atomic_load(&bench->stop)) {
        struct record r;
        while (consumer_take(c, NULL, 0, &r)) {
            double sent = 0;
            memcpy(&sent, r.payload, sizeof(sent));
            int at = atomic_load(&bench->count);
            if (sent > 0 && at < SAMPLES_MAX) {
                bench->latencies_ms[at] = (clock_monotonic_seconds() - sent) * 1000;
                atomic_store(&bench->count, at + 1);
            }
            atomic_store(&bench->warm, true);
            consumer_done(c, &r, &err);
        }
        consumer_poll(c, 1000);
    }
    consumer_destroy(c, 5000);
    return NULL;
}

static int compare(const void *a, const void *b)
{
    double left = *(const double *)a, right = *(const double *)b;
    return left < right ? -1 : left > right;
}

static double cpu_seconds(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
           (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) * 1e-6;
}

/* CPU seconds of another process: proc(5), fields 14 and 15. */
static double cpu_seconds_of(pid_t pid)
{
    char path[64], line[1024] = "";
    snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
    FILE *file = pid > 0 ? fopen(path, "re") : NULL;
    if (file == NULL || fgets(line, sizeof(line), file) == NULL) {
        line[0] = '\0';
    }
    if (file != NULL) {
        fclose(file);
    }
    char *at = strrchr(line, ')');
    for (int i = 0; i < 12 && at != NULL; i++) {
        at = strchr(at + 1, ' ');
    }
    char *end = NULL;
    double ticks = at != NULL ? (double)strtoull(at, &end, 10) : 0;
    ticks += end != NULL ? (double)strtoull(end, NULL, 10) : 0;
    return ticks / (double)sysconf(_SC_CLK_TCK);
}

static void send_now(struct bench *bench, struct producer *p, double stamp)
{
    struct error err = {0};
    const struct producer_record record = {.topic = bench->topic,
                                           .partition = PRODUCER_PARTITION_BY_KEY,
                                           .key = NULL,
                                           .payload = &stamp,
                                           .size = sizeof(stamp)};
    if (producer_send(p, &record, NULL, NULL, &err) < 0) {
        PANIC("%s", err.text);
    }
    producer_poll(p, 0);
}

static void measure(struct bench *bench, struct producer *p, int rate, pid_t broker)
{
    double client_before = cpu_seconds(), broker_before = cpu_seconds_of(broker);
    double begin = clock_monotonic_seconds();
    atomic_store(&bench->count, 0);
    int total = rate * SECONDS < SAMPLES_MAX ? rate * SECONDS : SAMPLES_MAX;
    for (int i = 0; i < total; i++) {
        send_now(bench, p, clock_monotonic_seconds());
        clock_sleep_ms((unsigned)(1000 / rate));
    }
    clock_sleep_ms(1000);
    double seconds = clock_monotonic_seconds() - begin;
    int count = atomic_load(&bench->count);
    double sum = 0;
    qsort(bench->latencies_ms, (size_t)count, sizeof(double), compare);
    for (int i = 0; i < count; i++) {
        sum += bench->latencies_ms[i];
    }
    printf("fetch_wait=%d ms rate=%d/s received=%d/%d mean=%.2f p50=%.2f p99=%.2f max=%.2f ms "
           "client_cpu=%.1f%% broker_cpu=%.1f%%\n",
           kafka_config_fetch_wait_ms(&bench->kafka), rate, count, total,
           count > 0 ? sum / count : 0, count > 0 ? bench->latencies_ms[count / 2] : 0,
           count > 0 ? bench->latencies_ms[count * 99 / 100] : 0,
           count > 0 ? bench->latencies_ms[count - 1] : 0,
           100 * (cpu_seconds() - client_before) / seconds,
           100 * (cpu_seconds_of(broker) - broker_before) / seconds);
    fflush(stdout);
}

/* Idle, then at two rates, with a fresh consumer. */
static void run_case(struct bench *bench, pid_t broker)
{
    pthread_t thread;
    struct producer *p = NULL;
    struct error err = {0};
    if (producer_create(&p, &bench->kafka, &err) < 0) {
        PANIC("%s", err.text);
    }
    atomic_store(&bench->stop, false);
    atomic_store(&bench->warm, false);
    pthread_create(&thread, NULL, consume, bench);
    while (!atomic_load(&bench->warm)) {
        send_now(bench, p, 0);
        clock_sleep_ms(500);
    }
    clock_sleep_ms(2000);
    double client_before = cpu_seconds(), broker_before = cpu_seconds_of(broker);
    clock_sleep_ms(5000);
    printf("fetch_wait=%d ms idle client_cpu=%.1f%% broker_cpu=%.1f%%\n",
           kafka_config_fetch_wait_ms(&bench->kafka), 20 * (cpu_seconds() - client_before),
           20 * (cpu_seconds_of(broker) - broker_before));
    measure(bench, p, 10, broker);
    measure(bench, p, 50, broker);
    atomic_store(&bench->stop, true);
    pthread_join(thread, NULL);
    producer_destroy(p, 5000);
}

/* An embedded broker in a child that dies with this process; its address goes to text. */
static pid_t start_broker(const char *topic, char text[64])
{
    int pipe_fds[2];
    if (pipe(pipe_fds) < 0) {
        PANIC("no pipe");
    }
    pid_t pid = fork();
    if (pid == 0) {
        struct embedded_broker *broker = NULL;
        struct error err = {0};
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (embedded_broker_start(&broker, &err) < 0 ||
            embedded_broker_add_topic(broker, topic, 4, &err) < 0) {
            PANIC("%s", err.text);
        }
        char address[64] = "";
        snprintf(address, sizeof(address), "%s", embedded_broker_address(broker));
        if (write(pipe_fds[1], address, sizeof(address)) != sizeof(address)) {
            PANIC("cannot tell the address");
        }
        for (;;) {
            pause();
        }
    }
    if (read(pipe_fds[0], text, 64) != 64) {
        PANIC("the broker did not start");
    }
    return pid;
}

int main(int argc, char **argv)
{
    static struct bench bench = {.topic = "bench.hops"};
    char address[64];
    const char *brokers = argc > 1 ? argv[1] : "-";
    bool embedded = strcmp(brokers, "-") == 0;
    pid_t broker = embedded ? start_broker(bench.topic, address) : 0;
    bench.kafka = (struct kafka_config){.brokers = embedded ? address : brokers,
                                        .topic_prefix = "",
                                        .security_protocol = "plaintext",
                                        .ssl_ca_location = "",
                                        .assignor = "cooperative-sticky",
                                        .extra = getenv("EXTRA") != NULL ? getenv("EXTRA") : "",
                                        .embedded = embedded};
    log_init("bench", "bench", LOG_WARN);
    for (int i = 2; i < argc || (argc <= 2 && i == 2); i++) {
        bench.kafka.fetch_wait_ms = argc > 2 ? strtoll(argv[i], NULL, 10) : 0;
        run_case(&bench, broker);
    }
    if (broker > 0) {
        kill(broker, SIGKILL);
        waitpid(broker, NULL, 0);
    }
    return 0;
}
