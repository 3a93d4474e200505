/* Who may be given a job now: a pool's unfinished jobs by lane, and the choice of the next lane.
 *
 * A worker's credit is the number of unfinished jobs that it may hold, summed over its lanes. The
 * router counts a job when it sends it to a lane and when it reads that another router did; it
 * stops counting when it reads that the job was rendered or ended. What a router missed (jobs sent
 * before it started; records that a worker skipped without a word) is put right by
 * credit_reconcile from Kafka's own offsets, so the count is right however often routers come and
 * go.
 *
 * Pure and single-threaded; time is passed in (milliseconds of any one clock). */
#ifndef ROUTER_CREDIT_H
#define ROUTER_CREDIT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CREDIT_LANES_MAX 1024
/* A worker's RENDERED is read before its commit is visible, and a record may be visible after its
 * DISPATCHED: differences younger than this are not believed. */
#define CREDIT_SETTLE_MS 1500

struct credit;

/* per_worker: CRAFTERSE_LANE_CREDIT. batch_floor: one in this many is a batch job. */
struct credit *credit_create(int per_worker, int batch_floor);
void credit_destroy(struct credit *c); /* accepts NULL */

/* The job is (again) in this lane. */
void credit_take(struct credit *c, const char *job_id, int32_t lane, uint64_t now_ms);
/* It was rendered or ended. lane: where its worker says it ran, -1 = unknown; used for jobs that
 * this router never counted. */
void credit_release(struct credit *c, const char *job_id, int32_t lane, uint64_t now_ms);

/* records[lane] = written and not committed, as seen by a query begun at asked_ms. */
void credit_reconcile(struct credit *c, const int64_t *records, size_t count, uint64_t asked_ms,
                      uint64_t now_ms);

/* A live worker's lanes, as it announced them. */
struct credit_worker {
    const int32_t *lanes;
    size_t lane_count;
};
/* The lane for the next job: of the worker with the fewest unfinished jobs, its least filled lane,
 * of equals the highest. False when every worker's credit is used up. */
bool credit_pick(struct credit *c, const struct credit_worker *workers, size_t count,
                 int32_t *lane);

/* Interactive goes before batch, but while both wait one job in batch_floor is a batch job. */
bool credit_batch_is_due(const struct credit *c);
void credit_count_class(struct credit *c, bool batch);

int64_t credit_in_lane(const struct credit *c, int32_t lane);
int64_t credit_total(const struct credit *c);

#endif
