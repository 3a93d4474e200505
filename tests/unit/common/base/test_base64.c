#include "common/base/base64.h"

#include <string.h>

#include "common/base/panic.h"
#include "tests/harness/test.h"

/* RFC 4648, section 10. */
TEST(the_vectors_of_the_rfc)
{
    static const char *const vectors[][2] = {
        {"", ""},
        {"f", "Zg=="},
        {"fo", "Zm8="},
        {"foo", "Zm9v"},
        {"foob", "Zm9vYg=="},
        {"fooba", "Zm9vYmE="},
        {"foobar", "Zm9vYmFy"},
    };
    for (size_t i = 0; i < sizeof(vectors) / sizeof(vectors[0]); i++) {
        char *text = base64_encode((const uint8_t *)vectors[i][0], strlen(vectors[i][0]));
        CHECK_STR(text, vectors[i][1]);
        xfree(text);
    }
}

TEST(all_bytes_have_a_text)
{
    static const uint8_t bytes[] = {0x00, 0xff, 0x80, 0xfb, 0xf0};
    char *text = base64_encode(bytes, sizeof(bytes));
    CHECK_STR(text, "AP+A+/A=");
    xfree(text);
}

TEST_MAIN()
