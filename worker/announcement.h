/* One announcement of a worker: what it says, as bytes, and whether a new one says something that
 * routers act on. Pure. */
#ifndef WORKER_ANNOUNCEMENT_H
#define WORKER_ANNOUNCEMENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "worker/drawer.h"

#define ANNOUNCEMENT_LANES_MAX 1024

struct announcement {
    const char *worker_id, *pool;
    const struct drawer_model *model;
    int32_t lanes[ANNOUNCEMENT_LANES_MAX];
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

/* Moving average over the last pictures: from 0 it is the first value. */
double announcement_average(double average, double seconds);

#endif
