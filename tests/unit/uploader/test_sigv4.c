/* The signer against the examples that AWS publishes: the SigV4 test suite (AKIDEXAMPLE, service
 * "service") and "Signature Calculations for the Authorization Header" of the S3 API reference
 * (AKIAIOSFODNN7EXAMPLE, examplebucket). */
#include "uploader/sigv4.h"

#include "common/base/digest.h"
#include "tests/harness/test.h"

#define SUITE_DATE "20150830T123600Z"
#define S3_DATE "20130524T000000Z"
#define EMPTY_SHA256 "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

static const struct sigv4_key suite_key = {
    "AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", "us-east-1", "service"};
static const struct sigv4_key s3_key = {
    "AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", "us-east-1", "s3"};
static const struct sigv4_pair suite_headers[] = {{"Host", "example.amazonaws.com"},
                                                  {"X-Amz-Date", SUITE_DATE}};
static const struct sigv4_pair s3_headers[] = {{"x-amz-date", S3_DATE},
                                               {"host", "examplebucket.s3.amazonaws.com"},
                                               {"x-amz-content-sha256", EMPTY_SHA256}};

static void check_signature(const struct sigv4_request *request, const struct sigv4_key *key,
                            const char *expected)
{
    struct buf authorization;
    struct error err;
    buf_init(&authorization, 4096);
    CHECK_INT(sigv4_sign(request, key, &authorization, &err), 0);
    CHECK_STR(authorization.data, expected);
    buf_deinit(&authorization);
}

static struct sigv4_request suite_request(const char *method, const char *path)
{
    return (struct sigv4_request){.method = method,
                                  .path = path,
                                  .path_encoding = SIGV4_PATH_TWICE,
                                  .headers = suite_headers,
                                  .header_count = 2,
                                  .payload_sha256 = EMPTY_SHA256,
                                  .date = SUITE_DATE};
}

static struct sigv4_request s3_request(const char *method, const char *path)
{
    return (struct sigv4_request){.method = method,
                                  .path = path,
                                  .path_encoding = SIGV4_PATH_ONCE,
                                  .headers = s3_headers,
                                  .header_count = 3,
                                  .payload_sha256 = EMPTY_SHA256,
                                  .date = S3_DATE};
}

#define SUITE_AUTHORIZATION(headers, signature) \
    "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, " \
    "SignedHeaders=" headers ", Signature=" signature
#define S3_AUTHORIZATION(headers, signature) \
    "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request, " \
    "SignedHeaders=" headers ", Signature=" signature

TEST(suite_get_vanilla)
{
    struct sigv4_request request = suite_request("GET", "/");
    check_signature(
        &request, &suite_key,
        SUITE_AUTHORIZATION("host;x-amz-date",
                            "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"));
}

TEST(suite_post_vanilla)
{
    struct sigv4_request request = suite_request("POST", "/");
    check_signature(
        &request, &suite_key,
        SUITE_AUTHORIZATION("host;x-amz-date",
                            "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"));
}

TEST(suite_get_vanilla_query_order_key_case)
{
    const struct sigv4_pair parameters[] = {{"Param2", "value2"}, {"Param1", "value1"}};
    struct sigv4_request request = suite_request("GET", "/");
    request.parameters = parameters;
    request.parameter_count = 2;
    check_signature(
        &request, &suite_key,
        SUITE_AUTHORIZATION("host;x-amz-date",
                            "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500"));
}

TEST(suite_get_utf8_encodes_the_path)
{
    struct sigv4_request request = suite_request("GET", "/\u1234");
    /* The vector's request holds the raw character, and its canonical form encodes it once. */
    request.path_encoding = SIGV4_PATH_ONCE;
    check_signature(
        &request, &suite_key,
        SUITE_AUTHORIZATION("host;x-amz-date",
                            "8318018e0b0f223aa2bbf98705b62bb787dc9c0e678f255a891fd03141be5d85"));
}

TEST(suite_post_x_www_form_urlencoded)
{
    const struct sigv4_pair headers[] = {{"Content-Type", "application/x-www-form-urlencoded"},
                                         {"Host", "example.amazonaws.com"},
                                         {"X-Amz-Date", SUITE_DATE}};
    char hash[DIGEST_HEX_SIZE];
    digest_sha256_hex("Param1=value1", strlen("Param1=value1"), hash);
    struct sigv4_request request = suite_request("POST", "/");
    request.headers = headers;
    request.header_count = 3;
    request.payload_sha256 = hash;
    check_signature(
        &request, &suite_key,
        SUITE_AUTHORIZATION("content-type;host;x-amz-date",
                            "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a"));
}

TEST(s3_get_object_with_range)
{
    const struct sigv4_pair headers[] = {
        s3_headers[0], s3_headers[1], s3_headers[2], {"Range", "bytes=0-9"}};
    struct sigv4_request request = s3_request("GET", "/test.txt");
    request.headers = headers;
    request.header_count = 4;
    check_signature(
        &request, &s3_key,
        S3_AUTHORIZATION("host;range;x-amz-content-sha256;x-amz-date",
                         "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"));
}

TEST(s3_put_object_encodes_the_key_once)
{
    const char *body = "Welcome to Amazon S3.";
    char hash[DIGEST_HEX_SIZE];
    digest_sha256_hex(body, strlen(body), hash);
    const struct sigv4_pair headers[] = {{"Date", "Fri, 24 May 2013 00:00:00 GMT"},
                                         {"Host", "examplebucket.s3.amazonaws.com"},
                                         {"x-amz-content-sha256", hash},
                                         {"x-amz-date", S3_DATE},
                                         {"x-amz-storage-class", "REDUCED_REDUNDANCY"}};
    struct sigv4_request request = s3_request("PUT", "/test$file.text");
    request.headers = headers;
    request.header_count = 5;
    request.payload_sha256 = hash;
    check_signature(
        &request, &s3_key,
        S3_AUTHORIZATION("date;host;x-amz-content-sha256;x-amz-date;x-amz-storage-class",
                         "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd"));
}

TEST(s3_get_bucket_lifecycle_has_a_parameter_without_value)
{
    const struct sigv4_pair parameters[] = {{"lifecycle", ""}};
    struct sigv4_request request = s3_request("GET", "/");
    request.parameters = parameters;
    request.parameter_count = 1;
    check_signature(
        &request, &s3_key,
        S3_AUTHORIZATION("host;x-amz-content-sha256;x-amz-date",
                         "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543"));
}

TEST(s3_list_objects_sorts_its_parameters)
{
    const struct sigv4_pair parameters[] = {{"prefix", "J"}, {"max-keys", "2"}};
    struct sigv4_request request = s3_request("GET", "/");
    request.parameters = parameters;
    request.parameter_count = 2;
    check_signature(
        &request, &s3_key,
        S3_AUTHORIZATION("host;x-amz-content-sha256;x-amz-date",
                         "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"));
}

static void sign_into(const struct sigv4_request *request, struct buf *out)
{
    struct error err;
    buf_init(out, 4096);
    CHECK_INT(sigv4_sign(request, &suite_key, out, &err), 0);
}

TEST(spaces_around_and_inside_header_values_do_not_matter)
{
    const struct sigv4_pair spaced[] = {{"host", "example.amazonaws.com"},
                                        {"x-amz-date", SUITE_DATE},
                                        {"my-header", "  a   b  c "}};
    const struct sigv4_pair tidy[] = {
        {"my-header", "a b c"}, {"host", "example.amazonaws.com"}, {"x-amz-date", SUITE_DATE}};
    struct buf first, second;
    struct sigv4_request request = suite_request("GET", "/");
    request.headers = spaced;
    request.header_count = 3;
    sign_into(&request, &first);
    request.headers = tidy;
    sign_into(&request, &second);
    CHECK_STR(first.data, second.data);
    buf_deinit(&first);
    buf_deinit(&second);
}

TEST(too_many_headers_are_an_error)
{
    struct sigv4_request request = suite_request("GET", "/");
    request.header_count = SIGV4_HEADERS_MAX + 1;
    struct buf out;
    struct error err;
    buf_init(&out, 4096);
    CHECK_INT(sigv4_sign(&request, &suite_key, &out, &err), STATUS_INVALID);
    CHECK_CONTAINS(err.text, "17 headers");
    buf_deinit(&out);
}

TEST(dates_are_basic_iso_8601_in_utc)
{
    char date[SIGV4_DATE_SIZE];
    sigv4_date(1440938160999u, date);
    CHECK_STR(date, SUITE_DATE);
    sigv4_date(1709164800000u, date);
    CHECK_STR(date, "20240229T000000Z");
}

TEST(encoding_keeps_only_unreserved_characters)
{
    struct buf out;
    buf_init(&out, 256);
    CHECK_INT(sigv4_encode(&out, "a/b c~d_e-f.g$\xc3\xa9+", 0, NULL), 0);
    CHECK_STR(out.data, "a%2Fb%20c~d_e-f.g%24%C3%A9%2B");
    buf_reset(&out);
    CHECK_INT(sigv4_encode(&out, "/ab/c.png", 1, NULL), 0);
    CHECK_STR(out.data, "/ab/c.png");
    buf_deinit(&out);
}

TEST_MAIN()
