#include "gateway/problem.h"

#include <string.h>

#include "common/base/panic.h"
#include "tests/harness/test.h"

TEST(every_error_has_the_same_shape)
{
    char *body = problem_body("not_found", "There is \"nothing\".", NULL);
    CHECK_STR(body, "{\"error\":{\"code\":\"not_found\",\"message\":\"There is \\\"nothing\\\".\","
                    "\"details\":[]}}");
    xfree(body);
}

TEST(details_name_field_problem_and_what_is_allowed)
{
    struct problem_list list = {.count = 0};
    problem_add(&list, "width", "64 to 128", "%d is out of range", 7);
    problem_add(&list, "x", NULL, "is unknown");
    char *body = problem_body("invalid_request", "m", &list);
    CHECK_CONTAINS(body, "{\"field\":\"width\",\"problem\":\"7 is out of range\","
                         "\"allowed\":\"64 to 128\"},{\"field\":\"x\",\"problem\":\"is unknown\"}");
    xfree(body);
}

TEST(quotations_are_short_and_printable)
{
    char out[PROBLEM_QUOTE_SIZE];
    CHECK_STR(problem_printable("plain", 5, out), "plain");
    CHECK_STR(problem_printable("a\nb\x7f\xff\xc2\x85", 7, out), "a?b???");
    char longer[100];
    memset(longer, 'x', sizeof(longer));
    CHECK_INT(strlen(problem_printable(longer, sizeof(longer), out)), 43);
}

TEST(texts_cut_for_room_stay_utf8)
{
    struct problem_list list = {.count = 0};
    char name[200] = "";
    for (int i = 0; i < 40; i++) {
        strncat(name, "\xe5\x89\xa3", 4);
    }
    problem_add(&list, name, NULL, "x");
    CHECK_INT(strlen(list.details[0].field), 63);
}

TEST_MAIN()
