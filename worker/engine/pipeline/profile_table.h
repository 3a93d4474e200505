/* What a profile has recorded, as tables for people: see layers/profile.h and docs/SPEED.md. */
#ifndef WORKER_ENGINE_PIPELINE_PROFILE_TABLE_H
#define WORKER_ENGINE_PIPELINE_PROFILE_TABLE_H

#include "worker/engine/layers/profile.h"

/* The tables, beside the rate of cblas_sgemm of 2048 x 2048 x 2048 on so many threads, which is
 * measured now. xfree it. */
char *profile_table_text(const struct profile *profile, int threads);

#endif
