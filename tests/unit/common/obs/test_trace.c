#include "common/obs/trace.h"

#include "tests/harness/test.h"

#define TRACE "0af7651916cd43dd8448eb211c80319c"
#define SPAN "b7ad6b7169203331"
#define ZEROS "00000000000000000000000000000000"

static bool parses(const char *text)
{
    struct trace_context context;
    return trace_parse(text, &context);
}

TEST(a_traceparent_is_written_as_it_was_read)
{
    static const char *const texts[] = {"00-" TRACE "-" SPAN "-00", "00-" TRACE "-" SPAN "-01",
                                        "00-" TRACE "-" SPAN "-02", "00-" TRACE "-" SPAN "-03"};
    for (int i = 0; i < 4; i++) {
        struct trace_context context;
        char again[TRACE_PARENT_SIZE];
        REQUIRE(trace_parse(texts[i], &context));
        CHECK_INT(context.is_sampled, i & 1);
        trace_format(&context, again);
        CHECK_STR(again, texts[i]);
    }
}

TEST(what_the_specification_calls_invalid_is_no_traceparent)
{
    CHECK(!parses(""));
    CHECK(!parses("00-" TRACE "-" SPAN));
    CHECK(!parses("00-" TRACE "-" SPAN "-0"));
    CHECK(!parses("00-" TRACE "-" SPAN "-0x"));
    CHECK(!parses("00-" TRACE "-" SPAN "-01 "));
    CHECK(!parses("00-" TRACE "-" SPAN "-01-more"));
    CHECK(!parses("00-" ZEROS "-" SPAN "-01"));
    CHECK(!parses("00-" TRACE "-0000000000000000-01"));
    CHECK(!parses("00-0AF7651916cd43dd8448eb211c80319c-" SPAN "-01"));
    CHECK(!parses("ff-" TRACE "-" SPAN "-01"));
    CHECK(!parses("0g-" TRACE "-" SPAN "-01"));
    CHECK(!parses("00_" TRACE "-" SPAN "-01"));
}

TEST(a_later_version_is_read_as_far_as_this_one_goes)
{
    struct trace_context context;
    char text[TRACE_PARENT_SIZE];
    CHECK(!parses("cc-" TRACE "-" SPAN "-01.what"));
    CHECK(parses("cc-" TRACE "-" SPAN "-01"));
    REQUIRE(trace_parse("cc-" TRACE "-" SPAN "-ff-what-comes", &context));
    trace_format(&context, text);
    CHECK_STR(text, "00-" TRACE "-" SPAN "-03");
}

TEST(a_child_has_its_parents_trace_and_a_span_of_its_own)
{
    struct trace_context root, child, other;
    char text[TRACE_PARENT_SIZE];
    trace_make_root(&root);
    trace_make_root(&other);
    trace_format(&root, text);
    CHECK(parses(text));
    CHECK_STR(text + 53, "00");
    CHECK(memcmp(root.trace_id, other.trace_id, TRACE_ID_BYTES) != 0);
    root.is_sampled = true;
    trace_make_child(&root, &child);
    CHECK(memcmp(root.trace_id, child.trace_id, TRACE_ID_BYTES) == 0);
    CHECK(memcmp(root.span_id, child.span_id, TRACE_SPAN_ID_BYTES) != 0);
    CHECK(child.is_sampled);
}

TEST(a_tracestate_is_carried_within_the_limits_of_the_specification)
{
    char text[1024] = "";
    CHECK(trace_state_is_valid("rojo=00f067aa0ba902b7"));
    CHECK(trace_state_is_valid("congo=t61rcWkgMzE , rojo=00f067aa0ba902b7"));
    CHECK(trace_state_is_valid("fw529a3039@dt=FfRmCaEc;x:1,,0v/a*b-c_d=~"));
    CHECK(!trace_state_is_valid(""));
    CHECK(!trace_state_is_valid(" , "));
    CHECK(!trace_state_is_valid("Rojo=1"));
    CHECK(!trace_state_is_valid("rojo"));
    CHECK(!trace_state_is_valid("rojo="));
    CHECK(!trace_state_is_valid("rojo=a=b"));
    CHECK(!trace_state_is_valid("rojo=\x01"));
    CHECK(!trace_state_is_valid("rojo=\xc3\xa4"));
    for (int i = 0; i < 32; i++) {
        snprintf(text + strlen(text), 16, "%sk%d=v", i > 0 ? "," : "", i);
    }
    CHECK(trace_state_is_valid(text));
    snprintf(text + strlen(text), 8, ",k=v");
    CHECK(!trace_state_is_valid(text));
    memset(text, 'v', sizeof(text));
    memcpy(text, "k=", 2);
    text[2 + 256] = '\0';
    CHECK(trace_state_is_valid(text));
    text[2 + 256] = 'v';
    text[2 + 257] = '\0';
    CHECK(!trace_state_is_valid(text));
    memset(text, ',', 512);
    memcpy(text + 509, "k=v", 4);
    CHECK(trace_state_is_valid(text));
    memset(text, ',', 512);
    memcpy(text + 510, "k=v", 4);
    CHECK(!trace_state_is_valid(text));
}

/* Of 10,000 traces that begin here, or whose parent is as given. */
static int sampled_of(const char *name, const char *argument, const struct trace_context *parent)
{
    struct trace_sampler sampler;
    struct error err;
    int taken = 0;
    if (trace_sampler_init(&sampler, name, argument, &err) < 0) {
        return -1;
    }
    for (int i = 0; i < 10000; i++) {
        struct trace_context context;
        trace_make_root(&context);
        taken += trace_sampler_takes(&sampler, parent, context.trace_id);
    }
    return taken;
}

TEST(samplers_do_what_their_names_say)
{
    const struct trace_context yes = {.is_sampled = true}, no = {.is_sampled = false};
    CHECK_INT(sampled_of("always_on", "", NULL), 10000);
    CHECK_INT(sampled_of("always_on", "", &no), 10000);
    CHECK_INT(sampled_of("always_off", "", &yes), 0);
    CHECK_INT(sampled_of("parentbased_always_on", "", NULL), 10000);
    CHECK_INT(sampled_of("parentbased_always_on", "", &no), 0);
    CHECK_INT(sampled_of("parentbased_always_off", "", NULL), 0);
    CHECK_INT(sampled_of("parentbased_always_off", "", &yes), 10000);
    CHECK_INT(sampled_of("traceidratio", "1", NULL), 10000);
    CHECK_INT(sampled_of("traceidratio", "0", &yes), 0);
    CHECK_NEAR(sampled_of("traceidratio", "0.1", &no), 1000, 150);
    CHECK_NEAR(sampled_of("parentbased_traceidratio", "0.5", NULL), 5000, 250);
    CHECK_INT(sampled_of("parentbased_traceidratio", "0.5", &yes), 10000);
    CHECK_INT(sampled_of("traceidratio", "1.1", NULL), -1);
    CHECK_INT(sampled_of("traceidratio", "-0.1", NULL), -1);
    CHECK_INT(sampled_of("traceidratio", "half", NULL), -1);
    CHECK_INT(sampled_of("traceidratio", "nan", NULL), -1);
    CHECK_INT(sampled_of("jaeger_remote", "", NULL), -1);
}

TEST_MAIN()
