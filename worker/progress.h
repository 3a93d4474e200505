/* Which steps are worth a message: at most one in PROGRESS_INTERVAL_MS, but the first and the last
 * of every stage of a picture always. Pure. */
#ifndef WORKER_PROGRESS_H
#define WORKER_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

#include "worker/drawer.h"

#define PROGRESS_INTERVAL_MS 50

struct progress {
    uint64_t sent_ms;
    uint32_t image;
    enum drawer_stage stage;
    bool any;
};

void progress_init(struct progress *p);
/* Whether this step is to be told; when it is, that is remembered. now_ms: monotonic. */
bool progress_is_due(struct progress *p, uint32_t image, enum drawer_stage stage, int step,
                     int steps, uint64_t now_ms);
/* "text", "denoise", "decode" */
const char *progress_stage_name(enum drawer_stage stage);

#endif
