#include "common/obs/span.h"

#include "tests/harness/test.h"

static struct span *make(void)
{
    struct trace_context context;
    trace_make_root(&context);
    return span_create("x", SPAN_INTERNAL, &context, NULL);
}

TEST(texts_are_cut_at_a_character_and_made_utf8)
{
    struct span *span = make();
    char text[SPAN_TEXT_MAX + 8];
    memset(text, 'a', sizeof(text));
    memcpy(text + SPAN_TEXT_MAX - 1, "\xc3\xa4\0", 3);
    span_set_text(span, "long", text);
    CHECK_INT(strlen(span->attributes[0].text), SPAN_TEXT_MAX - 1);
    span_set_text(span, "bad",
                  "a\xff\xc3"
                  "b");
    CHECK_STR(span->attributes[1].text, "a??b");
    span_set_text(span, "empty", "");
    span_set_text(span, "none", NULL);
    CHECK_INT(span->attribute_count, 2);
    span_destroy(span);
}

TEST(the_first_failure_is_the_reason)
{
    struct span *span = make();
    span_fail(span, "timeout", "no answer");
    span_fail(span, "other", "later");
    CHECK_STR(span->failure, "no answer");
    CHECK_STR(span->attributes[0].key, "error.type");
    CHECK_STR(span->attributes[0].text, "timeout");
    CHECK_INT(span->attribute_count, 1);
    span_destroy(span);
}

TEST(a_span_ends_now_or_as_long_after_its_start_as_is_said)
{
    struct span *span = make();
    uint64_t now_ns = span->start_ns;
    span_set_start(span, now_ns - 2000000000);
    span_finish(span, -1);
    CHECK_NEAR((double)(span->end_ns - now_ns) / 1e9, 0, 0.5);
    span_finish(span, 0);
    CHECK_INT(span->end_ns, span->start_ns);
    span_finish(span, 1.5);
    CHECK_INT(span->end_ns - span->start_ns, 1500000000);
    span_destroy(span);
}

TEST(a_span_that_nobody_records_takes_everything)
{
    span_set_text(NULL, "a", "b");
    span_set_number(NULL, "a", 1);
    span_set_start(NULL, 1);
    span_fail(NULL, "a", "b");
    span_finish(NULL, -1);
    span_destroy(NULL);
}

TEST_MAIN()
