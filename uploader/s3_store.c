/* See s3_store.h. Facts about R2 that shape this file: no chunked signing, no 100-continue, one
 * write a second and key, 412 on a failed condition; AWS may also answer 409 when two writers of a
 * key meet. */
#include "uploader/s3_store.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include <curl/curl.h>

#include "common/base/clock.h"
#include "common/base/digest.h"
#include "common/base/panic.h"
#include "common/obs/tracing.h"
#include "uploader/sigv4.h"

#define ANSWER_BYTES_MAX 2048 /* of an error's body: enough for its code and message */
#define URL_BYTES_MAX 4096
#define CONNECT_TIMEOUT_MS 10000

struct s3_store {
    struct store store;
    struct s3_store_settings settings;
    char *host; /* "name" or "name:port": the Host header */
    CURL *curl;
    char *answer; /* ANSWER_BYTES_MAX + 1 */
    size_t answer_size;
    struct buf *body; /* where a successful answer's body goes too; NULL = nowhere */
    bool body_overran;
};

struct request {
    const char *method;
    const char *key; /* "" = the bucket */
    const void *body;
    size_t body_size;
    const struct sigv4_pair *headers; /* on top of those that every request has */
    size_t header_count;
};

static struct s3_store *from_store(struct store *s)
{
    return (struct s3_store *)(void *)s;
}

int s3_store_library_init(struct error *err)
{
    CURLcode code = curl_global_init(CURL_GLOBAL_DEFAULT);
    return code == CURLE_OK ? 0
                            : ERROR(err, STATUS_INTERNAL, "libcurl does not start: %s",
                                    curl_easy_strerror(code));
}

void s3_store_library_deinit(void)
{
    curl_global_cleanup();
}

/* ---- The endpoint -----------------------------------------------------------------------------
 */

/* Sets *host (curl_free) and *port (curl_free; NULL when it is the scheme's own). */
static bool split_endpoint(CURLU *url, const char *endpoint, char **host, char **port)
{
    char *path = NULL, *scheme = NULL;
    bool fine = curl_url_set(url, CURLUPART_URL, endpoint, 0) == CURLUE_OK &&
                curl_url_get(url, CURLUPART_SCHEME, &scheme, 0) == CURLUE_OK &&
                curl_url_get(url, CURLUPART_PATH, &path, 0) == CURLUE_OK &&
                curl_url_get(url, CURLUPART_HOST, host, 0) == CURLUE_OK;
    fine = fine && strcmp(path, "/") == 0 && strncmp(scheme, "http", 4) == 0;
    if (fine && curl_url_get(url, CURLUPART_PORT, port, CURLU_NO_DEFAULT_PORT) != CURLUE_OK) {
        *port = NULL;
    }
    curl_free(path);
    curl_free(scheme);
    return fine;
}

/* The value of the Host header, as curl will send it; xfree. NULL for an address that is none. */
static char *endpoint_host(const char *endpoint)
{
    CURLU *url = curl_url();
    char *host = NULL, *port = NULL, *text = NULL;
    if (url != NULL && split_endpoint(url, endpoint, &host, &port)) {
        size_t size = strlen(host) + (port != NULL ? strlen(port) : 0) + 2;
        text = xmalloc(size);
        snprintf(text, size, "%s%s%s", host, port != NULL ? ":" : "", port != NULL ? port : "");
    }
    curl_free(host);
    curl_free(port);
    curl_url_cleanup(url);
    return text;
}

int s3_store_check_endpoint(const char *endpoint, struct error *err)
{
    char *host = endpoint_host(endpoint);
    bool fine = host != NULL && strstr(endpoint, "://") != NULL;
    xfree(host);
    return fine ? 0
                : ERROR(err, STATUS_INVALID,
                        "S3_ENDPOINT is \"%s\": expected an http or https "
                        "address without path, for example https://s3.eu-central-1.amazonaws.com",
                        endpoint);
}

/* ---- One request ------------------------------------------------------------------------------
 */

static size_t keep_answer(char *data, size_t size, size_t count, void *user)
{
    struct s3_store *s = user;
    size_t bytes = size * count, room = ANSWER_BYTES_MAX - s->answer_size;
    size_t kept = bytes < room ? bytes : room;
    memcpy(s->answer + s->answer_size, data, kept);
    s->answer_size += kept;
    s->answer[s->answer_size] = '\0';
    long http_status = 0;
    curl_easy_getinfo(s->curl, CURLINFO_RESPONSE_CODE, &http_status);
    if (s->body != NULL && http_status == 200 && buf_append(s->body, data, bytes, NULL) != 0) {
        s->body_overran = true;
        return 0; /* curl gives up */
    }
    return bytes;
}

static int append_header(struct curl_slist **list, const char *name, const char *value,
                         struct error *err)
{
    struct buf line;
    buf_init(&line, URL_BYTES_MAX);
    int rc = buf_printf(&line, err, "%s: %s", name, value);
    struct curl_slist *longer = rc == 0 ? curl_slist_append(*list, line.data) : NULL;
    buf_deinit(&line);
    if (rc == 0 && longer == NULL) {
        PANIC("out of memory for the headers of a request");
    }
    *list = longer != NULL ? longer : *list;
    return rc;
}

static int sign(const struct s3_store *s, const struct sigv4_request *signing,
                struct curl_slist **list, struct error *err)
{
    const struct sigv4_key key = {.access_key_id = s->settings.access_key_id,
                                  .secret_access_key = s->settings.secret_access_key,
                                  .region = s->settings.region,
                                  .service = "s3"};
    struct buf authorization;
    buf_init(&authorization, URL_BYTES_MAX);
    int rc = sigv4_sign(signing, &key, &authorization, err);
    for (size_t i = 0; i < signing->header_count && rc == 0; i++) {
        rc = append_header(list, signing->headers[i].name, signing->headers[i].value, err);
    }
    rc = rc == 0 ? append_header(list, "Authorization", authorization.data, err) : rc;
    /* "Expect:" tells curl to leave that header away: R2 never answers 100-continue. */
    rc = rc == 0 ? append_header(list, "Expect", "", err) : rc;
    buf_deinit(&authorization);
    return rc;
}

static int make_headers(const struct s3_store *s, const struct request *r, const char *path,
                        struct curl_slist **list, struct error *err)
{
    char date[SIGV4_DATE_SIZE], payload[DIGEST_HEX_SIZE];
    sigv4_date(clock_unix_ms(), date);
    digest_sha256_hex(r->body_size > 0 ? r->body : "", r->body_size, payload);

    struct sigv4_pair headers[SIGV4_HEADERS_MAX] = {
        {"Host", s->host}, {"x-amz-content-sha256", payload}, {"x-amz-date", date}};
    const size_t own = 3;
    ASSERT(own + r->header_count <= SIGV4_HEADERS_MAX);
    if (r->header_count > 0) {
        memcpy(headers + own, r->headers, r->header_count * sizeof(headers[0]));
    }
    const struct sigv4_request signing = {.method = r->method,
                                          .path = path,
                                          .path_encoding = SIGV4_PATH_ONCE,
                                          .headers = headers,
                                          .header_count = own + r->header_count,
                                          .payload_sha256 = payload,
                                          .date = date};
    return sign(s, &signing, list, err);
}

/* "/bucket/key", not encoded. */
static int make_path(const struct s3_store *s, const char *key, struct buf *path, struct error *err)
{
    return buf_printf(path, err, "/%s%s%s", s->settings.bucket, key[0] != '\0' ? "/" : "", key);
}

static int make_url(const struct s3_store *s, const char *path, struct buf *url, struct error *err)
{
    size_t length = strlen(s->settings.endpoint);
    length -= length > 0 && s->settings.endpoint[length - 1] == '/';
    int rc = buf_append(url, s->settings.endpoint, length, err);
    return rc == 0 ? sigv4_encode(url, path, 1, err) : rc;
}

static int curl_error(CURLcode code, const char *detail, const struct request *r, const char *url,
                      struct error *err)
{
    const char *text = detail[0] != '\0' ? detail : curl_easy_strerror(code);
    switch ((int)code) {
    case CURLE_OPERATION_TIMEDOUT:
        return ERROR(err, STATUS_TIMEOUT, "%s %s: %s", r->method, url, text);
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CACERT_BADFILE:
    case CURLE_SSL_CERTPROBLEM:
        return ERROR(err, STATUS_DENIED,
                     "%s %s: %s; check the endpoint and the CA certificates of "
                     "this machine",
                     r->method, url, text);
    case CURLE_URL_MALFORMAT:
    case CURLE_UNSUPPORTED_PROTOCOL:
        return ERROR(err, STATUS_INVALID, "%s %s: %s; check S3_ENDPOINT", r->method, url, text);
    default:
        return ERROR(err, STATUS_UNAVAILABLE, "%s %s: %s", r->method, url, text);
    }
}

static void prepare(struct s3_store *s, const struct request *r, const char *url,
                    struct curl_slist *headers, char detail[CURL_ERROR_SIZE])
{
    curl_easy_reset(s->curl); /* keeps the connection */
    detail[0] = '\0';
    s->answer_size = 0;
    s->answer[0] = '\0';
    curl_easy_setopt(s->curl, CURLOPT_URL, url);
    curl_easy_setopt(s->curl, CURLOPT_HTTPHEADER, headers);
    curl_easy_setopt(s->curl, CURLOPT_ERRORBUFFER, detail);
    curl_easy_setopt(s->curl, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(s->curl, CURLOPT_TCP_KEEPALIVE, 1L);
    curl_easy_setopt(s->curl, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(s->curl, CURLOPT_CONNECTTIMEOUT_MS, (long)CONNECT_TIMEOUT_MS);
    curl_easy_setopt(s->curl, CURLOPT_TIMEOUT_MS, (long)s->settings.timeout_ms);
    curl_easy_setopt(s->curl, CURLOPT_WRITEFUNCTION, keep_answer);
    curl_easy_setopt(s->curl, CURLOPT_WRITEDATA, s);
    if (strcmp(r->method, "HEAD") == 0) {
        curl_easy_setopt(s->curl, CURLOPT_NOBODY, 1L);
    } else if (strcmp(r->method, "GET") == 0) {
        curl_easy_setopt(s->curl, CURLOPT_HTTPGET, 1L);
    } else {
        curl_easy_setopt(s->curl, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)r->body_size);
        curl_easy_setopt(s->curl, CURLOPT_POSTFIELDS, r->body);
        curl_easy_setopt(s->curl, CURLOPT_CUSTOMREQUEST, r->method);
    }
}

/* The request's part of the trace; url has no secrets, they are in headers. */
static struct span *begin_span(const struct s3_store *s, const struct request *r, const char *url)
{
    struct span *span = tracing_begin_child(r->method, SPAN_CLIENT, tracing_current());
    span_set_text(span, "http.request.method", r->method);
    span_set_text(span, "server.address", s->host);
    span_set_text(span, "url.full", url);
    return span;
}

/* 412 is no failure: the object was there first. */
static void end_span(struct span *span, int rc, long http_status, const struct error *err)
{
    char type[16];
    snprintf(type, sizeof(type), "%ld", http_status);
    if (rc != 0) {
        span_fail(span, status_name(err->status), err->text);
    } else {
        span_set_number(span, "http.response.status_code", http_status);
    }
    if (rc == 0 && http_status >= 400 && http_status != 412) {
        span_fail(span, type, NULL);
    }
    tracing_end(span);
}

/* Sends r and waits for the answer; its status goes to *http_status, its body to s->answer. `what`
 * gets "PUT <address>" for messages. Fails only when there was no answer. */
static int perform(struct s3_store *s, const struct request *r, long *http_status, struct buf *what,
                   struct error *err)
{
    char detail[CURL_ERROR_SIZE];
    struct curl_slist *headers = NULL;
    struct buf path, url;
    buf_init(&path, URL_BYTES_MAX);
    buf_init(&url, URL_BYTES_MAX);
    int rc = make_path(s, r->key, &path, err);
    rc = rc == 0 ? make_url(s, path.data, &url, err) : rc;
    rc = rc == 0 ? make_headers(s, r, path.data, &headers, err) : rc;
    rc = rc == 0 ? buf_printf(what, err, "%s %s", r->method, url.data) : rc;
    if (rc == 0) {
        prepare(s, r, url.data, headers, detail);
        struct span *span = begin_span(s, r, url.data);
        CURLcode code = curl_easy_perform(s->curl);
        rc = code == CURLE_OK ? 0 : curl_error(code, detail, r, url.data, err);
        curl_easy_getinfo(s->curl, CURLINFO_RESPONSE_CODE, http_status);
        end_span(span, rc, *http_status, err);
    }
    curl_slist_free_all(headers);
    buf_deinit(&path);
    buf_deinit(&url);
    return rc;
}

/* ---- What an answer means ---------------------------------------------------------------------
 */

/* The body as one line of plain text. */
static void flatten(const char *body, char *out, size_t size)
{
    size_t used = 0;
    for (const char *c = body; *c != '\0' && used + 1 < size; c++) {
        unsigned char byte = (unsigned char)*c;
        out[used++] = byte < 0x20 || byte == 0x7f ? ' ' : *c;
    }
    out[used] = '\0';
}

int s3_store_judge(long http_status, const char *what, const char *body, struct error *err)
{
    char text[512];
    if (http_status >= 200 && http_status <= 299) {
        return 0;
    }
    flatten(body, text, sizeof(text));
    if (http_status == 413 || (http_status == 400 && strstr(body, "EntityTooLarge") != NULL)) {
        return ERROR(err, STATUS_TOO_LARGE,
                     "%s: the store does not take an object of this size: "
                     "%ld %s",
                     what, http_status, text);
    }
    switch (http_status) {
    case 401:
    case 403:
        return ERROR(err, STATUS_DENIED,
                     "%s: the store refuses these credentials (or this "
                     "machine's clock is wrong): %ld %s",
                     what, http_status, text);
    case 404:
        return ERROR(err, STATUS_NOT_FOUND, "%s: not found: %s", what, text);
    case 408:
    case 409:
    case 412:
    case 425:
    case 429:
        return ERROR(err, STATUS_UNAVAILABLE, "%s: not now: %ld %s", what, http_status, text);
    case 501:
        return ERROR(err, STATUS_UNSUPPORTED, "%s: the store does not know this request: %s", what,
                     text);
    default:
        return http_status >= 500
                   ? ERROR(err, STATUS_UNAVAILABLE, "%s: the store fails: %ld %s", what,
                           http_status, text)
                   : ERROR(err, STATUS_INVALID, "%s: the store refuses the request: %ld %s", what,
                           http_status, text);
    }
}

/* ---- The interface ----------------------------------------------------------------------------
 */

/* As s3_store_judge, of a request that reads. Whether a refused object is there cannot be told: to
 * take it for missing would fail the jobs of a key that may write and not read. */
static int judge_reading(long http_status, const char *what, const char *body, struct error *err)
{
    int rc = s3_store_judge(http_status, what, body, err);
    return http_status == 403
               ? error_wrap(err, "the key needs s3:GetObject, and s3:ListBucket of the bucket, "
                                 "without which AWS refuses objects that are not there")
               : rc;
}

static int head(struct s3_store *s, const char *key, uint64_t *size, struct error *err)
{
    const struct request request = {.method = "HEAD", .key = key};
    long http_status = 0;
    struct buf what;
    buf_init(&what, URL_BYTES_MAX);
    int rc = perform(s, &request, &http_status, &what, err);
    rc = rc == 0 ? judge_reading(http_status, what.data, "", err) : rc;
    buf_deinit(&what);
    if (rc == 0) {
        curl_off_t length = -1;
        curl_easy_getinfo(s->curl, CURLINFO_CONTENT_LENGTH_DOWNLOAD_T, &length);
        *size = length > 0 ? (uint64_t)length : 0;
    }
    return rc;
}

/* The object was there first. Whether its bytes are ours is told by its size; its ETag is an MD5
 * only by custom. */
static int describe_existing(struct s3_store *s, const char *key, size_t size,
                             struct store_result *result, struct error *err)
{
    int rc = head(s, key, &result->size, err);
    if (rc == STATUS_NOT_FOUND) {
        return ERROR_RETRY(err, STATUS_UNAVAILABLE,
                           "object %s existed a moment ago and is gone now", key);
    }
    result->outcome = result->size == size ? STORE_EXISTS : STORE_DIFFERS;
    return rc;
}

/* In place of NOT_FOUND, which is said of objects only. */
static int no_bucket(const struct s3_store *s, struct error *err)
{
    const struct error answer = *err;
    return ERROR(err, STATUS_DENIED, "there is no bucket \"%s\": make it, or set S3_BUCKET (%s)",
                 s->settings.bucket, answer.text);
}

static int put(struct store *store, const char *key, const void *data, size_t size,
               struct store_result *result, struct error *err)
{
    struct s3_store *s = from_store(store);
    const struct sigv4_pair headers[] = {
        {"Content-Type", "image/png"},
        {"Cache-Control", "public, max-age=31536000, immutable"},
        {"If-None-Match", "*"},
    };
    const struct request request = {.method = "PUT",
                                    .key = key,
                                    .body = data,
                                    .body_size = size,
                                    .headers = headers,
                                    .header_count = sizeof(headers) / sizeof(headers[0])};
    long http_status = 0;
    struct buf what;
    buf_init(&what, URL_BYTES_MAX);
    int rc = perform(s, &request, &http_status, &what, err);
    if (rc == 0 && http_status == 412) {
        rc = describe_existing(s, key, size, result, err);
    } else if (rc == 0) {
        rc = s3_store_judge(http_status, what.data, s->answer, err);
        rc = rc == STATUS_NOT_FOUND ? no_bucket(s, err) : rc;
        *result = (struct store_result){.outcome = STORE_CREATED, .size = size};
    }
    buf_deinit(&what);
    return rc;
}

static int get(struct store *store, const char *key, void **data, size_t *size, struct error *err)
{
    struct s3_store *s = from_store(store);
    const struct request request = {.method = "GET", .key = key};
    long http_status = 0;
    struct buf what, body;
    buf_init(&what, URL_BYTES_MAX);
    buf_init(&body, STORE_OBJECT_BYTES_MAX);
    s->body = &body;
    s->body_overran = false;
    int rc = perform(s, &request, &http_status, &what, err);
    s->body = NULL;
    if (s->body_overran) {
        rc = ERROR(err, STATUS_TOO_LARGE, "%s: the object has more than %d bytes", what.data,
                   STORE_OBJECT_BYTES_MAX);
    }
    rc = rc == 0 ? judge_reading(http_status, what.data, s->answer, err) : rc;
    if (rc == STATUS_NOT_FOUND && strstr(s->answer, "NoSuchBucket") != NULL) {
        rc = no_bucket(s, err);
    }
    if (rc == 0) {
        *data = buf_take(&body, size);
    }
    buf_deinit(&what);
    buf_deinit(&body);
    return rc;
}

static int size_of(struct store *store, const char *key, uint64_t *size, struct error *err)
{
    return head(from_store(store), key, size, err);
}

/* Keys that may only read and write objects are refused the bucket itself: that is fine. */
static int check(struct store *store, struct error *err)
{
    struct s3_store *s = from_store(store);
    uint64_t size = 0;
    int rc = head(s, "", &size, err);
    if (rc == STATUS_NOT_FOUND) {
        return no_bucket(s, err);
    }
    return rc == STATUS_DENIED ? 0 : rc;
}

static void destroy(struct store *store)
{
    struct s3_store *s = from_store(store);
    curl_easy_cleanup(s->curl);
    xfree(s->host);
    xfree(s->answer);
    xfree(s);
}

static const struct store_operations operations = {
    .put = put, .size = size_of, .get = get, .check = check, .destroy = destroy};

int s3_store_create(struct store **out, const struct s3_store_settings *settings, struct error *err)
{
    int rc = s3_store_check_endpoint(settings->endpoint, err);
    if (rc != 0) {
        return rc;
    }
    struct s3_store *s = xcalloc(1, sizeof(*s));
    s->store.operations = &operations;
    s->settings = *settings;
    s->host = endpoint_host(settings->endpoint);
    s->answer = xcalloc(1, ANSWER_BYTES_MAX + 1);
    s->curl = curl_easy_init();
    if (s->curl == NULL) {
        destroy(&s->store);
        return ERROR(err, STATUS_INTERNAL, "libcurl gives no handle");
    }
    *out = &s->store;
    return 0;
}
