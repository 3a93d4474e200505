#include "worker/engine/pipeline/profile_table.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/base/buf.h"
#include "common/base/clock.h"
#include "common/base/panic.h"
#include "worker/engine/kernels/gemm.h"

#define SQUARE 2048
#define ROUNDS 3
#define TEXT_MAX ((size_t)1 << 20)
#define NAME_WIDTH 38

/* Of sgemm, in floating point operations a second. */
struct ceiling {
    double rate, cpu_rate; /* of the wall clock's seconds; of CPU seconds */
};

static double cpu_seconds(void)
{
    struct timespec time;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
    return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

static struct ceiling measure_ceiling(int threads)
{
    size_t count = (size_t)SQUARE * SQUARE;
    float *a = xcalloc(3 * count, sizeof(float)), *b = a + count, *c = b + count;
    for (size_t i = 0; i < count; i++) {
        a[i] = (float)(i % 13) - 6.0f;
        b[i] = (float)(i % 7) - 3.0f;
    }
    double flop = 2.0 * SQUARE * SQUARE * SQUARE;
    struct ceiling best = {.rate = 0};
    gemm_library_square(threads, SQUARE, a, b, c); /* its threads are started here */
    for (int i = 0; i < ROUNDS; i++) {
        double start = clock_monotonic_seconds(), cpu_start = cpu_seconds();
        gemm_library_square(threads, SQUARE, a, b, c);
        double rate = flop / (clock_monotonic_seconds() - start);
        double cpu_rate = flop / (cpu_seconds() - cpu_start);
        best.rate = rate > best.rate ? rate : best.rate;
        best.cpu_rate = cpu_rate > best.cpu_rate ? cpu_rate : best.cpu_rate;
    }
    xfree(a);
    return best;
}

static void print_header(struct buf *text, const char *what)
{
    buf_printf(text, NULL, "%-*s %7s %9s %9s %6s %9s %8s %8s\n", NAME_WIDTH, what, "calls",
               "seconds", "CPU s", "share", "GFLOP/s", "of sgemm", "by CPU");
}

static void print_row(struct buf *text, const char *name, const struct profile_time *time,
                      double whole, const struct ceiling *ceiling)
{
    buf_printf(text, NULL, "%-*s %7ld %9.3f %9.3f %5.1f%%", NAME_WIDTH, name, time->calls,
               time->seconds, time->cpu_seconds, 100 * time->seconds / whole);
    if (time->flop > 0 && time->seconds > 0 && time->cpu_seconds > 0) {
        buf_printf(text, NULL, " %9.1f %7.0f%% %7.0f%%", time->flop / time->seconds * 1e-9,
                   100 * time->flop / time->seconds / ceiling->rate,
                   100 * time->flop / time->cpu_seconds / ceiling->cpu_rate);
    }
    buf_printf(text, NULL, "\n");
}

static void add(struct profile_time *sum, const struct profile_time *time)
{
    sum->seconds += time->seconds;
    sum->cpu_seconds += time->cpu_seconds;
    sum->flop += time->flop;
    sum->calls += time->calls;
}

static void print_parts(struct buf *text, const struct profile *profile,
                        const struct ceiling *ceiling)
{
    int count;
    const struct profile_entry *entries = profile_entries(profile, &count);
    struct profile_time whole = {.calls = 0}, kinds[PROFILE_KINDS] = {{.calls = 0}};
    for (int i = 0; i < count; i++) {
        add(&whole, &entries[i].total);
        for (int kind = 0; kind < PROFILE_KINDS; kind++) {
            add(&kinds[kind], &entries[i].kinds[kind]);
        }
    }
    print_header(text, "part");
    for (int i = 0; i < count; i++) {
        print_row(text, entries[i].name, &entries[i].total, whole.seconds, ceiling);
    }
    print_row(text, "all", &whole, whole.seconds, ceiling);
    buf_printf(text, NULL, "\n");
    print_header(text, "kind");
    for (int kind = 0; kind < PROFILE_KINDS; kind++) {
        print_row(text, profile_kind_name((enum profile_kind)kind), &kinds[kind], whole.seconds,
                  ceiling);
    }
}

static int by_seconds(const void *a, const void *b)
{
    const struct profile_shape *first = a, *second = b;
    double difference = second->time.seconds - first->time.seconds;
    return (difference > 0) - (difference < 0);
}

static void print_shapes(struct buf *text, const struct profile *profile,
                         const struct ceiling *ceiling)
{
    int count;
    const struct profile_shape *shapes = profile_shapes(profile, &count);
    struct profile_shape *sorted = xcalloc((size_t)count + 1, sizeof(*sorted));
    double whole = 0;
    for (int i = 0; i < count; i++) {
        sorted[i] = shapes[i];
        whole += shapes[i].time.seconds;
    }
    qsort(sorted, (size_t)count, sizeof(*sorted), by_seconds);
    print_header(text, "shape");
    for (int i = 0; i < count; i++) {
        const struct profile_work *work = &sorted[i].work;
        char name[96], last[32] = "";
        if (work->sizes[2] > 0) {
            snprintf(last, sizeof(last), " x %lld", (long long)work->sizes[2]);
        }
        snprintf(name, sizeof(name), "%s %lld x %lld%s", profile_kind_name(work->kind),
                 (long long)work->sizes[0], (long long)work->sizes[1], last);
        print_row(text, name, &sorted[i].time, whole, ceiling);
    }
    xfree(sorted);
}

char *profile_table_text(const struct profile *profile, int threads)
{
    struct ceiling ceiling = measure_ceiling(threads);
    struct buf text;
    buf_init(&text, TEXT_MAX);
    buf_printf(&text, NULL,
               "%d threads; cblas_sgemm %d x %d x %d: %.1f GFLOP/s, %.1f a CPU second (%s)\n\n",
               threads, SQUARE, SQUARE, SQUARE, ceiling.rate * 1e-9, ceiling.cpu_rate * 1e-9,
               gemm_library());
    print_parts(&text, profile, &ceiling);
    buf_printf(&text, NULL, "\n");
    print_shapes(&text, profile, &ceiling);
    size_t size;
    char *taken = buf_take(&text, &size);
    buf_deinit(&text);
    return taken;
}
