/* Prompts are read as AUTOMATIC1111's web UI reads them, and hostile ones are refused in words. */
#include "worker/engine/prompt/prompt_syntax.h"

#include "common/base/panic.h"
#include "tests/harness/test.h"

/* Every part as "text|weight", with BREAK as "/" between them: easy to read in a test. */
static const char *parts_of(const char *prompt)
{
    static char out[4096];
    struct error err;
    struct prompt_syntax syntax;
    size_t used = 0;
    if (prompt_syntax_parse(&syntax, prompt, true, &err) < 0) {
        snprintf(out, sizeof(out), "error: %s", err.text);
        return out;
    }
    out[0] = '\0';
    for (size_t i = 0; i < syntax.part_count && used < sizeof(out); i++) {
        const struct prompt_part *part = &syntax.parts[i];
        used += (size_t)(part->is_break ? snprintf(out + used, sizeof(out) - used, "/")
                                        : snprintf(out + used, sizeof(out) - used, "{%.*s|%g}",
                                                   (int)part->length, part->text, part->weight));
    }
    prompt_syntax_deinit(&syntax);
    return out;
}

TEST(plain_text_is_one_part_of_weight_one)
{
    CHECK_STR(parts_of("a flaming sword, 4k"), "{a flaming sword, 4k|1}");
    CHECK_STR(parts_of(""), "{|1}");
    CHECK_STR(parts_of("time: 12:30"), "{time: 12:30|1}");
    CHECK_STR(parts_of("剣 🗡 BREAKFAST outBREAK BREAK_IN éBREAK"),
              "{剣 🗡 BREAKFAST outBREAK BREAK_IN éBREAK|1}");
}

TEST(brackets_weight_what_they_hold)
{
    CHECK_STR(parts_of("an (important) word"), "{an |1}{important|1.1}{ word|1}");
    CHECK_STR(parts_of("an [unimportant] word"), "{an |1}{unimportant|0.909091}{ word|1}");
    CHECK_STR(parts_of("(word:1.3)"), "{word|1.3}");
    CHECK_STR(parts_of("(word: 1.3 ), (word:-.5)(word:+2.)"),
              "{word|1.3}{, |1}{word|-0.5}{word|2}");
    CHECK_STR(parts_of("(a sword:axe:1.5)"), "{a sword:axe|1.5}");
    CHECK_STR(parts_of("(one)(two)"), "{onetwo|1.1}");
    CHECK_STR(parts_of("a (((house:1.3)) [on] a (hill:0.5), sun, (((sky)))."),
              "{a |1}{house|1.573}{ |1.1}{on|1}{ a |1.1}{hill|0.55}{, sun, |1.1}{sky|1.4641}"
              "{.|1.1}");
}

TEST(syntax_that_is_read_as_words_is_named)
{
    static const struct {
        const char *prompt, *form;
    } cases[] = {
        {"a [cat:dog:0.5]", "[from:to:when]"},
        {"a [dog: 10 ], (b)", "[from:to:when]"},
        {"[(a:1.2) b::.3] c", "[from:to:when]"},
        {"a [cat|dog] on a [mat]", "[a|b]"},
        {"[[cow|]]", "[a|b]"},
        {"a cat AND a dog", "AND"},
        {"AND", "AND"},
        {"a [cat], (b:0.5), a|b, a:0.5, [a:b], [:], [], SAND ANDY and", NULL},
        {"[a \\[:0.5\\] b]", NULL},
        {"[a:b:0.5", NULL},
        {"a:0.5]", NULL},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct error err;
        struct prompt_syntax syntax;
        REQUIRE(prompt_syntax_parse(&syntax, cases[i].prompt, true, &err) == STATUS_OK);
        const char *form = syntax.literal_form != NULL ? syntax.literal_form : "";
        CHECK_STR(form, cases[i].form != NULL ? cases[i].form : "");
        prompt_syntax_deinit(&syntax);
    }
    struct error err;
    struct prompt_syntax negative;
    REQUIRE(prompt_syntax_parse(&negative, "a AND b", false, &err) == STATUS_OK);
    CHECK(negative.literal_form == NULL);
    prompt_syntax_deinit(&negative);
}

TEST(a_bracket_without_its_partner_is_read_as_the_web_ui_reads_it)
{
    CHECK_STR(parts_of("a (sword"), "{a |1}{sword|1.1}");
    CHECK_STR(parts_of("a ((sword)"), "{a |1}{sword|1.21}");
    CHECK_STR(parts_of("a [sword"), "{a |1}{sword|0.909091}");
    CHECK_STR(parts_of("a sword) and ] axe"), "{a sword) and ] axe|1}");
    CHECK_STR(parts_of("smile :)"), "{smile :)|1}");
    CHECK_STR(parts_of("a:1.3)"), "{a:1.3)|1}");
    CHECK_STR(parts_of("([a)b]c"), "{a|1}{b|0.909091}{c|1}");
    CHECK_STR(parts_of("(:1.3)"), "{|1}");
}

TEST(escaped_brackets_are_characters)
{
    CHECK_STR(parts_of("a sword \\(old\\)"), "{a sword (old)|1}");
    CHECK_STR(parts_of("\\[x\\] (y \\(z\\):1.2)"), "{[x] |1}{y (z)|1.2}");
    CHECK_STR(parts_of("back\\\\slash lone\\slash end\\"), "{back\\slash loneslash end|1}");
}

TEST(break_begins_a_new_chunk)
{
    CHECK_STR(parts_of("a BREAK b"), "{a|1}/{b|1}");
    CHECK_STR(parts_of("a\n BREAK\tBREAK  b"), "{a|1}/{|1}/{b|1}");
    CHECK_STR(parts_of("BREAK"), "{|1}/{|1}");
    CHECK_STR(parts_of("(a) BREAK,BREAK (b)"), "{a|1.1}{|1}/{,|1}/{|1}{b|1.1}");
    CHECK_STR(parts_of("(a BREAK b:1.5)"), "{a|1.5}{BREAK|-1.5}{b|1.5}");
    CHECK_STR(parts_of("\\BREAK break"), "{|1}/{break|1}");
}

TEST(adapter_tags_leave_the_text)
{
    struct error err;
    struct prompt_syntax syntax;
    const char *prompt = "a sword<lora:pixel art:0.8>, <lyco:x><lora:y: -1.5> 4k <b:c> <lora:>";
    CHECK_INT(prompt_syntax_parse(&syntax, prompt, true, &err), STATUS_OK);
    CHECK_INT(syntax.part_count, 1);
    CHECK_INT(syntax.parts[0].length, strlen("a sword,  4k <b:c> <lora:>"));
    CHECK(memcmp(syntax.parts[0].text, "a sword,  4k <b:c> <lora:>", syntax.parts[0].length) == 0);
    CHECK_INT(syntax.tag_count, 3);
    CHECK_STR(syntax.tags[0].name, "pixel art");
    CHECK_NEAR(syntax.tags[0].weight, 0.8, 1e-12);
    CHECK_STR(syntax.tags[1].name, "x");
    CHECK_NEAR(syntax.tags[1].weight, 1.0, 1e-12);
    CHECK_STR(syntax.tags[2].name, "y");
    CHECK_NEAR(syntax.tags[2].weight, -1.5, 1e-12);
    prompt_syntax_deinit(&syntax);

    CHECK_INT(prompt_syntax_parse(&syntax, "a <lora:x:0.8>", false, &err), STATUS_OK);
    CHECK_INT(syntax.tag_count, 0);
    CHECK_INT(syntax.parts[0].length, strlen("a <lora:x:0.8>"));
    prompt_syntax_deinit(&syntax);
}

TEST(a_tag_may_weight_text_encoders_and_unet_apart)
{
    struct error err;
    struct prompt_syntax syntax;
    const char *prompt = "<lora:a:0.5:0.8><lora:b:te=0.3><lora:c:0.7:unet=0.2><lora:d:0.6>";
    CHECK_INT(prompt_syntax_parse(&syntax, prompt, true, &err), STATUS_OK);
    REQUIRE(syntax.tag_count == 4);
    const double expected[][2] = {{0.5, 0.8}, {0.3, 1.0}, {0.7, 0.2}, {0.6, 0.6}};
    for (int i = 0; i < 4; i++) {
        CHECK_NEAR(syntax.tags[i].text_weight, expected[i][0], 1e-12);
        CHECK_NEAR(syntax.tags[i].weight, expected[i][1], 1e-12);
    }
    prompt_syntax_deinit(&syntax);
}

TEST(tags_that_cannot_be_done_are_refused)
{
    CHECK_CONTAINS(parts_of("<lora:x:strong>"), "\"<lora:x:strong>\": the weight is not a number");
    CHECK_CONTAINS(parts_of("<lora:x:0.5:0.8:16>"), "only a name, and weights");
    CHECK_CONTAINS(parts_of("<lora:x:dyn=16>"), "the weight is not a number");
    CHECK_CONTAINS(parts_of("<lora::1>"), "a name has 1 to 255 bytes");
    CHECK_CONTAINS(parts_of("<lora:x:1000>"), "a weight is at most 100");
    CHECK_CONTAINS(parts_of("<hypernet:x:1>"), "hypernetworks are not run here");
    CHECK_CONTAINS(parts_of("<lora:1><lora:2><lora:3><lora:4><lora:5><lora:6><lora:7><lora:8>"
                            "<lora:9><lora:a><lora:b><lora:c><lora:d><lora:e><lora:f><lora:g>"
                            "<lora:h>"),
                   "more than 16 <lora:...> tags");
}

TEST(what_is_past_a_limit_is_refused)
{
    char *text = xcalloc(PROMPT_BYTES_MAX + 2, 1);
    memset(text, '(', PROMPT_DEPTH_MAX);
    CHECK_CONTAINS(parts_of(text), "{|1}");
    text[PROMPT_DEPTH_MAX] = '[';
    CHECK_CONTAINS(parts_of(text), "more than 64 brackets are open at once");
    memset(text, 'x', PROMPT_BYTES_MAX + 1);
    CHECK_CONTAINS(parts_of(text), "65537 bytes, at most 65536 are allowed");
    CHECK_CONTAINS(parts_of("(word:1.2.3)"), "the weight \"1.2.3\" is not a number");
    CHECK_CONTAINS(parts_of("(a:101)"), "\"a\": has weight 101, at most 100 is allowed");
    CHECK_CONTAINS(parts_of("((a:99):99)"), "has weight 9801");
    CHECK_CONTAINS(parts_of("a \xff"), "not valid UTF-8");
    xfree(text);
}

TEST(the_worst_nesting_of_a_longest_prompt_is_quick)
{
    struct error err;
    struct prompt_syntax syntax;
    char *text = xcalloc(PROMPT_BYTES_MAX + 1, 1);
    memset(text, '(', PROMPT_DEPTH_MAX);
    for (int i = PROMPT_DEPTH_MAX; i < PROMPT_BYTES_MAX; i++) {
        text[i] = i % 2 == 0 ? ':' : '\\';
    }
    CHECK(prompt_syntax_parse(&syntax, text, true, &err) <
          0); /* 1.1^64 is past the weight's limit */
    memset(text, '[', PROMPT_DEPTH_MAX);
    CHECK_INT(prompt_syntax_parse(&syntax, text, true, &err), STATUS_OK);
    CHECK_INT(syntax.part_count, 1);
    prompt_syntax_deinit(&syntax);
    xfree(text);
}

TEST_MAIN()
