/* AWS Signature Version 4, the Authorization header form ("Authenticating Requests", AWS General
 * Reference): signs what S3, R2 and other AWS-like services ask for.
 *
 * Pure: time, keys and request come in, text goes out. Held to AWS's published vectors by
 * tests/unit/uploader/test_sigv4.c. Ours because libcurl's signer (7.88, Debian 12) knows neither
 * query sorting nor S3's single path encoding.
 */
#ifndef UPLOADER_SIGV4_H
#define UPLOADER_SIGV4_H

#include <stddef.h>
#include <stdint.h>

#include "common/base/buf.h"
#include "common/base/error.h"

#define SIGV4_DATE_SIZE 17 /* "20150830T123600Z" and its NUL: the value of x-amz-date */
#define SIGV4_HEADERS_MAX 16
#define SIGV4_PARAMETERS_MAX 16

struct sigv4_pair {
    const char *name;
    const char *value;
};

struct sigv4_key {
    const char *access_key_id;
    const char *secret_access_key;
    const char *region;  /* "us-east-1"; "auto" for R2 */
    const char *service; /* "s3" */
};

/* How often the path is percent-encoded in what is signed: S3 once, every other service twice. */
enum sigv4_path { SIGV4_PATH_ONCE, SIGV4_PATH_TWICE };

struct sigv4_request {
    const char *method;
    const char *path; /* not encoded, begins with "/" */
    enum sigv4_path path_encoding;
    const struct sigv4_pair *parameters; /* of the query, not encoded, any order */
    size_t parameter_count;
    const struct sigv4_pair *headers; /* all that are signed, "host" and "x-amz-date" included */
    size_t header_count;
    const char *payload_sha256; /* hex digest of the body */
    const char *date;           /* the value of x-amz-date */
};

void sigv4_date(uint64_t unix_ms, char date[SIGV4_DATE_SIZE]);

/* Appends the value of the Authorization header. INVALID for more headers or parameters than the
 * limits above; TOO_LARGE when *authorization cannot hold it. */
int sigv4_sign(const struct sigv4_request *request, const struct sigv4_key *key,
               struct buf *authorization, struct error *err) MUST_CHECK;

/* Appends text percent-encoded as AWS does (RFC 3986, upper-case hex); "/" is kept in paths. */
int sigv4_encode(struct buf *out, const char *text, int keep_slash, struct error *err) MUST_CHECK;

#endif
