/* A store behind the S3 API: Cloudflare R2, AWS S3, or a server that speaks like them.
 *
 * One PUT an object, signed over its whole body (R2 does not take chunked signing), create-once by
 * `If-None-Match: *`: 412 means that the object is there. Path-style addresses, one connection that
 * is kept open and used again.
 */
#ifndef UPLOADER_S3_STORE_H
#define UPLOADER_S3_STORE_H

#include "uploader/store.h"

struct s3_store_settings {
    const char *endpoint; /* "https://ACCOUNT.r2.cloudflarestorage.com" */
    const char *region;   /* "auto" for R2 */
    const char *bucket;
    const char *access_key_id;
    const char *secret_access_key;
    int64_t timeout_ms; /* of one request */
};

/* Once in the process: before the first thread starts, and after the last has ended. */
int s3_store_library_init(struct error *err) MUST_CHECK;
void s3_store_library_deinit(void);

/* The endpoint is an http or https address without path. */
int s3_store_check_endpoint(const char *endpoint, struct error *err) MUST_CHECK;

/* The strings of *settings are borrowed for the life of the store. Opens no connection. */
int s3_store_create(struct store **out, const struct s3_store_settings *settings,
                    struct error *err) MUST_CHECK;

/* What an answer to PUT, GET or HEAD of an object means; 0 for 2xx. `body` is shown in the error.
 * Pure, for s3_store.c and its test. */
int s3_store_judge(long http_status, const char *what, const char *body, struct error *err);

#endif
