/* The worker's word on `workers`: what it serves, its lanes and what it is doing. Sent every
 * ANNOUNCE_INTERVAL_MS and whenever something changed; a tombstone says goodbye.
 *
 * Thread rule: one thread. */
#ifndef WORKER_ANNOUNCER_H
#define WORKER_ANNOUNCER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/bus/producer.h"
#include "worker/drawer.h"

#define ANNOUNCE_INTERVAL_MS 5000
#define ANNOUNCE_LANES_MAX 1024

/* What is said. */
struct announcement {
    const char *worker_id, *pool;
    const struct drawer_model *model;
    int32_t lanes[ANNOUNCE_LANES_MAX];
    size_t lane_count;
    bool draining;
    char current_job_id[128]; /* "" = idle */
    uint64_t started_ms;      /* Unix time */
    double seconds_per_picture;
};

/* Packed WorkerAnnouncement, xfree. now_ms: Unix time. */
uint8_t *announcement_pack(const struct announcement *a, uint64_t now_ms, size_t *size);

/* True when what is to be said differs in a way that a router acts on: lanes, draining, model. */
bool announcement_differs(const struct announcement *a, const struct announcement *b);

struct announcer;

/* topic is copied; the producer is the caller's. */
struct announcer *announcer_create(struct producer *producer, const char *topic);
void announcer_destroy(struct announcer *a); /* accepts NULL */

/* Sends when it is time or when it differs from what was sent last. */
void announcer_run(struct announcer *a, const struct announcement *now);
/* Says goodbye, if anything was ever said. */
void announcer_leave(struct announcer *a, const char *worker_id);

/* Moving average over the last pictures: new_average(0, x) = x. */
double announcer_average(double average, double seconds);

#endif
