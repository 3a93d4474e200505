#include "worker/progress.h"

#include <string.h>

void progress_init(struct progress *p)
{
    memset(p, 0, sizeof(*p));
}

bool progress_is_due(struct progress *p, uint32_t image, enum drawer_stage stage, int step,
                     int steps, uint64_t now_ms)
{
    bool changed = !p->any || p->image != image || p->stage != stage;
    if (!changed && step < steps && now_ms - p->sent_ms < PROGRESS_INTERVAL_MS) {
        return false;
    }
    p->any = true;
    p->image = image;
    p->stage = stage;
    p->sent_ms = now_ms;
    return true;
}

const char *progress_stage_name(enum drawer_stage stage)
{
    switch (stage) {
    case DRAWER_TEXT:
        return "text";
    case DRAWER_DENOISE:
        return "denoise";
    case DRAWER_DECODE:
        return "decode";
    }
    return "";
}
