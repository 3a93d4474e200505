/* The body of POST /v1/generations: checked field by field against the announced model, every
 * problem named at once, every default resolved. Pure: no I/O, no clock of its own. */
#ifndef GATEWAY_GENERATION_REQUEST_H
#define GATEWAY_GENERATION_REQUEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cjson/cJSON.h>

#include "common/base/error.h"
#include "gateway/model_table.h"
#include "gateway/problem.h"
#include "proto/job.pb-c.h"

/* Larger integers are not exact in every JSON reader, so the largest seed, n included, is 2^53-1.
 */
#define GENERATION_SEED_MAX 9007199254740991ULL
#define GENERATION_GUIDANCE_MAX 50
#define GENERATION_DEADLINE_S_MAX (7 * 24 * 3600)
/* devbroker loses larger messages (architecture.md, "One machine and many"). */
#define GENERATION_EMBEDDED_BYTES_MAX (1024 * 1024)

struct generation_limits {
    const struct model_table *models;
    const char *model_default; /* "" = the first announced */
    int64_t prompt_characters_max;
    int64_t pictures_max;
    bool embedded;
    uint64_t now_ms;    /* Unix time */
    uint64_t steady_ms; /* clock_steady_ms */
};

struct generation_request {
    Crafterse__V1__Generation generation; /* its strings are owned; seed is 0 unless has_seed */
    bool has_seed;
    Crafterse__V1__JobClass job_class;
    Crafterse__V1__CacheMode cache;
    uint64_t deadline_ms; /* Unix time; 0 = none */
    Crafterse__V1__OnDeadline on_deadline;
};

/* Fills *out from the object, or *problems (with what is wrong of everything) and returns
 * STATUS_INVALID; STATUS_UNAVAILABLE when no worker has announced any model yet. *out must be
 * deinit'ed in every case. */
int generation_request_read(struct generation_request *out, const cJSON *root,
                            const struct generation_limits *limits, struct problem_list *problems);
void generation_request_deinit(struct generation_request *r);

#endif
