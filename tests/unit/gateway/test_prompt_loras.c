#include "gateway/prompt_loras.h"

#include "tests/harness/test.h"

/* The names in a text, joined by "|". */
static const char *names_of(const char *text)
{
    static char joined[1024];
    char name[PROMPT_LORAS_NAME_MAX];
    size_t length = 0;
    joined[0] = '\0';
    while (prompt_loras_next(&text, name)) {
        length += (size_t)snprintf(joined + length, sizeof(joined) - length, "%s%s", name, "|");
    }
    return joined;
}

TEST(the_names_of_loras_are_found_in_order)
{
    CHECK_STR(names_of("a cat"), "");
    CHECK_STR(names_of("<lora:a>"), "a|");
    CHECK_STR(names_of("a <lora:one two:0.8> cat <lyco:b:0.1:0.2>,<lora:a:te=1>"), "one two|b|a|");
    CHECK_STR(names_of("<<lora:a>>"), "a|");
}

TEST(what_is_no_tag_is_text)
{
    CHECK_STR(names_of("<lora:"), "");
    CHECK_STR(names_of("<lora:>"), "");
    CHECK_STR(names_of("<lora:a"), "");
    CHECK_STR(names_of("<loran:a> < lora:a> <hypernet:a> lora:a>"), "");
    CHECK_STR(names_of("<lora::1>"), "|");
}

TEST(a_name_longer_than_any_is_cut)
{
    char text[1000], name[PROMPT_LORAS_NAME_MAX];
    const char *at = text;
    memset(text, 'a', sizeof(text));
    memcpy(text, "<lora:", 6);
    snprintf(text + 900, 100, ">");
    CHECK(prompt_loras_next(&at, name));
    CHECK_INT(strlen(name), PROMPT_LORAS_NAME_MAX - 1);
    CHECK(*at == '\0');
}

TEST_MAIN()
