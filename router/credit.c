/* Two numbers a lane: jobs known by id, and `unknown`, how many more Kafka says are there. The
 * known ones are exact and immediate; unknown changes only by reconciliation and when a worker
 * reports the end of a job that is not in the table.
 *
 * A worker that has just finished a job has not yet committed it, so Kafka counts one more than
 * the table for a moment. Without care each reconciliation would hold that credit back until the
 * next one, half a second later. So every lane remembers when jobs were released, and a surplus is
 * unknown work only as far as recent releases do not explain it. */
#include "router/credit.h"

#include <string.h>

#include "common/base/panic.h"

#define RELEASES_MAX 32

struct lane {
    int64_t known, unknown;
    uint64_t released_ms[RELEASES_MAX]; /* ring: the latest releases */
    size_t release_next;
};

struct credit_job {
    char *job_id; /* owned */
    int32_t lane;
    uint64_t taken_ms;
};

struct credit {
    int per_worker, batch_floor;
    int since_batch; /* interactive jobs since the last batch job */
    size_t next_worker;
    struct lane lanes[CREDIT_LANES_MAX];
    struct credit_job *jobs; /* in the order they were taken */
    size_t job_count, job_capacity;
};

struct credit *credit_create(int per_worker, int batch_floor)
{
    ASSERT(per_worker > 0 && batch_floor > 0);
    struct credit *c = xcalloc(1, sizeof(*c));
    c->per_worker = per_worker;
    c->batch_floor = batch_floor;
    return c;
}

void credit_destroy(struct credit *c)
{
    if (c == NULL) {
        return;
    }
    for (size_t i = 0; i < c->job_count; i++) {
        xfree(c->jobs[i].job_id);
    }
    xfree(c->jobs);
    xfree(c);
}

static bool lane_is_valid(int32_t lane)
{
    return lane >= 0 && lane < CREDIT_LANES_MAX;
}

static size_t find_job(const struct credit *c, const char *job_id)
{
    size_t i = 0;
    while (i < c->job_count && strcmp(c->jobs[i].job_id, job_id) != 0) {
        i++;
    }
    return i;
}

static void remove_job(struct credit *c, size_t index)
{
    c->lanes[c->jobs[index].lane].known--;
    xfree(c->jobs[index].job_id);
    c->job_count--;
    memmove(&c->jobs[index], &c->jobs[index + 1], (c->job_count - index) * sizeof(*c->jobs));
}

void credit_take(struct credit *c, const char *job_id, int32_t lane, uint64_t now_ms)
{
    if (!lane_is_valid(lane)) {
        return;
    }
    size_t index = find_job(c, job_id);
    if (index < c->job_count) {
        if (c->jobs[index].lane == lane) {
            return;
        }
        remove_job(c, index);
    }
    if (c->job_count == c->job_capacity) {
        c->job_capacity = c->job_capacity > 0 ? c->job_capacity * 2 : 64;
        c->jobs = xrealloc(c->jobs, c->job_capacity * sizeof(*c->jobs));
    }
    c->jobs[c->job_count++] = (struct credit_job){xstrdup(job_id), lane, now_ms};
    c->lanes[lane].known++;
}

static void note_release(struct lane *lane, uint64_t now_ms)
{
    lane->released_ms[lane->release_next] = now_ms;
    lane->release_next = (lane->release_next + 1) % RELEASES_MAX;
}

void credit_release(struct credit *c, const char *job_id, int32_t lane, uint64_t now_ms)
{
    size_t index = find_job(c, job_id);
    if (index < c->job_count) {
        note_release(&c->lanes[c->jobs[index].lane], now_ms);
        remove_job(c, index);
    } else if (lane_is_valid(lane) && c->lanes[lane].unknown > 0) {
        note_release(&c->lanes[lane], now_ms);
        c->lanes[lane].unknown--;
    }
}

static int64_t recent_releases(const struct lane *lane, uint64_t now_ms)
{
    int64_t recent = 0;
    for (size_t i = 0; i < RELEASES_MAX; i++) {
        recent += lane->released_ms[i] > 0 && lane->released_ms[i] + CREDIT_SETTLE_MS > now_ms;
    }
    return recent;
}

/* Kafka has fewer records in the lane than the table has old jobs: the oldest are over. */
static void forget_surplus(struct credit *c, int32_t lane, int64_t records, uint64_t asked_ms)
{
    int64_t old = 0;
    for (size_t i = 0; i < c->job_count; i++) {
        old += c->jobs[i].lane == lane && c->jobs[i].taken_ms + CREDIT_SETTLE_MS < asked_ms;
    }
    for (size_t i = 0; i < c->job_count && old > records;) {
        if (c->jobs[i].lane == lane) {
            remove_job(c, i);
            old--;
        } else {
            i++;
        }
    }
}

void credit_reconcile(struct credit *c, const int64_t *records, size_t count, uint64_t asked_ms,
                      uint64_t now_ms)
{
    for (size_t i = 0; i < count && i < CREDIT_LANES_MAX; i++) {
        struct lane *lane = &c->lanes[i];
        forget_surplus(c, (int32_t)i, records[i], asked_ms);
        int64_t unknown = records[i] - lane->known - recent_releases(lane, now_ms);
        lane->unknown = unknown > 0 ? unknown : 0;
    }
}

int64_t credit_in_lane(const struct credit *c, int32_t lane)
{
    return lane_is_valid(lane) ? c->lanes[lane].known + c->lanes[lane].unknown : 0;
}

int64_t credit_total(const struct credit *c)
{
    int64_t total = 0;
    for (int32_t i = 0; i < CREDIT_LANES_MAX; i++) {
        total += credit_in_lane(c, i);
    }
    return total;
}

static int64_t in_worker(const struct credit *c, const struct credit_worker *w)
{
    int64_t jobs = 0;
    for (size_t i = 0; i < w->lane_count; i++) {
        jobs += credit_in_lane(c, w->lanes[i]);
    }
    return jobs;
}

/* The less filled; of equals the higher, because Kafka's cooperative assignor takes a member's
 * lowest partitions first when another joins, and a lane that moves starts its job over. */
static bool is_better_lane(const struct credit *c, int32_t lane, int32_t than)
{
    int64_t jobs = credit_in_lane(c, lane), than_jobs = credit_in_lane(c, than);
    return jobs < than_jobs || (jobs == than_jobs && lane > than);
}

bool credit_pick(struct credit *c, const struct credit_worker *workers, size_t count, int32_t *lane)
{
    const struct credit_worker *best = NULL;
    int64_t best_jobs = c->per_worker;
    size_t best_index = 0;
    for (size_t i = 0; i < count; i++) {
        size_t index = (c->next_worker + i) % count; /* equals take turns */
        int64_t jobs = in_worker(c, &workers[index]);
        if (workers[index].lane_count > 0 && jobs < best_jobs) {
            best = &workers[index];
            best_jobs = jobs;
            best_index = index;
        }
    }
    if (best == NULL) {
        return false;
    }
    c->next_worker = best_index + 1;
    *lane = best->lanes[0];
    for (size_t i = 1; i < best->lane_count; i++) {
        if (is_better_lane(c, best->lanes[i], *lane)) {
            *lane = best->lanes[i];
        }
    }
    return lane_is_valid(*lane);
}

bool credit_batch_is_due(const struct credit *c)
{
    return c->since_batch + 1 >= c->batch_floor;
}

void credit_count_class(struct credit *c, bool batch)
{
    if (batch) {
        c->since_batch = 0;
    } else if (c->since_batch < c->batch_floor) {
        c->since_batch++;
    }
}
