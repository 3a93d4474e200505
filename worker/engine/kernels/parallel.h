/* The engine's threads: a pool that runs numbered pieces of one kernel at a time.
 *
 * This pool owns all the parallelism there is: OpenBLAS runs single-threaded inside a piece (see
 * gemm.c), so the two never fight for cores, and a piece can prepare its data, multiply, and finish
 * while everything is in its core's cache. The calling thread works too. Pieces are handed out in
 * order by an atomic counter, so a slow core takes fewer of them.
 *
 * Idle threads spin for some microseconds, as the next kernel usually follows at once, and then
 * sleep.
 */
#ifndef WORKER_ENGINE_KERNELS_PARALLEL_H
#define WORKER_ENGINE_KERNELS_PARALLEL_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/error.h"

struct parallel;

/* One piece. thread is in [0, parallel_threads): for workspace of its own. */
typedef void (*parallel_piece)(void *argument, int64_t piece, int thread);

/* threads counts the caller; 0 = parallel_default_threads(). STATUS_IO when the system refuses a
 * thread. */
int parallel_create(struct parallel **out, int threads, struct error *err) MUST_CHECK;
void parallel_destroy(struct parallel *pool); /* accepts NULL */

/* A pool that counts as so many threads but has none and runs nothing: kernels return at once, and
 * a model's forward function allocates what it would, in a counting arena, without the work. Any
 * number of threads may use one at a time. Free with parallel_destroy. */
struct parallel *parallel_create_idle(int threads);
bool parallel_is_idle(const struct parallel *pool);

/* The cgroup's CPU quota, rounded up; without one, the processors this process may use. */
int parallel_default_threads(void);

/* 1 for a NULL pool, which is allowed everywhere and runs everything on the caller. */
int parallel_threads(const struct parallel *pool);

/* Run piece 0 .. pieces-1 and return when all are done. Not from inside a piece. */
void parallel_run(struct parallel *pool, int64_t pieces, parallel_piece run, void *argument);

/* How many pieces to cut count units into, when work below grain units is not worth a thread: at
 * most four a thread, so that uneven cores even out. */
int64_t parallel_pieces(const struct parallel *pool, int64_t count, int64_t grain);

/* The range [*begin, *end) of piece i when count units are cut into equal pieces. */
void parallel_range(int64_t count, int64_t pieces, int64_t i, int64_t *begin, int64_t *end);

#endif
