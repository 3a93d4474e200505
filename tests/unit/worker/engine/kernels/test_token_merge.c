#include "worker/engine/kernels/token_merge.h"

#include "tests/harness/test.h"
#include "tests/support/ref_kernels.h"
#include "worker/engine/kernels/gemm.h"

/* Merging as the paper says it, in plain loops: who a source goes to, or -1. */
static void ref_match(const struct token_merge_shape *shape, const float *x, const int32_t *order,
                      int32_t *goes_to)
{
    int64_t sources = shape->tokens - shape->destinations, c = shape->channels;
    double *best = calloc((size_t)sources, sizeof(*best));
    int32_t *nearest = calloc((size_t)sources, sizeof(*nearest));
    for (int64_t s = 0; s < sources; s++) {
        best[s] = -2;
        for (int64_t d = 0; d < shape->destinations; d++) {
            const float *a = x + order[s] * c, *b = x + order[sources + d] * c;
            double product = 0, of_a = 0, of_b = 0;
            for (int64_t i = 0; i < c; i++) {
                product += (double)a[i] * (double)b[i];
                of_a += (double)a[i] * (double)a[i];
                of_b += (double)b[i] * (double)b[i];
            }
            double likeness = product / sqrt(of_a * of_b);
            if (likeness > best[s]) {
                best[s] = likeness;
                nearest[s] = order[sources + d];
            }
        }
    }
    for (int64_t token = 0; token < shape->tokens; token++) {
        goes_to[token] = -1;
    }
    for (int64_t merged = 0; merged < shape->merged; merged++) {
        int64_t most = 0;
        for (int64_t s = 1; s < sources; s++) {
            most = best[s] > best[most] ? s : most;
        }
        goes_to[order[most]] = nearest[most];
        best[most] = -3;
    }
    free(best), free(nearest);
}

/* What a token's group has on average. */
static void ref_mean(const struct token_merge_shape *shape, const float *x, const int32_t *goes_to,
                     int64_t token, float *mean)
{
    int64_t leader = goes_to[token] >= 0 ? goes_to[token] : token;
    for (int64_t i = 0; i < shape->channels; i++) {
        double sum = 0;
        int64_t count = 0;
        for (int64_t other = 0; other < shape->tokens; other++) {
            if (other == leader || goes_to[other] == leader) {
                sum += (double)x[other * shape->channels + i];
                count++;
            }
        }
        mean[i] = (float)(sum / (double)count);
    }
}

struct buffers {
    float *x, *merged, *back;
    int32_t *order, *rows;
};

static void run_merge(struct parallel *pool, const struct token_merge_shape *shape,
                      struct buffers *buffers)
{
    size_t tokens = (size_t)(shape->batch * shape->tokens);
    struct token_match match = {
        .x = buffers->x,
        .order = buffers->order,
        .rows = buffers->rows,
        .directions = malloc(tokens * (size_t)shape->channels * sizeof(float)),
        .ranks = malloc(tokens * sizeof(uint64_t)),
        .nearest = malloc(tokens * sizeof(int32_t)),
        .scores = malloc(token_match_scores(shape, parallel_threads(pool)) * sizeof(float)),
    };
    token_match_run(pool, shape, &match);
    token_merge_run(pool, shape, buffers->rows, buffers->x, buffers->merged);
    token_unmerge_add(pool, shape, buffers->rows, buffers->merged, buffers->back);
    free(match.directions), free(match.ranks), free(match.nearest), free(match.scores);
}

static struct buffers make_buffers(const struct token_merge_shape *shape)
{
    int64_t numbers = shape->batch * shape->tokens * shape->channels;
    struct buffers buffers = {
        .x = ref_random(numbers, 1),
        .merged = ref_random(numbers, 2),
        .back = calloc((size_t)numbers, sizeof(float)),
        .order = malloc((size_t)shape->tokens * sizeof(int32_t)),
        .rows = malloc((size_t)(shape->batch * shape->tokens) * sizeof(int32_t)),
    };
    /* Every so many tokens is a destination. */
    int64_t every = shape->tokens / shape->destinations, source = 0;
    int64_t destination = shape->tokens - shape->destinations;
    for (int64_t i = 0; i < shape->tokens; i++) {
        bool takes = i % every == 0 && destination < shape->tokens;
        buffers.order[takes ? destination++ : source++] = (int32_t)i;
    }
    return buffers;
}

static void free_buffers(struct buffers *buffers)
{
    free(buffers->x), free(buffers->merged), free(buffers->back);
    free(buffers->order), free(buffers->rows);
}

static const struct token_merge_shape shapes[] = {
    {1, 4, 3, 1, 1},       {1, 4, 16, 1, 3},       {2, 16, 40, 4, 8},   {1, 72, 8, 16, 36},
    {2, 300, 33, 70, 150}, {1, 700, 64, 520, 100}, {2, 256, 64, 64, 0},
};

TEST(what_is_merged_and_brought_back_is_the_mean_of_the_most_alike)
{
    CHECK_INT(gemm_init(NULL), 0);
    struct parallel *pool = NULL;
    struct error err;
    REQUIRE(parallel_create(&pool, 3, &err) == 0);
    for (size_t k = 0; k < sizeof(shapes) / sizeof(shapes[0]); k++) {
        const struct token_merge_shape *shape = &shapes[k];
        struct buffers buffers = make_buffers(shape);
        int32_t *goes_to = malloc((size_t)shape->tokens * sizeof(int32_t));
        float *mean = malloc((size_t)shape->channels * sizeof(float));
        run_merge(pool, shape, &buffers);
        for (int64_t n = 0; n < shape->batch; n++) {
            int64_t first = n * shape->tokens * shape->channels;
            ref_match(shape, buffers.x + first, buffers.order, goes_to);
            for (int64_t token = 0; token < shape->tokens; token++) {
                ref_mean(shape, buffers.x + first, goes_to, token, mean);
                CHECK_NEAR(ref_difference(buffers.back + first + token * shape->channels, mean,
                                          shape->channels),
                           0, 1e-5);
            }
        }
        free(goes_to), free(mean);
        free_buffers(&buffers);
    }
    parallel_destroy(pool);
}

TEST(threads_do_not_change_a_bit)
{
    CHECK_INT(gemm_init(NULL), 0);
    struct token_merge_shape shape = {2, 1024, 80, 256, 512};
    size_t size = (size_t)(shape.batch * shape.tokens * shape.channels) * sizeof(float);
    struct parallel *pool = NULL;
    struct error err;
    REQUIRE(parallel_create(&pool, 3, &err) == 0);
    struct buffers one = make_buffers(&shape), three = make_buffers(&shape);
    run_merge(NULL, &shape, &one);
    run_merge(pool, &shape, &three);
    CHECK(memcmp(one.back, three.back, size) == 0);
    free_buffers(&one), free_buffers(&three);
    parallel_destroy(pool);
}

TEST(of_equally_similar_tokens_the_first_counts)
{
    CHECK_INT(gemm_init(NULL), 0);
    struct token_merge_shape shape = {1, 6, 1, 2, 2};
    struct buffers buffers = make_buffers(&shape);
    for (int i = 0; i < 6; i++) {
        buffers.x[i] = 1.0f + (float)i; /* all of one direction */
    }
    run_merge(NULL, &shape, &buffers);
    /* 0 and 3 take in; of 1, 2, 4, 5 the first two go, both to 0. */
    const float expected[6] = {2, 2, 2, 4, 5, 6};
    CHECK_NEAR(ref_difference(buffers.back, expected, 6), 0, 0);
    free_buffers(&buffers);
}

TEST(a_model_that_computes_nonsense_still_gets_rows_within_bounds)
{
    CHECK_INT(gemm_init(NULL), 0);
    struct token_merge_shape shape = {1, 64, 4, 16, 32};
    struct buffers buffers = make_buffers(&shape);
    for (int i = 0; i < 256; i++) {
        buffers.x[i] = i % 3 == 0 ? NAN : i % 3 == 1 ? INFINITY : 0;
    }
    run_merge(NULL, &shape, &buffers);
    for (int i = 0; i < 64; i++) {
        CHECK(buffers.rows[i] >= 0 && buffers.rows[i] < 32);
    }
    free_buffers(&buffers);
}

TEST_MAIN()
