#include "worker/worker_metrics.h"

#include <string.h>

#include "tests/harness/test.h"

TEST(a_price_is_dollars_an_hour_and_nothing_else)
{
    double price = -1;
    struct error err;
    CHECK(worker_metrics_parse_price("", &price, &err) == 0);
    CHECK_NEAR(price, 0, 0);
    CHECK(worker_metrics_parse_price("0.05", &price, &err) == 0);
    CHECK_NEAR(price, 0.05, 1e-12);
    const char *const wrong[] = {"-1", "5 cents", "nan", "inf", "1e9", "$1"};
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        CHECK(worker_metrics_parse_price(wrong[i], &price, &err) == STATUS_INVALID);
        CHECK(strstr(err.text, "CRAFTERSE_PRICE_PER_HOUR") != NULL);
    }
}

TEST_MAIN()
