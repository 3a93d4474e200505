/* The last jobs that a gateway has forgotten, as hashes: some 50,000 of each kind in a megabyte,
 * so that their owner gets 410 and not 404, and an old record does not bring one back as new.
 * Of a job that was never there it says yes once in 2^48 times.
 *
 * Thread rule: the caller's. */
#ifndef GATEWAY_FORGOTTEN_JOBS_H
#define GATEWAY_FORGOTTEN_JOBS_H

#include <stdbool.h>

struct forgotten_jobs *forgotten_jobs_create(void);
void forgotten_jobs_destroy(struct forgotten_jobs *f);

void forgotten_jobs_add(struct forgotten_jobs *f, const char *id, const char *key_id);
/* Both as they were added: nobody learns of another key's jobs. */
bool forgotten_jobs_has(const struct forgotten_jobs *f, const char *id, const char *key_id);

#endif
