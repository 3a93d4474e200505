#include "common/obs/metrics.h"

#include <math.h>
#include <pthread.h>

#include "tests/harness/test.h"

METRIC_DEFINE_COUNTER(done_total, "crafterse_test_done_total", "state=\"done\"", "Jobs\nthat end.");
METRIC_DEFINE_COUNTER(failed_total, "crafterse_test_done_total", "state=\"failed\"", "Same name.");
METRIC_DEFINE_GAUGE(depth, "crafterse_test_depth", "", "How deep.");
METRIC_DEFINE_SECONDS(took, "crafterse_test_seconds", "", "How long.");
METRIC_DEFINE_COUNTER(shared_total, "crafterse_test_shared_total", "", "Counted by threads.");

static char *render(struct buf *out)
{
    buf_init(out, 1 << 20);
    metrics_render(out);
    return out->data;
}

TEST(label_sets_of_a_name_stand_together_under_one_header)
{
    metric_register(&done_total);
    metric_register(&depth);
    metric_register(&failed_total);
    metric_add(&done_total, 3);
    metric_increment(&failed_total);
    metric_set(&depth, -1.5);
    struct buf out;
    char *text = render(&out);
    CHECK_CONTAINS(text, "# HELP crafterse_test_done_total Jobs\\nthat end.\n"
                         "# TYPE crafterse_test_done_total counter\n"
                         "crafterse_test_done_total{state=\"done\"} 3\n"
                         "crafterse_test_done_total{state=\"failed\"} 1\n");
    CHECK_CONTAINS(text, "# TYPE crafterse_test_depth gauge\ncrafterse_test_depth -1.5\n");
    buf_deinit(&out);
}

TEST(histograms_are_cumulative_and_end_with_infinity)
{
    metric_register(&took);
    metric_observe(&took, 0.005);
    metric_observe(&took, 0.02);
    metric_observe(&took, 5000);
    struct buf out;
    char *text = render(&out);
    CHECK_CONTAINS(text, "crafterse_test_seconds_bucket{le=\"0.005\"} 1\n"
                         "crafterse_test_seconds_bucket{le=\"0.01\"} 1\n"
                         "crafterse_test_seconds_bucket{le=\"0.025\"} 2\n");
    CHECK_CONTAINS(text, "crafterse_test_seconds_bucket{le=\"1800\"} 2\n"
                         "crafterse_test_seconds_bucket{le=\"+Inf\"} 3\n"
                         "crafterse_test_seconds_sum 5000.025\n"
                         "crafterse_test_seconds_count 3\n");
    buf_deinit(&out);
}

TEST(large_counts_and_odd_values_keep_their_value)
{
    struct metric *big = metric_create(METRIC_GAUGE, "crafterse_test_big", "", "Big.");
    struct buf out;
    metric_set(big, 16777217);
    CHECK_CONTAINS(render(&out), "crafterse_test_big 16777217\n");
    buf_deinit(&out);
    metric_set(big, 0.1);
    CHECK_CONTAINS(render(&out), "crafterse_test_big 0.1\n");
    buf_deinit(&out);
    metric_set(big, -INFINITY);
    CHECK_CONTAINS(render(&out), "crafterse_test_big -Inf\n");
    buf_deinit(&out);
    CHECK(isinf(metric_value(big)));
}

TEST(the_process_describes_itself)
{
    struct buf out;
    char *text = render(&out);
    const char *resident = strstr(text, "\nprocess_resident_memory_bytes ");
    REQUIRE(resident != NULL);
    CHECK(strtod(resident + 31, NULL) > 100000);
    const char *start = strstr(text, "\nprocess_start_time_seconds ");
    REQUIRE(start != NULL);
    CHECK(strtod(start + 28, NULL) > 1.7e9);
    CHECK_CONTAINS(text, "\nprocess_cpu_seconds_total ");
    CHECK_CONTAINS(text, "\nprocess_open_fds ");
    buf_deinit(&out);
}

static void *count_up(void *user)
{
    (void)user;
    for (int i = 0; i < 20000; i++) {
        metric_increment(&shared_total);
    }
    return NULL;
}

TEST(threads_lose_no_count)
{
    pthread_t threads[4];
    metric_register(&shared_total);
    for (int i = 0; i < 4; i++) {
        pthread_create(&threads[i], NULL, count_up, NULL);
    }
    for (int i = 0; i < 4; i++) {
        pthread_join(threads[i], NULL);
    }
    CHECK_NEAR(metric_value(&shared_total), 80000, 0);
}

TEST(a_labels_value_cannot_end_its_quotes)
{
    char out[METRIC_LABEL_MAX];
    CHECK_STR(metric_label_value("plain", out, sizeof(out)), "plain");
    CHECK_STR(metric_label_value("a\"b\\c\nd", out, sizeof(out)), "a\\\"b\\\\c\\nd");
    CHECK_STR(metric_label_value("cut here", out, 4), "cu"); /* room for an escape is kept */
}

TEST_MAIN()
