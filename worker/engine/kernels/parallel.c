#include "worker/engine/kernels/parallel.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/base/panic.h"

#define PARALLEL_THREADS_MAX 256
#define SPINS_MAX 4000 /* about 50 microseconds of pause instructions */

#define CACHE_LINE 64

/* A kernel call is one generation. The three counters share no cache line with each other or the
 * rest, as every thread hammers them. */
struct parallel {
    _Atomic uint64_t generation;
    char pad_generation[CACHE_LINE];
    _Atomic int64_t next_piece;
    char pad_piece[CACHE_LINE];
    _Atomic int working; /* pool threads still inside this generation */
    char pad_working[CACHE_LINE];
    int64_t pieces;
    parallel_piece run;
    void *argument;
    int threads;
    bool stopping;
    int sleepers; /* threads waiting on wake */
    pthread_mutex_t lock;
    pthread_cond_t wake, done;
    struct runner {
        struct parallel *pool;
        pthread_t thread;
        int index;
    } * runners;
};

static void spin_pause(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
}

static void work(struct parallel *pool, int thread)
{
    for (;;) {
        int64_t piece = atomic_fetch_add(&pool->next_piece, 1);
        if (piece >= pool->pieces) {
            return;
        }
        pool->run(pool->argument, piece, thread);
    }
}

/* Wait until the generation is no longer seen: spin first, then sleep. */
static uint64_t await_generation(struct parallel *pool, uint64_t seen)
{
    for (int i = 0; i < SPINS_MAX; i++) {
        uint64_t generation = atomic_load(&pool->generation);
        if (generation != seen) {
            return generation;
        }
        spin_pause();
    }
    pthread_mutex_lock(&pool->lock);
    pool->sleepers++;
    while (atomic_load(&pool->generation) == seen) {
        pthread_cond_wait(&pool->wake, &pool->lock);
    }
    pool->sleepers--;
    pthread_mutex_unlock(&pool->lock);
    return atomic_load(&pool->generation);
}

static void *runner_main(void *argument)
{
    struct runner *runner = argument;
    struct parallel *pool = runner->pool;
    uint64_t seen = 0;
    for (;;) {
        seen = await_generation(pool, seen);
        if (pool->stopping) {
            return NULL;
        }
        work(pool, runner->index);
        if (atomic_fetch_sub(&pool->working, 1) == 1) {
            pthread_mutex_lock(&pool->lock);
            pthread_cond_signal(&pool->done);
            pthread_mutex_unlock(&pool->lock);
        }
    }
}

static void next_generation(struct parallel *pool)
{
    pthread_mutex_lock(&pool->lock);
    atomic_fetch_add(&pool->generation, 1);
    if (pool->sleepers > 0) {
        pthread_cond_broadcast(&pool->wake);
    }
    pthread_mutex_unlock(&pool->lock);
}

int parallel_create(struct parallel **out, int threads, struct error *err)
{
    *out = NULL;
    threads = threads > 0 ? threads : parallel_default_threads();
    threads = threads < PARALLEL_THREADS_MAX ? threads : PARALLEL_THREADS_MAX;
    struct parallel *pool = xcalloc(1, sizeof(*pool));
    pool->runners = xcalloc((size_t)threads, sizeof(*pool->runners));
    pool->threads = 1;
    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->wake, NULL);
    pthread_cond_init(&pool->done, NULL);
    for (int i = 1; i < threads; i++) {
        pool->runners[i] = (struct runner){.pool = pool, .index = i};
        int failed = pthread_create(&pool->runners[i].thread, NULL, runner_main, &pool->runners[i]);
        if (failed != 0) {
            parallel_destroy(pool);
            return ERROR(err, STATUS_IO, "cannot start thread %d of %d: %s", i + 1, threads,
                         strerror(failed));
        }
        pool->threads++;
    }
    *out = pool;
    return STATUS_OK;
}

void parallel_destroy(struct parallel *pool)
{
    if (pool == NULL) {
        return;
    }
    pool->stopping = true;
    next_generation(pool);
    for (int i = 1; i < pool->threads; i++) {
        pthread_join(pool->runners[i].thread, NULL);
    }
    pthread_mutex_destroy(&pool->lock);
    pthread_cond_destroy(&pool->wake);
    pthread_cond_destroy(&pool->done);
    xfree(pool->runners);
    xfree(pool);
}

/* cpu.max holds "QUOTA PERIOD" or "max PERIOD" (cgroup v2); the v1 files hold one number each. */
static double cgroup_quota(void)
{
    double quota = 0, period = 0;
    FILE *file = fopen("/sys/fs/cgroup/cpu.max", "re");
    if (file != NULL) {
        int fields = fscanf(file, "%lf %lf", &quota, &period);
        fclose(file);
        return fields == 2 && period > 0 ? quota / period : 0;
    }
    FILE *quota_file = fopen("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "re");
    FILE *period_file = fopen("/sys/fs/cgroup/cpu/cpu.cfs_period_us", "re");
    bool both = quota_file != NULL && period_file != NULL &&
                fscanf(quota_file, "%lf", &quota) == 1 && fscanf(period_file, "%lf", &period) == 1;
    if (quota_file != NULL) {
        fclose(quota_file);
    }
    if (period_file != NULL) {
        fclose(period_file);
    }
    return both && quota > 0 && period > 0 ? quota / period : 0;
}

int parallel_default_threads(void)
{
    cpu_set_t set;
    int processors = sched_getaffinity(0, sizeof(set), &set) == 0
                         ? CPU_COUNT(&set)
                         : (int)sysconf(_SC_NPROCESSORS_ONLN);
    double quota = cgroup_quota();
    if (quota > 0 && quota < processors) {
        processors = (int)quota + ((double)(int)quota < quota);
    }
    return processors > 0 ? processors : 1;
}

int parallel_threads(const struct parallel *pool)
{
    return pool != NULL ? pool->threads : 1;
}

void parallel_run(struct parallel *pool, int64_t pieces, parallel_piece run, void *argument)
{
    if (pool == NULL || pool->threads == 1 || pieces <= 1) {
        for (int64_t piece = 0; piece < pieces; piece++) {
            run(argument, piece, 0);
        }
        return;
    }
    pool->run = run;
    pool->argument = argument;
    pool->pieces = pieces;
    atomic_store(&pool->next_piece, 0);
    atomic_store(&pool->working, pool->threads - 1);
    next_generation(pool);
    work(pool, 0);
    for (int i = 0; i < SPINS_MAX; i++) {
        if (atomic_load(&pool->working) == 0) {
            return;
        }
        spin_pause();
    }
    pthread_mutex_lock(&pool->lock);
    while (atomic_load(&pool->working) > 0) {
        pthread_cond_wait(&pool->done, &pool->lock);
    }
    pthread_mutex_unlock(&pool->lock);
}

int64_t parallel_pieces(const struct parallel *pool, int64_t count, int64_t grain)
{
    int64_t pieces = count / (grain > 0 ? grain : 1);
    int64_t most = parallel_threads(pool) > 1 ? 4 * (int64_t)parallel_threads(pool) : 1;
    pieces = pieces < most ? pieces : most;
    return pieces > 1 ? pieces : 1;
}

void parallel_range(int64_t count, int64_t pieces, int64_t i, int64_t *begin, int64_t *end)
{
    *begin = count * i / pieces;
    *end = count * (i + 1) / pieces;
}
