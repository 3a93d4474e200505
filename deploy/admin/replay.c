/* A replay is for a test: it must not touch what clients see. Each order gets a new id and nobody's
 * key, so no client sees the job; new content hashes, so no picture of a client is stored, found or
 * overwritten; no cache; and the very pool named, past admission, whose model may be another one
 * under the same name. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/base/clock.h"
#include "common/base/digest.h"
#include "common/base/id.h"
#include "common/base/panic.h"
#include "common/bus/codec.h"
#include "common/bus/producer.h"
#include "deploy/admin/admin.h"

#define TIMEOUT_MS 15000
#define CLOSE_TIMEOUT_MS 1000 /* what was sent is reported by then, or given up */
#define ORDERS_MAX 10000

struct replay {
    const struct admin *admin;
    struct producer *producer;
    const char *pool;
    uint64_t from_ms, until_ms;
    size_t count;
};

/* "2026-11-20T18:05:00Z", or seconds since 1970. */
static int parse_moment(const char *text, uint64_t *at_ms, struct error *err)
{
    struct tm tm = {0};
    char *end = strptime(text, "%Y-%m-%dT%H:%M:%SZ", &tm);
    if (end != NULL && *end == '\0') {
        *at_ms = (uint64_t)timegm(&tm) * 1000;
        return STATUS_OK;
    }
    unsigned long long seconds = strtoull(text, &end, 10);
    if (end == text || *end != '\0' || seconds > UINT32_MAX) {
        return ERROR(err, STATUS_INVALID,
                     "\"%s\" is no time: expected 2026-11-20T18:05:00Z (UTC) or seconds since 1970",
                     text);
    }
    *at_ms = seconds * 1000;
    return STATUS_OK;
}

static void rename_pictures(const struct replay *replay, Crafterse__V1__Job *job)
{
    for (size_t i = 0; i < job->n_images; i++) {
        char text[256], hash[DIGEST_HEX_SIZE];
        int size = snprintf(text, sizeof(text), "crafterse replay 1\n%s\n%.64s", replay->pool,
                            job->images[i]->content_hash);
        digest_sha256_hex(text, (size_t)size, hash);
        if (strlen(job->images[i]->content_hash) == DIGEST_HEX_SIZE - 1) {
            memcpy(job->images[i]->content_hash, hash, DIGEST_HEX_SIZE);
        }
    }
}

static int send_copy(struct replay *replay, Crafterse__V1__Job *job, struct error *err)
{
    char topic[TOPIC_NAME_MAX], job_id[ID_SIZE], nobody[] = "(replay)", empty[] = "";
    bool is_batch = job->job_class == CRAFTERSE__V1__JOB_CLASS__JOB_CLASS_BATCH;
    Crafterse__V1__Envelope envelope = CRAFTERSE__V1__ENVELOPE__INIT;
    Crafterse__V1__Job copy = *job;
    Crafterse__V1__Generation generation = *job->generation;
    char *pool = xstrdup(replay->pool);
    topic_name(replay->admin->kafka, is_batch ? TOPIC_QUEUE_BATCH : TOPIC_QUEUE_INTERACTIVE,
               replay->pool, topic);
    id_make(job_id);
    rename_pictures(replay, job);
    envelope.job_id = job_id;
    generation.model_digest = empty; /* whatever the pool has under that name */
    copy.envelope = &envelope;
    copy.generation = &generation;
    copy.key_id = nobody;
    copy.pool = pool;
    copy.cache = CRAFTERSE__V1__CACHE_MODE__CACHE_MODE_BYPASS;
    copy.cache_key = empty;
    copy.accepted_ms = copy.queued_ms = clock_unix_ms();
    const struct codec_target target = {topic, PRODUCER_PARTITION_BY_KEY, nobody};
    int result = codec_send_wait(replay->producer, &target, &copy.base, TIMEOUT_MS, err);
    if (result == STATUS_OK) {
        printf("%s %s\n", job->envelope->job_id, job_id);
        replay->count++;
    }
    xfree(pool);
    return result;
}

static int visit(void *user, const struct record *record, struct error *err)
{
    struct replay *replay = user;
    Crafterse__V1__Job *job =
        CODEC_UNPACK(Crafterse__V1__Job, crafterse__v1__job__descriptor, record, NULL);
    int result = STATUS_OK;
    if (job != NULL && job->generation != NULL && job->n_images > 0 &&
        job->accepted_ms >= replay->from_ms && job->accepted_ms < replay->until_ms) {
        result = replay->count < ORDERS_MAX
                     ? send_copy(replay, job, err)
                     : ERROR(err, STATUS_TOO_LARGE, "more than %d orders; replay a shorter time",
                             ORDERS_MAX);
    }
    codec_free(job != NULL ? &job->base : NULL);
    return result;
}

static int check_order(const struct replay *replay, struct error *err)
{
    return replay->from_ms < replay->until_ms
               ? STATUS_OK
               : ERROR(err, STATUS_INVALID, "FROM, %s, is not before UNTIL, %s",
                       replay->admin->arguments[0], replay->admin->arguments[1]);
}

int admin_replay(const struct admin *admin, struct error *err)
{
    struct replay replay = {.admin = admin, .pool = admin->arguments[2]};
    int result;
    if ((result = parse_moment(admin->arguments[0], &replay.from_ms, err)) < 0 ||
        (result = parse_moment(admin->arguments[1], &replay.until_ms, err)) < 0 ||
        (result = check_order(&replay, err)) < 0 ||
        (result = admin_check_pool(admin, replay.pool, err)) < 0 ||
        (result = producer_create(&replay.producer, admin->kafka, err)) < 0) {
        return result;
    }
    result = admin_read(admin, TOPIC_REQUESTS, visit, &replay, err);
    producer_destroy(replay.producer, CLOSE_TIMEOUT_MS);
    if (result == STATUS_OK) {
        fprintf(stderr, "%zu orders\n", replay.count);
    }
    return result;
}
