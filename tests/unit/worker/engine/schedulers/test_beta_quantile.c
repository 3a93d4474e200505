/* Quantiles where they are known in closed form, and that they are quantiles everywhere. */
#include "worker/engine/schedulers/beta_quantile.h"

#include <math.h>

#include "tests/harness/test.h"

TEST(quantiles_that_have_a_formula_are_met)
{
    for (int i = 0; i <= 20; i++) {
        double p = i / 20.0, s = sin(M_PI * p / 2.0);
        CHECK_NEAR(beta_quantile(p, 1.0, 1.0), p, 1e-14);
        CHECK_NEAR(beta_quantile(p, 2.0, 1.0), sqrt(p), 1e-14);
        CHECK_NEAR(beta_quantile(p, 1.0, 3.0), 1.0 - cbrt(1.0 - p), 1e-14);
        CHECK_NEAR(beta_quantile(p, 0.5, 0.5), s * s, 1e-14); /* the arcsine distribution */
    }
}

TEST(they_rise_from_0_to_1_and_mirror)
{
    double before = 0.0;
    CHECK_NEAR(beta_quantile(0.0, 0.6, 0.6), 0.0, 0.0);
    CHECK_NEAR(beta_quantile(1.0, 0.6, 0.6), 1.0, 0.0);
    CHECK_NEAR(beta_quantile(0.5, 0.6, 0.6), 0.5, 1e-14);
    for (int i = 1; i < 1000; i++) {
        double p = i / 1000.0, x = beta_quantile(p, 0.6, 0.6);
        CHECK(x > before && x < 1.0);
        CHECK_NEAR(x + beta_quantile(1.0 - p, 0.6, 0.6), 1.0, 1e-12);
        before = x;
    }
}

TEST_MAIN()
