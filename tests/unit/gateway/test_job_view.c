#include "gateway/job_view.h"

#include "common/base/panic.h"
#include "tests/harness/test.h"
#include "tests/unit/gateway/job_sample.h"

static const struct job_view view = {.public_url = "http://gateway",
                                     .cdn_base_url = "https://cdn.example/o",
                                     .estimate = {.eta_seconds = -1, .remaining_seconds = -1},
                                     .now_ms = NOW_MS + 1500};

/* The names of the events after the cursor, separated by spaces. */
static const char *names_after(const struct job *job, const char *last_id)
{
    static char names[512];
    struct job_cursor cursor = JOB_CURSOR_START;
    struct buf out;
    struct error err;
    if (last_id != NULL) {
        CHECK(job_view_cursor_parse(last_id, &cursor));
    }
    buf_init(&out, 65536);
    CHECK_INT(job_view_events(job, &view, &cursor, &out, &err), 0);
    names[0] = '\0';
    const char *at = out.size > 0 ? out.data : "";
    while ((at = strstr(at, "event: ")) != NULL) {
        at += 7;
        snprintf(names + strlen(names), sizeof(names) - strlen(names), "%s%.*s",
                 names[0] != '\0' ? " " : "", (int)strcspn(at, "\n"), at);
    }
    buf_deinit(&out);
    return names;
}

static struct job *run_to_the_end(struct job_table *table, const char *id)
{
    struct job *job = sample_request(table, id, "studio", false);
    sample_status(table, id, (struct sample_status){STATE(QUEUED), 0, NOW_MS + 1, NULL, NULL});
    sample_status(table, id, (struct sample_status){STATE(DISPATCHED), 0, NOW_MS + 2, NULL, NULL});
    sample_status(table, id, (struct sample_status){STATE(RUNNING), 1, NOW_MS + 3, NULL, NULL});
    sample_progress(table, id, 1, 20, 900);
    sample_status(table, id, (struct sample_status){STATE(RENDERED), 1, NOW_MS + 4, NULL, NULL});
    sample_status(table, id,
                  (struct sample_status){STATE(SUCCEEDED), 1, NOW_MS + 5, NULL, "ab/x.png"});
    return job;
}

TEST(a_preview_comes_with_its_step_and_goes_when_the_job_is_done)
{
    static uint8_t png[] = {'P', 'N', 'G'};
    static char id[80], stage[] = "denoise";
    struct job_table *table = sample_table(100);
    struct job *job = sample_request(table, sample_id(1), "studio", false);
    sample_status(table, job->id, (struct sample_status){STATE(RUNNING), 1, NOW_MS, NULL, NULL});
    Crafterse__V1__Envelope envelope = CRAFTERSE__V1__ENVELOPE__INIT;
    Crafterse__V1__Progress progress = CRAFTERSE__V1__PROGRESS__INIT;
    snprintf(id, sizeof(id), "%s", job->id);
    envelope.job_id = id;
    envelope.attempt = 1;
    progress.envelope = &envelope;
    progress.stage = stage;
    progress.step = 5;
    progress.steps = 20;
    progress.preview.data = png;
    progress.preview.len = sizeof(png);
    REQUIRE(job_fold_progress(table, &progress, NOW_MS) != NULL);
    CHECK_STR(names_after(job, "3-1-0-0"), "step preview");
    CHECK_STR(names_after(job, "3-1-0-5"), ""); /* who has the step has its preview */

    struct job_cursor cursor = JOB_CURSOR_START;
    struct buf out;
    struct error err;
    buf_init(&out, 65536);
    CHECK_INT(job_view_events(job, &view, &cursor, &out, &err), 0);
    CHECK_CONTAINS(out.data, "id: 3-1-0-5\nevent: preview\ndata: {\"id\":\"");
    CHECK_CONTAINS(out.data, "\"image\":0,\"step\":5,\"steps\":20,\"png\":\"UE5H\"}\n\n");
    buf_deinit(&out);

    progress.step = 6;
    progress.preview.len = 0;
    REQUIRE(job_fold_progress(table, &progress, NOW_MS) != NULL);
    CHECK_STR(names_after(job, "3-1-0-5"), "step");
    sample_status(table, job->id, (struct sample_status){STATE(FAILED), 1, NOW_MS, "x", NULL});
    CHECK(job->progress.preview == NULL);
    job_table_destroy(table);
}

TEST(a_whole_life_is_told_in_order)
{
    struct job_table *table = sample_table(100);
    struct job *job = run_to_the_end(table, sample_id(1));
    CHECK_STR(names_after(job, NULL),
              "accepted queued dispatched started step rendered uploaded done");
    job_table_destroy(table);
}

TEST(steps_are_told_whose_records_come_after_the_next_ones)
{
    struct job_table *table = sample_table(100);
    const char *id = sample_id(1);
    struct job *job = sample_request(table, id, "studio", false);
    sample_status(table, id, (struct sample_status){STATE(RUNNING), 1, NOW_MS + 30, NULL, NULL});
    CHECK(sample_status(table, id,
                        (struct sample_status){STATE(DISPATCHED), 0, NOW_MS + 20, NULL, NULL}) ==
          NULL);
    CHECK_STR(names_after(job, NULL), "accepted queued dispatched started");
    CHECK_INT(job->at_ms[MOMENT_DISPATCHED], NOW_MS + 30 - 2); /* the worker says how long ago */
    CHECK_INT(job->at_ms[MOMENT_QUEUED], NOW_MS + 30 - 5);
    job_table_destroy(table);
}

TEST(last_event_id_resumes_after_that_event)
{
    struct job_table *table = sample_table(100);
    struct job *job = run_to_the_end(table, sample_id(1));
    CHECK_STR(names_after(job, "0-0-0-0"), "queued dispatched started step rendered uploaded done");
    CHECK_STR(names_after(job, "3-1-0-0"), "step rendered uploaded done");
    CHECK_STR(names_after(job, "3-1-0-12"), "step rendered uploaded done");
    CHECK_STR(names_after(job, "3-1-0-20"), "rendered uploaded done");
    CHECK_STR(names_after(job, "9-0-0-0"), "done");
    CHECK_STR(names_after(job, "10-0-0-0"), "");
    job_table_destroy(table);
}

TEST(two_gateways_send_the_same_bytes_for_the_same_life)
{
    struct job_table *one = sample_table(100), *two = sample_table(100);
    struct buf first, second;
    struct error err;
    struct job_cursor a = JOB_CURSOR_START, b = JOB_CURSOR_START;
    buf_init(&first, 65536);
    buf_init(&second, 65536);
    struct job *job = run_to_the_end(one, sample_id(1));
    CHECK_INT(job_view_events(job, &view, &a, &first, &err), 0);
    job = run_to_the_end(two, sample_id(1));
    CHECK_INT(job_view_events(job, &view, &b, &second, &err), 0);
    CHECK_STR(first.data, second.data);
    CHECK(job_view_cursor_is_final(&a));
    buf_deinit(&first);
    buf_deinit(&second);
    job_table_destroy(one);
    job_table_destroy(two);
}

TEST(a_second_run_starts_again_and_moves_on)
{
    struct job_table *table = sample_table(100);
    const char *id = sample_id(1);
    struct job *job = sample_request(table, id, "studio", false);
    sample_status(table, id, (struct sample_status){STATE(RUNNING), 1, 0, NULL, NULL});
    sample_progress(table, id, 1, 12, 0);
    CHECK_STR(names_after(job, "3-1-0-12"), "");
    sample_status(table, id, (struct sample_status){STATE(RUNNING), 2, 0, NULL, NULL});
    CHECK_STR(names_after(job, "3-1-0-12"), "started");
    sample_progress(table, id, 2, 1, 0);
    CHECK_STR(names_after(job, "3-2-0-0"), "step");
    job_table_destroy(table);
}

TEST(every_end_is_a_done_event_that_says_which)
{
    struct job_table *table = sample_table(100);
    const Crafterse__V1__State ends[] = {STATE(FAILED), STATE(CANCELLED), STATE(EXPIRED)};
    for (unsigned i = 0; i < 3; i++) {
        struct job *job = sample_request(table, sample_id(i), "studio", false);
        sample_status(table, job->id, (struct sample_status){ends[i], 0, 0, "reason_code", NULL});
        CHECK_STR(names_after(job, NULL), "accepted done");
        char *body = job_view_body(job, &view);
        CHECK_CONTAINS(body, job_state_name(ends[i]));
        CHECK_CONTAINS(body, "\"error\":{\"code\":\"reason_code\"");
        CHECK_CONTAINS(body, "\"url\":null");
        xfree(body);
    }
    job_table_destroy(table);
}

TEST(an_event_is_one_line_of_data_with_id_and_name)
{
    struct job_table *table = sample_table(100);
    struct job *job = sample_request(table, sample_id(1), "studio", false);
    struct job_cursor cursor = JOB_CURSOR_START;
    struct buf out;
    struct error err;
    buf_init(&out, 65536);
    CHECK_INT(job_view_events(job, &view, &cursor, &out, &err), 0);
    CHECK(strncmp(out.data, "id: 0-0-0-0\nevent: accepted\ndata: {", 35) == 0);
    CHECK_STR(out.data + out.size - 3, "}\n\n");
    CHECK_CONTAINS(out.data, "\"at\":\"2026-11-20T18:05:09.000Z\"");
    size_t size = out.size;
    CHECK_INT(job_view_events(job, &view, &cursor, &out, &err), 0);
    CHECK_INT(out.size, size); /* nothing is sent twice */
    buf_deinit(&out);
    job_table_destroy(table);
}

TEST(ids_that_are_not_ours_are_refused)
{
    struct job_cursor cursor;
    const char *const wrong[] = {"",         "1",        "1-2-3",    "1-2-3-4-5",        "a-b-c-d",
                                 "1-2-3-4x", " 1-2-3-4", "-1-2-3-4", "99999999999-1-1-1"};
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        if (job_view_cursor_parse(wrong[i], &cursor)) {
            CHECK_STR("accepted", wrong[i]);
        }
    }
    char text[JOB_CURSOR_SIZE];
    CHECK(job_view_cursor_parse("3-1-0-12", &cursor));
    job_view_cursor_format(&cursor, text);
    CHECK_STR(text, "3-1-0-12");
}

TEST(the_body_has_every_field_from_the_start)
{
    struct job_table *table = sample_table(100);
    struct job *job = sample_request(table, sample_id(1), "studio", false);
    char *body = job_view_body(job, &view);
    const char *const fields[] = {"id",
                                  "state",
                                  "links",
                                  "model",
                                  "seed",
                                  "n",
                                  "attempts",
                                  "image",
                                  "step",
                                  "steps",
                                  "elapsed_seconds",
                                  "remaining_seconds",
                                  "queue_position",
                                  "eta_seconds",
                                  "accepted_at",
                                  "finished_at",
                                  "deadline",
                                  "timings",
                                  "images",
                                  "url",
                                  "error"};
    for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) {
        char quoted[64];
        snprintf(quoted, sizeof(quoted), "\"%s\":", fields[i]);
        CHECK_CONTAINS(body, quoted);
    }
    CHECK_CONTAINS(body, "\"elapsed_seconds\":1.5");
    xfree(body);
    job_table_destroy(table);
}

TEST(a_finished_job_names_its_pictures)
{
    struct job_table *table = sample_table(100);
    struct job *job = run_to_the_end(table, sample_id(1));
    char *body = job_view_body(job, &view);
    CHECK_CONTAINS(body, "\"url\":\"https://cdn.example/o/ab/x.png\"");
    CHECK_CONTAINS(body, "\"step\":20,\"steps\":20");
    CHECK_CONTAINS(body, "\"error\":null");
    CHECK_CONTAINS(body, "\"self\":\"http://gateway/v1/generations/");
    xfree(body);
    job_table_destroy(table);
}

TEST(a_job_that_was_cancelled_shows_no_picture_though_there_is_one)
{
    struct job_table *table = sample_table(100);
    struct job *job = sample_request(table, sample_id(1), "studio", false);
    sample_status(table, job->id,
                  (struct sample_status){STATE(CANCELLED), 0, NOW_MS, "x", "ab/x.png"});
    char *body = job_view_body(job, &view);
    CHECK(strstr(body, "x.png") == NULL);
    CHECK(strstr(body, "\"content_hash\"") != NULL);
    xfree(body);
    job_table_destroy(table);
}

TEST(what_a_deadline_cut_short_tells_where_it_stopped)
{
    struct job_table *table = sample_table(100);
    struct job *job = run_to_the_end(table, sample_id(1));
    job->n = 3; /* of which the first was the last to be begun */
    job->images[0].partial_steps = 6;
    char *body = job_view_body(job, &view);
    CHECK_CONTAINS(body, "\"image\":0,\"step\":6,\"steps\":20,");
    CHECK_CONTAINS(body, "\"partial\":true");
    xfree(body);
    job->images[0].partial_steps = 0;
    body = job_view_body(job, &view);
    CHECK_CONTAINS(body, "\"image\":2,\"step\":20,\"steps\":20,");
    xfree(body);
    job->n = 1;
    job_table_destroy(table);
}

TEST_MAIN()
