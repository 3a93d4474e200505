#include "gateway/submit.h"

#include "tests/harness/test.h"

TEST(an_idempotent_order_has_one_id_everywhere)
{
    char one[ID_SIZE], two[ID_SIZE];
    submit_idempotent_id("studio", "order-17", one);
    submit_idempotent_id("studio", "order-17", two);
    CHECK_STR(one, two);
    CHECK(id_is_valid(one));
    CHECK_INT(one[14], '8');
    CHECK(strchr("89ab", one[19]) != NULL);
}

TEST(other_keys_and_other_orders_have_other_ids)
{
    char one[ID_SIZE], two[ID_SIZE];
    submit_idempotent_id("studio", "order-17", one);
    submit_idempotent_id("studio", "order-18", two);
    CHECK(strcmp(one, two) != 0);
    submit_idempotent_id("other", "order-17", two);
    CHECK(strcmp(one, two) != 0);
}

TEST_MAIN()
