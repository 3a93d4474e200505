#include "common/base/hash.h"

#include "tests/harness/test.h"

TEST(texts_and_their_order_make_a_difference)
{
    CHECK(hash_text("sword") == hash_text("sword"));
    CHECK(hash_text("sword") != hash_text("words"));
    CHECK(hash_two_texts("a", "b") != hash_two_texts("b", "a"));
    CHECK(hash_two_texts("ab", "c") != hash_two_texts("a", "bc"));
}

TEST(the_low_bits_spread_numbered_names)
{
    enum { ROWS = 1024, NAMES = 16 * ROWS };
    unsigned rows[ROWS] = {0};
    char name[32];
    for (unsigned i = 0; i < NAMES; i++) {
        snprintf(name, sizeof(name), "order-%u", i);
        rows[hash_text(name) % ROWS]++;
    }
    for (unsigned i = 0; i < ROWS; i++) {
        CHECK(rows[i] > 0 && rows[i] < 48);
    }
}

TEST_MAIN()
