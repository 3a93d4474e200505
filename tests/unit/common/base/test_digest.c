/* Vectors: FIPS 180-2 appendix B for SHA-256, RFC 4231 for HMAC-SHA-256. */
#include "common/base/digest.h"

#include "tests/harness/test.h"

TEST(sha256_agrees_with_the_published_vectors)
{
    char hex[DIGEST_HEX_SIZE];
    digest_sha256_hex("", 0, hex);
    CHECK_STR(hex, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    digest_sha256_hex("abc", 3, hex);
    CHECK_STR(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

TEST(hmac_sha256_agrees_with_rfc_4231)
{
    uint8_t digest[DIGEST_SIZE];
    char hex[DIGEST_HEX_SIZE];
    uint8_t key[131];
    memset(key, 0x0b, 20);
    digest_hmac_sha256(key, 20, "Hi There", 8, digest);
    digest_hex(digest, DIGEST_SIZE, hex);
    CHECK_STR(hex, "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7");
    memset(key, 0xaa, sizeof(key));
    const char *text = "Test Using Larger Than Block-Size Key - Hash Key First";
    digest_hmac_sha256(key, sizeof(key), text, strlen(text), digest);
    digest_hex(digest, DIGEST_SIZE, hex);
    CHECK_STR(hex, "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54");
}

TEST(pieces_give_the_digest_of_the_whole)
{
    char hex[DIGEST_HEX_SIZE];
    struct digest *d = digest_create();
    digest_update(d, "a", 1);
    digest_update(d, "", 0);
    digest_update(d, "bc", 2);
    digest_finish_hex(d, hex);
    CHECK_STR(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

TEST(compares_in_constant_time)
{
    CHECK(digest_equal_constant_time("secret", "secret", 6));
    CHECK(!digest_equal_constant_time("secret", "secreu", 6));
    CHECK(digest_equal_constant_time("a", "b", 0));
}

TEST_MAIN()
