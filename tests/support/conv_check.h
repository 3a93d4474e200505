/* What the tests of all ways to convolve have in common. */
#ifndef TESTS_SUPPORT_CONV_CHECK_H
#define TESTS_SUPPORT_CONV_CHECK_H

#include "tests/harness/test.h"
#include "tests/support/ref_kernels.h"
#include "worker/engine/kernels/conv2d.h"
#include "worker/engine/kernels/gemm.h"

static inline struct conv2d conv_of(const struct ref_conv *r, bool wrap_x, bool wrap_y)
{
    return (struct conv2d){.batch = r->batch,
                           .height_in = r->height,
                           .width_in = r->width,
                           .channels_in = r->channels_in,
                           .channels_out = r->channels_out,
                           .kernel = (int)r->kernel,
                           .stride = (int)r->stride,
                           .padding = (int)r->padding,
                           .wrap_x = wrap_x,
                           .wrap_y = wrap_y};
}

/* check with each shape and each padding, on one thread and on `threads`. */
static inline void conv_check_all(const struct ref_conv *shapes, size_t count, int threads,
                                  void (*check)(struct parallel *pool, const struct ref_conv *r,
                                                bool wrap_x, bool wrap_y))
{
    CHECK_INT(gemm_init(NULL), 0);
    for (int each = 1; each <= threads; each += threads - 1) {
        struct parallel *pool = NULL;
        struct error err;
        REQUIRE(parallel_create(&pool, each, &err) == 0);
        for (size_t i = 0; i < count; i++) {
            for (int wrap = 0; wrap < 4; wrap++) {
                check(pool, &shapes[i], wrap % 2 != 0, wrap / 2 != 0);
            }
        }
        parallel_destroy(pool);
    }
}

#endif
