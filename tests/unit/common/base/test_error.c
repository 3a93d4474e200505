#include "common/base/error.h"

#include "tests/harness/test.h"

TEST(an_error_carries_status_text_place_and_retriable_flag)
{
    struct error err;
    int result = ERROR(&err, STATUS_TIMEOUT, "no answer from %s in %d ms", "kafka:9092", 500);
    CHECK_INT(result, STATUS_TIMEOUT);
    CHECK_STR(err.text, "no answer from kafka:9092 in 500 ms");
    CHECK(err.retriable);
    CHECK_CONTAINS(err.file, "test_error.c");
    CHECK_INT(ERROR(&err, STATUS_INVALID, "width 3"), STATUS_INVALID);
    CHECK(!err.retriable);
}

TEST(the_retriable_flag_can_be_said_outright)
{
    struct error err;
    ERROR_FINAL(&err, STATUS_TIMEOUT, "sent, outcome unknown");
    CHECK(!err.retriable);
    ERROR_RETRY(&err, STATUS_IO, "disk full");
    CHECK(err.retriable);
}

TEST(wrapping_puts_the_context_before_the_cause)
{
    struct error err;
    ERROR(&err, STATUS_CORRUPT, "header is cut off");
    CHECK_INT(error_wrap(&err, "unet/%s", "model.safetensors"), STATUS_CORRUPT);
    CHECK_STR(err.text, "unet/model.safetensors: header is cut off");
}

TEST(a_text_that_is_too_long_is_cut_at_a_character)
{
    char text[ERROR_TEXT_MAX + 2];
    memset(text, 'a', sizeof(text));
    memcpy(text + ERROR_TEXT_MAX - 3, "\xE2\x82\xAC", 4);
    struct error err;
    ERROR(&err, STATUS_INVALID, "%s", text);
    CHECK_INT(strlen(err.text), ERROR_TEXT_MAX - 3);
}

TEST(a_text_is_utf8_whatever_it_quotes)
{
    struct error err;
    ERROR(&err, STATUS_INVALID, "the peer says \"%s\"", "\x80\x81 caf\xE9");
    CHECK_STR(err.text, "the peer says \"?? caf?\"");
    error_wrap(&err, "%s", "\xFF");
    CHECK_STR(err.text, "?: the peer says \"?? caf?\"");
}

TEST_MAIN()
