#include "gateway/input_id.h"

#include "common/base/digest.h"
#include "common/base/panic.h"
#include "tests/harness/test.h"

#define HASH "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

TEST(an_id_reads_back_as_what_it_was_made_of)
{
    static char sha256[] = HASH;
    Crafterse__V1__Input input = CRAFTERSE__V1__INPUT__INIT, back = CRAFTERSE__V1__INPUT__INIT;
    char id[INPUT_ID_SIZE];
    input.sha256 = sha256;
    input.partition = 1;
    input.offset = 123456789012;
    input.width = 640;
    input.height = 8192;
    input_id_format(&input, id);
    CHECK_STR(id, "input-1-123456789012-640x8192-" HASH);
    REQUIRE(input_id_parse(id, &back));
    CHECK_INT(back.partition, 1);
    CHECK_INT(back.offset, 123456789012);
    CHECK_INT(back.width, 640);
    CHECK_INT(back.height, 8192);
    CHECK_STR(back.sha256, HASH);
    xfree(back.sha256);
}

TEST(anything_else_is_no_id)
{
    static const char *const ids[] = {
        "",
        "input",
        "input-1-2-3x4-",
        "input-1-2-3x4-0123",
        "input-1-2-3x4-" HASH "0",
        "input-1-2-3x4-" HASH " ",
        "input-1-2-0x4-" HASH,
        "input-1-2-3x8193-" HASH,
        "input--1-2-3x4-" HASH,
        "input-1--2-3x4-" HASH,
        "input- 1-2-3x4-" HASH,
        "input-01-2-3x4-" HASH,
        "input-+1-2-3x4-" HASH,
        "input-1-2-3x+4-" HASH,
        "input-1234567890-2-3x4-" HASH,
        "input-1-2-3x4-0123456789ABCDEF0123456789abcdef0123456789abcdef0123456789abcdef",
        "INPUT-1-2-3x4-" HASH,
    };
    for (size_t i = 0; i < sizeof(ids) / sizeof(ids[0]); i++) {
        Crafterse__V1__Input input = CRAFTERSE__V1__INPUT__INIT;
        if (input_id_parse(ids[i], &input)) {
            test_report(__FILE__, __LINE__, ids[i]);
        }
    }
}

TEST_MAIN()
