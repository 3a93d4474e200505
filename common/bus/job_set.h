/* A bounded set of job ids, each with a time, that forgets the oldest: who was asked to cancel, for
 * instance. What is forgotten must do no harm, only cost something. Not thread-safe. */
#ifndef COMMON_BUS_JOB_SET_H
#define COMMON_BUS_JOB_SET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct job_set;

struct job_set *job_set_create(size_t capacity);
void job_set_destroy(struct job_set *set); /* accepts NULL */

/* Returns false when it was in the set already, with a time that is as late. */
bool job_set_add(struct job_set *set, const char *job_id, uint64_t at_ms);
/* Like job_set_has; *at_ms: the time that it was added with. */
bool job_set_find(const struct job_set *set, const char *job_id, uint64_t *at_ms);
bool job_set_has(const struct job_set *set, const char *job_id);
void job_set_remove(struct job_set *set, const char *job_id); /* accepts one that is not there */

/* From the oldest to the newest; stops early when visit returns false. */
typedef bool (*job_set_visit)(void *user, const char *job_id, uint64_t at_ms);
void job_set_for_each(const struct job_set *set, job_set_visit visit, void *user);

#endif
