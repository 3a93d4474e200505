#include "common/obs/otlp.h"

#include "common/base/digest.h"
#include "common/base/panic.h"
#include "tests/harness/test.h"

/* What opentelemetry-proto 1.45.2 makes of the same batch: tests/support/otlp_vector.py. */
static const char expected[] =
    "0a9c040a3e0a220a0c736572766963652e6e616d6512120a106372616674657273652d776f726b65"
    "720a180a0f736572766963652e76657273696f6e12050a03312e3212d9030a100a09637261667465"
    "7273651203312e321280030a100102030405060708090a0b0c0d0e0f101208212223242526272822"
    "0811121314151617182a0c70726f63657373206a6f627330053900002a36fe9c97174180b21045fe"
    "9c97174a070a016e120218004a100a016e120b18ffffffffffffffffff014a100a016e120b18feff"
    "ffffffffffffff014a100a016e120b18fdffffffffffffffff014a100a016e120b18fcffffffffff"
    "ffffff014a100a016e120b18fbffffffffffffffff014a100a016e120b18faffffffffffffffff01"
    "4a100a016e120b18f9ffffffffffffffff014a100a016e120b18f8ffffffffffffffff014a100a01"
    "6e120b18f7ffffffffffffffff014a100a016e120b18f6ffffffffffffffff014a100a016e120b18"
    "f5ffffffffffffffff014a100a016e120b18f4ffffffffffffffff014a100a016e120b18f3ffffff"
    "ffffffffff014a100a016e120b18f2ffffffffffffffff014a1c0a0a6572726f722e74797065120e"
    "0a0c656e67696e655f6572726f7250017a0b12076e6f206c75636b180285010100000012420a1001"
    "02030405060708090a0b0c0d0e0f10120831323334353637382a0a6c6f6164206d6f64656c300139"
    "0100000000000000410165cd1d00000000850101000000";

static struct trace_context place(uint8_t first_of_span)
{
    struct trace_context context = {.is_sampled = true};
    for (uint8_t i = 0; i < TRACE_ID_BYTES; i++) {
        context.trace_id[i] = (uint8_t)(i + 1);
    }
    for (uint8_t i = 0; i < TRACE_SPAN_ID_BYTES; i++) {
        context.span_id[i] = (uint8_t)(first_of_span + i);
    }
    return context;
}

static struct span *make_failed_span(void)
{
    const struct trace_context parent = place(0x11), context = place(0x21);
    struct span *span = span_create("process jobs", SPAN_CONSUMER, &context, &parent);
    span_set_start(span, 1700000000000000000);
    for (int i = 0; i < 15; i++) {
        span_set_number(span, "n", -i);
    }
    span_fail(span, "engine_error", "no luck");
    span_set_text(span, "one.more", "has no room");
    span_finish(span, 0.25);
    return span;
}

TEST(a_batch_has_the_bytes_that_opentelemetry_gives_it)
{
    const struct trace_context context = place(0x31);
    struct pairs resource = {.count = 0};
    pairs_add(&resource, "service.name", "crafterse-worker");
    pairs_add(&resource, "service.version", "1.2");
    struct span *spans[] = {make_failed_span(),
                            span_create("load model", SPAN_INTERNAL, &context, NULL)};
    span_set_start(spans[1], 1);
    span_finish(spans[1], 0.5);
    size_t size;
    uint8_t *bytes = otlp_pack(&resource, "1.2", spans, 2, &size);
    char *hex = xmalloc(2 * size + 1);
    digest_hex(bytes, size, hex);
    CHECK_STR(hex, expected);
    xfree(hex);
    xfree(bytes);
    span_destroy(spans[0]);
    span_destroy(spans[1]);
    pairs_deinit(&resource);
}

TEST(an_answer_says_how_many_spans_were_refused)
{
    static const char partial[] = "\x0a\x0c\x08\x03\x12\x08too many"; /* otlp_vector.py */
    int64_t rejected = -1;
    char why[16];
    struct error err;
    CHECK_INT(otlp_read_answer(partial, sizeof(partial) - 1, &rejected, why, sizeof(why), &err), 0);
    CHECK_INT(rejected, 3);
    CHECK_STR(why, "too many");
    CHECK_INT(otlp_read_answer("", 0, &rejected, why, sizeof(why), &err), 0);
    CHECK_INT(rejected, 0);
    CHECK_STR(why, "");
    CHECK_INT(otlp_read_answer("<html>", 6, &rejected, why, sizeof(why), &err), STATUS_CORRUPT);
}

TEST_MAIN()
