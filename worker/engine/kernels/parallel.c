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
#define SPINS_MAX 2000 /* some tens of microseconds of pause instructions */
#define CACHE_LINE 64

/* A ticket is the call's number, its count of pieces and the next piece to hand out, in one atomic:
 * a thread that comes late, when a call is done or another has begun, can tell. */
#define TICKET_BITS 24
#define PIECES_MAX ((int64_t)1 << (TICKET_BITS - 1)) /* the rest is room for late comers */
#define TICKET_MASK (((uint64_t)1 << TICKET_BITS) - 1)

/* A call is over when its pieces are done, not when every thread has looked at it: a thread that
 * the system keeps from running holds up only the piece it is in. While a piece is not done, run
 * and argument stay those of its call. */
struct parallel {
    _Atomic uint64_t ticket;
    char pad_ticket[CACHE_LINE];
    _Atomic int64_t done; /* pieces of the present call */
    char pad_done[CACHE_LINE];
    parallel_piece run;
    void *argument;
    int threads;
    bool idle;
    _Atomic bool stopping;
    int sleepers; /* threads waiting on wake */
    pthread_mutex_t lock;
    pthread_cond_t wake, finished;
    struct runner {
        struct parallel *pool;
        pthread_t thread;
        int index;
    } * runners;
};

static int64_t ticket_next(uint64_t ticket)
{
    return (int64_t)(ticket & TICKET_MASK);
}

static int64_t ticket_pieces(uint64_t ticket)
{
    return (int64_t)(ticket >> TICKET_BITS & TICKET_MASK);
}

static bool has_piece(uint64_t ticket)
{
    return ticket_next(ticket) < ticket_pieces(ticket);
}

static void spin_pause(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
}

/* Run pieces of the present call until none is left to hand out. */
static void work(struct parallel *pool, int thread)
{
    while (has_piece(atomic_load(&pool->ticket))) {
        uint64_t ticket = atomic_fetch_add(&pool->ticket, 1);
        if (!has_piece(ticket)) {
            return;
        }
        pool->run(pool->argument, ticket_next(ticket), thread);
        if (atomic_fetch_add(&pool->done, 1) + 1 == ticket_pieces(ticket)) {
            pthread_mutex_lock(&pool->lock);
            pthread_cond_signal(&pool->finished);
            pthread_mutex_unlock(&pool->lock);
        }
    }
}

static bool has_work(struct parallel *pool)
{
    return has_piece(atomic_load(&pool->ticket)) || atomic_load(&pool->stopping);
}

/* Wait for a piece or the end: spin first, then sleep. */
static void await_work(struct parallel *pool)
{
    for (int i = 0; i < SPINS_MAX; i++) {
        if (has_work(pool)) {
            return;
        }
        spin_pause();
    }
    pthread_mutex_lock(&pool->lock);
    pool->sleepers++;
    while (!has_work(pool)) {
        pthread_cond_wait(&pool->wake, &pool->lock);
    }
    pool->sleepers--;
    pthread_mutex_unlock(&pool->lock);
}

static void *runner_main(void *argument)
{
    struct runner *runner = argument;
    while (!atomic_load(&runner->pool->stopping)) {
        await_work(runner->pool);
        work(runner->pool, runner->index);
    }
    return NULL;
}

static void wake_sleepers(struct parallel *pool)
{
    pthread_mutex_lock(&pool->lock);
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
    pthread_cond_init(&pool->finished, NULL);
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

struct parallel *parallel_create_idle(int threads)
{
    struct parallel *pool = xcalloc(1, sizeof(*pool));
    pool->threads = threads;
    pool->idle = true;
    return pool;
}

bool parallel_is_idle(const struct parallel *pool)
{
    return pool != NULL && pool->idle;
}

void parallel_destroy(struct parallel *pool)
{
    if (pool == NULL) {
        return;
    }
    if (pool->idle) {
        xfree(pool);
        return;
    }
    atomic_store(&pool->stopping, true);
    wake_sleepers(pool);
    for (int i = 1; i < pool->threads; i++) {
        pthread_join(pool->runners[i].thread, NULL);
    }
    pthread_mutex_destroy(&pool->lock);
    pthread_cond_destroy(&pool->wake);
    pthread_cond_destroy(&pool->finished);
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
    if (parallel_is_idle(pool)) {
        return;
    }
    if (pool == NULL || pool->threads == 1 || pieces <= 1) {
        for (int64_t piece = 0; piece < pieces; piece++) {
            run(argument, piece, 0);
        }
        return;
    }
    ASSERT(pieces < PIECES_MAX);
    pool->run = run;
    pool->argument = argument;
    atomic_store(&pool->done, 0);
    uint64_t number = atomic_load(&pool->ticket) >> 2 * TICKET_BITS;
    atomic_store(&pool->ticket, (number + 1) << 2 * TICKET_BITS | (uint64_t)pieces << TICKET_BITS);
    wake_sleepers(pool);
    work(pool, 0);
    for (int i = 0; i < SPINS_MAX; i++) {
        if (atomic_load(&pool->done) == pieces) {
            return;
        }
        spin_pause();
    }
    pthread_mutex_lock(&pool->lock);
    while (atomic_load(&pool->done) < pieces) {
        pthread_cond_wait(&pool->finished, &pool->lock);
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
