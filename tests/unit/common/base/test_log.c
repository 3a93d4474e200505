#include "common/base/log.h"

#include <unistd.h>

#include "common/base/panic.h"
#include "tests/harness/test.h"

/* What is written to stderr between capture_start and capture_end. */
static FILE *capture_file;
static int capture_saved;

static void capture_start(void)
{
    fflush(stderr);
    capture_file = tmpfile();
    capture_saved = dup(STDERR_FILENO);
    if (capture_file == NULL || dup2(fileno(capture_file), STDERR_FILENO) < 0) {
        PANIC("cannot capture stderr");
    }
}

static const char *capture_end(void)
{
    static char text[65536];
    dup2(capture_saved, STDERR_FILENO);
    close(capture_saved);
    rewind(capture_file);
    text[fread(text, 1, sizeof(text) - 1, capture_file)] = '\0';
    fclose(capture_file);
    return text;
}

static int count(const char *text, char wanted)
{
    int found = 0;
    for (; *text != '\0'; text++) {
        found += *text == wanted;
    }
    return found;
}

TEST(a_line_carries_service_instance_message_and_pairs)
{
    log_init("router", "router-1a2b", LOG_INFO);
    capture_start();
    log_info("lane chosen", "lane=%d", 3);
    const char *text = capture_end();
    CHECK(strncmp(text, "ts=20", 5) == 0);
    CHECK_CONTAINS(text, " level=info service=router instance=router-1a2b msg=\"lane chosen\" "
                         "lane=3\n");
}

TEST(the_job_in_hand_is_on_every_line_until_it_ends)
{
    log_init("worker", "w", LOG_INFO);
    capture_start();
    log_set_job("018f0000-0000-7000-8000-000000000000", 2,
                "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
    CHECK_STR(log_job(), "018f0000-0000-7000-8000-000000000000");
    log_warn("slow", NULL);
    log_set_job(NULL, 0, NULL);
    log_warn("idle", NULL);
    const char *text = capture_end();
    CHECK_CONTAINS(text, "job=018f0000-0000-7000-8000-000000000000 attempt=2 "
                         "trace_id=0af7651916cd43dd8448eb211c80319c "
                         "msg=slow\n");
    CHECK_CONTAINS(text, "instance=w msg=idle\n");
}

TEST(levels_below_the_chosen_one_write_nothing)
{
    log_init("worker", "w", LOG_WARN);
    capture_start();
    log_info("hidden", NULL);
    log_error("shown", NULL);
    const char *text = capture_end();
    CHECK(strstr(text, "hidden") == NULL);
    CHECK_CONTAINS(text, "level=error");
    enum log_level level;
    CHECK(log_level_parse("debug", &level) && level == LOG_DEBUG);
    CHECK(!log_level_parse("loud", &level));
}

TEST(a_value_cannot_forge_a_line_or_a_pair)
{
    log_init("worker", "w", LOG_INFO);
    capture_start();
    const char *prompt = "x\" level=error\nts=1 msg=\"forged\x1b[31m\x7f\xC2\x9B";
    log_info("got", "prompt=%s", LOG_QUOTED(prompt));
    log_info("first\nsecond", "raw=%s", "a\nb");
    const char *text = capture_end();
    CHECK_INT(count(text, '\n'), 2);
    CHECK_CONTAINS(text, "prompt=\"x\\\" level=error\\nts=1 msg=\\\"forged\\x1b[31m\\x7f\\xc2"
                         "\\x9b\"\n");
    CHECK_CONTAINS(text, "msg=\"first\\nsecond\" raw=a b\n");
}

TEST(quotes_only_what_needs_it_and_keeps_utf8)
{
    char out[LOG_QUOTED_MAX];
    CHECK_STR(log_quote("plain-1.5/x", out), "plain-1.5/x");
    CHECK_STR(log_quote("", out), "\"\"");
    CHECK_STR(log_quote("two words", out), "\"two words\"");
    CHECK_STR(log_quote("a=b", out), "\"a=b\"");
    CHECK_STR(log_quote("back\\slash", out), "\"back\\\\slash\"");
    CHECK_STR(log_quote("\xC3\xA9p\xC3\xA9"
                        "e",
                        out),
              "\"\xC3\xA9p\xC3\xA9"
              "e\"");
    CHECK_STR(log_quote("bad\xFFutf8", out), "\"bad\\xffutf8\"");
}

TEST(long_values_and_lines_are_cut_not_split)
{
    log_init("worker", "w", LOG_INFO);
    char *huge = xmalloc(20001);
    memset(huge, 'a', 20000);
    huge[20000] = '\0';
    char out[LOG_QUOTED_MAX];
    log_quote(huge, out);
    CHECK(strlen(out) < LOG_QUOTED_MAX);
    CHECK_STR(out + strlen(out) - 4, "...\"");
    capture_start();
    log_info(huge, "value=%s", huge);
    const char *text = capture_end();
    CHECK_INT(count(text, '\n'), 1);
    CHECK(strlen(text) <= 4096);
    xfree(huge);
}

TEST_MAIN()
