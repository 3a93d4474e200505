/* API keys: who may ask, under which name, how often.
 *
 * The keys file holds hashes only, one key a line (# starts a comment):
 *
 *   <key id>:<sha256 of the key, 64 hex digits>[:<option>,<option>...]
 *
 * The key id is 1 to 64 of a-z 0-9 . _ - and is what jobs, logs and limits name. Options:
 * rate=N (submissions a second, 0 = no limit) and burst=N, instead of the service's defaults.
 * Keys are long random texts (`gateway --make-key NAME`), so a plain SHA-256 is enough: there is
 * nothing to guess. The file is read again when it changes; a file with mistakes is refused whole
 * and the keys in use stay.
 *
 * Thread rule: the loop thread only. */
#ifndef GATEWAY_AUTH_H
#define GATEWAY_AUTH_H

#include <stdbool.h>
#include <stddef.h>

#include "common/base/error.h"
#include "gateway/rate_limit.h"

#define AUTH_KEY_ID_SIZE 65

struct auth_key {
    char id[AUTH_KEY_ID_SIZE];
    unsigned char digest[32];
    struct rate_limit limit;
};

struct auth;

struct auth_options {
    const char *path; /* NULL or "": no keys are asked for, everybody is AUTH_ANONYMOUS */
    double per_second, burst;
};

#define AUTH_ANONYMOUS "anonymous"

int auth_create(struct auth **out, const struct auth_options *options,
                struct error *err) MUST_CHECK;
void auth_destroy(struct auth *a);
size_t auth_key_count(const struct auth *a);

/* Reads the file again when its modification time, size or inode changed. Returns 0 when there was
 * nothing to do or it worked; an error leaves the old keys in force (and is not repeated until the
 * file changes again). */
int auth_reload_if_changed(struct auth *a, struct error *err);

/* authorization is the header's value or NULL. NULL: *why is one sentence for the client. The key
 * is valid until the next reload. Takes the same time for every wrong key. */
struct auth_key *auth_check(struct auth *a, const char *authorization, const char **why);

bool auth_is_key_id(const char *text);

#endif
