/* See sigv4.h. The steps and their names are those of AWS's description: canonical request, string
 * to sign, signing key, signature. */
#include "uploader/sigv4.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include "common/base/digest.h"

#define CANONICAL_BYTES_MAX (64 * 1024)
#define SCOPE_MAX 256

void sigv4_date(uint64_t unix_ms, char date[SIGV4_DATE_SIZE])
{
    time_t seconds = (time_t)(unix_ms / 1000);
    struct tm utc;
    gmtime_r(&seconds, &utc);
    strftime(date, SIGV4_DATE_SIZE, "%Y%m%dT%H%M%SZ", &utc);
}

static bool is_unreserved(char c)
{
    return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '.' || c == '_' || c == '~';
}

int sigv4_encode(struct buf *out, const char *text, int keep_slash, struct error *err)
{
    for (const char *c = text; *c != '\0'; c++) {
        int rc = is_unreserved(*c) || (keep_slash && *c == '/')
                     ? buf_append(out, c, 1, err)
                     : buf_printf(out, err, "%%%02X", (unsigned char)*c);
        if (rc != 0) {
            return rc;
        }
    }
    return 0;
}

/* ---- Canonical request ------------------------------------------------------------------------
 */

static int append_path(struct buf *out, const struct sigv4_request *request, struct error *err)
{
    if (request->path_encoding == SIGV4_PATH_ONCE) {
        return sigv4_encode(out, request->path, 1, err);
    }
    struct buf once;
    buf_init(&once, CANONICAL_BYTES_MAX);
    int rc = sigv4_encode(&once, request->path, 1, err);
    rc = rc == 0 ? sigv4_encode(out, once.data, 1, err) : rc;
    buf_deinit(&once);
    return rc;
}

static int compare_parameters(const void *a, const void *b)
{
    const struct sigv4_pair *left = a, *right = b;
    int order = strcmp(left->name, right->name);
    return order != 0 ? order : strcmp(left->value, right->value);
}

static int append_query(struct buf *out, const struct sigv4_request *request, struct error *err)
{
    struct sigv4_pair sorted[SIGV4_PARAMETERS_MAX];
    size_t count = request->parameter_count;
    if (count > 0) {
        memcpy(sorted, request->parameters, count * sizeof(sorted[0]));
        qsort(sorted, count, sizeof(sorted[0]), compare_parameters);
    }
    int rc = 0;
    for (size_t i = 0; i < count && rc == 0; i++) {
        rc = i > 0 ? buf_append(out, "&", 1, err) : 0;
        rc = rc == 0 ? sigv4_encode(out, sorted[i].name, 0, err) : rc;
        rc = rc == 0 ? buf_append(out, "=", 1, err) : rc;
        rc = rc == 0 ? sigv4_encode(out, sorted[i].value, 0, err) : rc;
    }
    return rc;
}

static int compare_headers(const void *a, const void *b)
{
    const struct sigv4_pair *left = a, *right = b;
    return strcasecmp(left->name, right->name);
}

static char lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
}

static int append_lower(struct buf *out, const char *name, struct error *err)
{
    int rc = 0;
    for (const char *c = name; *c != '\0' && rc == 0; c++) {
        const char byte = lower(*c);
        rc = buf_append(out, &byte, 1, err);
    }
    return rc;
}

/* The value without spaces at its ends, and with runs of spaces inside made one. */
static int append_trimmed(struct buf *out, const char *value, struct error *err)
{
    int rc = 0;
    bool pending = false, started = false;
    for (const char *c = value; *c != '\0' && rc == 0; c++) {
        if (*c == ' ' || *c == '\t') {
            pending = started;
            continue;
        }
        rc = pending ? buf_append(out, " ", 1, err) : 0;
        rc = rc == 0 ? buf_append(out, c, 1, err) : rc;
        pending = false;
        started = true;
    }
    return rc;
}

static int append_signed_names(struct buf *out, const struct sigv4_pair *headers, size_t count,
                               struct error *err)
{
    int rc = 0;
    for (size_t i = 0; i < count && rc == 0; i++) {
        rc = i > 0 ? buf_append(out, ";", 1, err) : 0;
        rc = rc == 0 ? append_lower(out, headers[i].name, err) : rc;
    }
    return rc;
}

/* headers: sorted by name. */
static int append_canonical_request(struct buf *out, const struct sigv4_request *request,
                                    const struct sigv4_pair *headers, struct error *err)
{
    int rc = buf_printf(out, err, "%s\n", request->method);
    rc = rc == 0 ? append_path(out, request, err) : rc;
    rc = rc == 0 ? buf_append(out, "\n", 1, err) : rc;
    rc = rc == 0 ? append_query(out, request, err) : rc;
    rc = rc == 0 ? buf_append(out, "\n", 1, err) : rc;
    for (size_t i = 0; i < request->header_count && rc == 0; i++) {
        rc = append_lower(out, headers[i].name, err);
        rc = rc == 0 ? buf_append(out, ":", 1, err) : rc;
        rc = rc == 0 ? append_trimmed(out, headers[i].value, err) : rc;
        rc = rc == 0 ? buf_append(out, "\n", 1, err) : rc;
    }
    rc = rc == 0 ? buf_append(out, "\n", 1, err) : rc;
    rc = rc == 0 ? append_signed_names(out, headers, request->header_count, err) : rc;
    return rc == 0 ? buf_printf(out, err, "\n%s", request->payload_sha256) : rc;
}

/* ---- Signature --------------------------------------------------------------------------------
 */

static int derive_signing_key(const struct sigv4_request *request, const struct sigv4_key *key,
                              uint8_t digest[DIGEST_SIZE], struct error *err)
{
    struct buf seed;
    buf_init(&seed, 4096);
    int rc = buf_printf(&seed, err, "AWS4%s", key->secret_access_key);
    if (rc == 0) {
        digest_hmac_sha256(seed.data, seed.size, request->date, 8, digest);
        const char *const parts[] = {key->region, key->service, "aws4_request"};
        for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
            uint8_t next[DIGEST_SIZE];
            digest_hmac_sha256(digest, DIGEST_SIZE, parts[i], strlen(parts[i]), next);
            memcpy(digest, next, DIGEST_SIZE);
        }
        explicit_bzero(seed.data, seed.size);
    }
    buf_deinit(&seed);
    return rc;
}

static int append_authorization(struct buf *out, const struct sigv4_key *key, const char *scope,
                                const struct sigv4_pair *headers, size_t header_count,
                                const char *signature, struct error *err)
{
    int rc = buf_printf(
        out, err, "AWS4-HMAC-SHA256 Credential=%s/%s, SignedHeaders=", key->access_key_id, scope);
    rc = rc == 0 ? append_signed_names(out, headers, header_count, err) : rc;
    return rc == 0 ? buf_printf(out, err, ", Signature=%s", signature) : rc;
}

int sigv4_sign(const struct sigv4_request *request, const struct sigv4_key *key,
               struct buf *authorization, struct error *err)
{
    if (request->header_count > SIGV4_HEADERS_MAX ||
        request->parameter_count > SIGV4_PARAMETERS_MAX) {
        return ERROR(err, STATUS_INVALID,
                     "cannot sign %zu headers and %zu parameters: the limits "
                     "are %d and %d",
                     request->header_count, request->parameter_count, SIGV4_HEADERS_MAX,
                     SIGV4_PARAMETERS_MAX);
    }
    struct sigv4_pair headers[SIGV4_HEADERS_MAX];
    memcpy(headers, request->headers, request->header_count * sizeof(headers[0]));
    qsort(headers, request->header_count, sizeof(headers[0]), compare_headers);

    char scope[SCOPE_MAX], hash[DIGEST_HEX_SIZE], signature[DIGEST_HEX_SIZE];
    uint8_t signing_key[DIGEST_SIZE], digest[DIGEST_SIZE];
    struct buf text;
    buf_init(&text, CANONICAL_BYTES_MAX);
    int written = snprintf(scope, sizeof(scope), "%.8s/%s/%s/aws4_request", request->date,
                           key->region, key->service);
    int rc = written < (int)sizeof(scope)
                 ? append_canonical_request(&text, request, headers, err)
                 : ERROR(err, STATUS_INVALID, "the region and service names are too long to sign");
    if (rc != 0) {
        goto out;
    }
    digest_sha256_hex(text.data, text.size, hash);
    buf_reset(&text);
    rc = buf_printf(&text, err, "AWS4-HMAC-SHA256\n%s\n%s\n%s", request->date, scope, hash);
    rc = rc == 0 ? derive_signing_key(request, key, signing_key, err) : rc;
    if (rc != 0) {
        goto out;
    }
    digest_hmac_sha256(signing_key, DIGEST_SIZE, text.data, text.size, digest);
    digest_hex(digest, DIGEST_SIZE, signature);
    rc = append_authorization(authorization, key, scope, headers, request->header_count, signature,
                              err);
out:
    buf_deinit(&text);
    return rc;
}
