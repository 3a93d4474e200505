#include "worker/attempt_history.h"

#include "common/base/borrow.h"
#include "common/base/panic.h"
#include "common/bus/codec.h"
#include "tests/harness/test.h"
#include "worker/report.h"

static void fold_run(struct attempt_history *h, const char *job_id, uint32_t attempt,
                     const char *worker, uint64_t retry_at_ms)
{
    Crafterse__V1__Envelope envelope = CRAFTERSE__V1__ENVELOPE__INIT;
    Crafterse__V1__Status status = CRAFTERSE__V1__STATUS__INIT;
    envelope.job_id = borrow_text(job_id);
    envelope.attempt = attempt;
    envelope.sent_ms = 1000 * attempt;
    status.envelope = &envelope;
    status.state = CRAFTERSE__V1__STATE__STATE_RUNNING;
    status.worker_id = borrow_text(worker);
    status.retry_at_ms = retry_at_ms;
    attempt_history_fold(h, &status);
}

/* As a worker gets it: decoded, so that all of it is freed in one go. */
static Crafterse__V1__Job *make_job(const char *job_id)
{
    Crafterse__V1__Envelope envelope = CRAFTERSE__V1__ENVELOPE__INIT;
    Crafterse__V1__Job job = CRAFTERSE__V1__JOB__INIT;
    size_t size;
    struct error err;
    envelope.job_id = borrow_text(job_id);
    job.envelope = &envelope;
    uint8_t *bytes = codec_pack(&job.base, &size);
    ProtobufCMessage *message = codec_unpack(&crafterse__v1__job__descriptor, bytes, size, &err);
    xfree(bytes);
    return (Crafterse__V1__Job *)message;
}

TEST(lost_workers_are_told_by_what_status_knew_of_them)
{
    struct attempt_history *h = attempt_history_create(8);
    Crafterse__V1__Job *job = make_job("a");
    fold_run(h, "a", 1, "worker-1", 0);
    fold_run(h, "b", 1, "worker-9", 0);
    fold_run(h, "a", 2, "worker-2", 0);
    attempt_history_complete(h, job, 3);
    REQUIRE(job->n_attempts == 2);
    CHECK_INT(job->attempts[0]->number, 1);
    CHECK_STR(job->attempts[0]->worker_id, "worker-1");
    CHECK_STR(job->attempts[1]->worker_id, "worker-2");
    CHECK_STR(job->attempts[1]->reason, "worker_lost");
    CHECK_INT(job->attempts[1]->started_ms, 2000);
    CHECK_INT(job->attempts[1]->ended_ms, 0);
    codec_free(&job->base);
    attempt_history_destroy(h);
}

TEST(an_attempt_that_said_why_it_failed_is_not_made_up)
{
    struct attempt_history *h = attempt_history_create(8);
    Crafterse__V1__Job *job = make_job("a");
    fold_run(h, "a", 1, "worker-1", 0);
    fold_run(h, "a", 1, "worker-1", 5000); /* it is to be tried again */
    attempt_history_add(job, &(struct attempt_note){.number = 1,
                                                    .worker_id = "worker-1",
                                                    .started_ms = 1000,
                                                    .ended_ms = 4000,
                                                    .reason = "engine_error",
                                                    .message = "no memory"});
    attempt_history_complete(h, job, 2);
    REQUIRE(job->n_attempts == 1);
    CHECK_STR(job->attempts[0]->message, "no memory");
    codec_free(&job->base);
    attempt_history_destroy(h);
}

TEST(a_run_that_was_forgotten_is_still_counted)
{
    struct attempt_history *h = attempt_history_create(1);
    Crafterse__V1__Job *job = make_job("a");
    fold_run(h, "a", 1, "worker-1", 0);
    fold_run(h, "b", 1, "worker-2", 0);
    attempt_history_complete(h, job, 2);
    REQUIRE(job->n_attempts == 1);
    CHECK_STR(job->attempts[0]->worker_id, "");
    CHECK_INT(job->attempts[0]->started_ms, 0);
    codec_free(&job->base);
    attempt_history_destroy(h);
}

TEST_MAIN()
