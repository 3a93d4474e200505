#include "router/window.h"

#include "common/base/borrow.h"
#include "common/base/panic.h"
#include "common/bus/codec.h"
#include "tests/harness/test.h"

/* One that is due at that time; 0 = it was never tried. */
static struct waiting *due_at(uint64_t due_ms, uint64_t name)
{
    Crafterse__V1__Job job = CRAFTERSE__V1__JOB__INIT;
    Crafterse__V1__Envelope envelope = CRAFTERSE__V1__ENVELOPE__INIT;
    struct record record = {.offset = (int64_t)name};
    struct error err;
    size_t size;
    envelope.job_id = borrow_text("job");
    job.envelope = &envelope;
    job.not_before_ms = due_ms;
    uint8_t *bytes = codec_pack(&job.base, &size);
    ProtobufCMessage *copy = codec_unpack(&crafterse__v1__job__descriptor, bytes, size, &err);
    xfree(bytes);
    if (copy == NULL) {
        PANIC("%s", err.text);
    }
    return window_make_waiting(&record, (Crafterse__V1__Job *)copy);
}

/* Takes the first of the window; 0 = there is none. */
static int64_t take_first(struct window *w)
{
    if (w->first == NULL) {
        return 0;
    }
    struct waiting *waiting = window_take(w, &w->first);
    int64_t name = waiting->record.offset;
    window_free_waiting(waiting);
    return name;
}

TEST(jobs_to_be_tried_again_stand_in_the_order_of_their_time_before_the_others)
{
    struct window w;
    window_init(&w);
    window_append(&w, due_at(0, 1));
    window_insert_by_time(&w, due_at(30, 2));
    window_append(&w, due_at(0, 3));
    window_insert_by_time(&w, due_at(10, 4));
    window_insert_by_time(&w, due_at(30, 5));
    CHECK_INT(w.count, 5);
    CHECK_INT(take_first(&w), 4);
    CHECK_INT(take_first(&w), 2);
    CHECK_INT(take_first(&w), 5);
    CHECK_INT(take_first(&w), 1);
    CHECK_INT(take_first(&w), 3);
    CHECK_INT(take_first(&w), 0);
}

TEST(a_job_leaves_from_anywhere_and_the_end_stays_the_end)
{
    struct window w;
    window_init(&w);
    window_append(&w, due_at(0, 1));
    window_append(&w, due_at(0, 2));
    window_push(&w, due_at(0, 3));
    window_free_waiting(window_take(&w, &w.first->next->next)); /* the last */
    window_append(&w, due_at(0, 4));
    window_free_waiting(window_take(&w, &w.first->next));
    CHECK_INT(take_first(&w), 3);
    CHECK_INT(take_first(&w), 4);
    window_push(&w, due_at(0, 5)); /* into an empty one */
    window_append(&w, due_at(0, 6));
    CHECK_INT(take_first(&w), 5);
    CHECK_INT(take_first(&w), 6);
    CHECK_INT(w.count, 0);
}

TEST(what_is_due_moves_while_there_is_room)
{
    struct window retry, window;
    window_init(&retry);
    window_init(&window);
    window_append(&window, due_at(0, 1));
    for (uint64_t due = 5; due > 0; due--) {
        window_insert_by_time(&retry, due_at(10 * due, 10 * due));
    }
    window_move_due(&window, &retry, 39, 3);
    CHECK_INT(window.count, 3); /* a paused pool's router does not take in all of retry.<pool> */
    CHECK_INT(retry.count, 3);
    window_move_due(&window, &retry, 39, 10);
    CHECK_INT(window.count, 4);
    CHECK_INT(take_first(&window), 10);
    CHECK_INT(take_first(&window), 20);
    CHECK_INT(take_first(&window), 30);
    CHECK_INT(take_first(&window), 1);
    CHECK_INT(take_first(&retry), 40);
    CHECK_INT(take_first(&retry), 50);
}

TEST(a_worker_whose_clock_is_ahead_delays_a_job_by_its_wait_only)
{
    struct waiting *waiting = due_at(9000, 1);
    waiting->job->envelope->sent_ms = 7000; /* two seconds before */
    window_bound_wait(waiting, 7500);
    CHECK_INT(waiting->job->not_before_ms, 9000);
    window_bound_wait(waiting, 1000); /* its clock is six seconds ahead, or came that fast */
    CHECK_INT(waiting->job->not_before_ms, 3000);
    window_free_waiting(waiting);
}

TEST_MAIN()
