/* A test file is one program: TEST blocks, CHECK lines, and TEST_MAIN() at the end.
 *
 * Every TEST runs in registration order; a CHECK that fails is reported with both values and its
 * place, and the test goes on. The output is TAP, which tests/run adds up. An argument filters by
 * substring: `build/test/unit/common/base/test_error wrap`.
 */
#ifndef TESTS_HARNESS_TEST_H
#define TESTS_HARNESS_TEST_H

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct test_case {
    const char *name;
    void (*run)(void);
    struct test_case *next;
};

static struct test_case *test_first, **test_last = &test_first;
static int test_failures;
static const char *test_skip_reason;

static inline void test_register(struct test_case *test)
{
    *test_last = test;
    test_last = &test->next;
}

/* TEST(name) { ... }: the name says what a user is promised. */
#define TEST(name) \
    static void name(void); \
    static struct test_case name##_case = {#name, name, NULL}; \
    __attribute__((constructor)) static void name##_register(void) \
    { \
        test_register(&name##_case); \
    } \
    static void name(void)

static inline void test_report(const char *file, int line, const char *what)
{
    test_failures++;
    printf("# %s:%d: %s\n", file, line, what);
}

#define CHECK(condition) \
    do { \
        if (!(condition)) { \
            test_report(__FILE__, __LINE__, "expected " #condition); \
        } \
    } while (0)

/* Ends the test: for conditions without which the rest makes no sense. */
#define REQUIRE(condition) \
    do { \
        if (!(condition)) { \
            test_report(__FILE__, __LINE__, "required " #condition); \
            return; \
        } \
    } while (0)

#define CHECK_INT(actual, expected) \
    do { \
        long long actual_ = (long long)(actual), expected_ = (long long)(expected); \
        if (actual_ != expected_) { \
            char text_[256]; \
            snprintf(text_, sizeof(text_), "%s is %lld, expected %lld", #actual, actual_, \
                     expected_); \
            test_report(__FILE__, __LINE__, text_); \
        } \
    } while (0)

#define CHECK_STR(actual, expected) \
    do { \
        const char *actual_ = (actual), *expected_ = (expected); \
        if (actual_ == NULL || strcmp(actual_, expected_) != 0) { \
            char text_[4096]; \
            snprintf(text_, sizeof(text_), "%s is \"%s\", expected \"%s\"", #actual, \
                     actual_ != NULL ? actual_ : "(null)", expected_); \
            test_report(__FILE__, __LINE__, text_); \
        } \
    } while (0)

#define CHECK_CONTAINS(actual, part) \
    do { \
        const char *actual_ = (actual), *part_ = (part); \
        if (actual_ == NULL || strstr(actual_, part_) == NULL) { \
            char text_[4096]; \
            snprintf(text_, sizeof(text_), "%s is \"%s\", expected to contain \"%s\"", #actual, \
                     actual_ != NULL ? actual_ : "(null)", part_); \
            test_report(__FILE__, __LINE__, text_); \
        } \
    } while (0)

#define CHECK_NEAR(actual, expected, tolerance) \
    do { \
        double actual_ = (double)(actual), expected_ = (double)(expected); \
        if (!(fabs(actual_ - expected_) <= (double)(tolerance))) { \
            char text_[256]; \
            snprintf(text_, sizeof(text_), "%s is %.9g, expected %.9g within %.3g", #actual, \
                     actual_, expected_, (double)(tolerance)); \
            test_report(__FILE__, __LINE__, text_); \
        } \
    } while (0)

/* Reported as skipped, with the reason; only for what the machine cannot do. */
#define SKIP(reason) \
    do { \
        test_skip_reason = (reason); \
        return; \
    } while (0)

static inline int test_main(int argc, char **argv)
{
    int number = 0, failed = 0;
    setvbuf(stdout, NULL, _IOLBF, 0);
    for (struct test_case *test = test_first; test != NULL; test = test->next) {
        if (argc > 1 && strstr(test->name, argv[1]) == NULL) {
            continue;
        }
        test_failures = 0;
        test_skip_reason = NULL;
        test->run();
        number++;
        failed += test_failures > 0;
        printf("%s %d - %s%s%s\n", test_failures > 0 ? "not ok" : "ok", number, test->name,
               test_skip_reason != NULL ? " # SKIP " : "",
               test_skip_reason != NULL ? test_skip_reason : "");
    }
    printf("1..%d\n", number);
    return failed > 0;
}

#define TEST_MAIN() \
    int main(int argc, char **argv) \
    { \
        return test_main(argc, argv); \
    }

#endif
