#include "common/base/buf.h"

#include "common/base/panic.h"
#include "tests/harness/test.h"

TEST(a_new_buffer_reads_as_an_empty_string)
{
    struct buf b;
    buf_init(&b, 10);
    CHECK_STR(b.data, "");
    CHECK_INT(b.size, 0);
    buf_deinit(&b);
}

TEST(appends_and_formats_up_to_the_maximum_and_no_byte_further)
{
    struct buf b;
    struct error err = {0};
    buf_init(&b, 8);
    CHECK_INT(buf_append(&b, "abc", 3, &err), 0);
    CHECK_INT(buf_printf(&b, &err, "-%d", 42), 0);
    CHECK_STR(b.data, "abc-42");
    CHECK_INT(buf_append(&b, "xyz", 3, &err), STATUS_TOO_LARGE);
    CHECK_CONTAINS(err.text, "limit is 8 bytes");
    CHECK_INT(buf_printf(&b, NULL, "%s", "xyz"), STATUS_TOO_LARGE);
    CHECK_STR(b.data, "abc-42");
    CHECK_INT(buf_append(&b, "xy", 2, &err), 0);
    CHECK_STR(b.data, "abc-42xy");
    buf_deinit(&b);
}

TEST(keeps_bytes_that_are_no_text)
{
    struct buf b;
    buf_init(&b, 100);
    CHECK_INT(buf_append(&b, "a\0b", 3, NULL), 0);
    CHECK_INT(b.size, 3);
    CHECK(memcmp(b.data, "a\0b", 4) == 0);
    buf_deinit(&b);
}

TEST(reset_keeps_the_memory_and_take_hands_it_over)
{
    struct buf b;
    size_t size = 99;
    buf_init(&b, 1000);
    CHECK_INT(buf_printf(&b, NULL, "%0200d", 1), 0);
    size_t capacity = b.capacity;
    buf_reset(&b);
    CHECK_STR(b.data, "");
    CHECK_INT(b.capacity, capacity);
    CHECK_INT(buf_append(&b, "kept", 4, NULL), 0);
    char *taken = buf_take(&b, &size);
    CHECK_STR(taken, "kept");
    CHECK_INT(size, 4);
    CHECK_STR(b.data, "");
    xfree(taken);
    taken = buf_take(&b, &size);
    CHECK_STR(taken, "");
    CHECK_INT(size, 0);
    xfree(taken);
    buf_deinit(&b);
}

TEST_MAIN()
