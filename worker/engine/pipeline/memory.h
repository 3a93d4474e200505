/* How much memory this process may use: the machine's, or less when a control group says so.
 */
#ifndef WORKER_ENGINE_PIPELINE_MEMORY_H
#define WORKER_ENGINE_PIPELINE_MEMORY_H

#include <stdint.h>

/* Bytes. */
uint64_t memory_limit(void);

/* The lowest limit of the groups that membership (/proc/self/cgroup) names and of those above them:
 * memory.max below root for version 2, memory.limit_in_bytes below root/memory for version 1.
 * UINT64_MAX when there is none. */
uint64_t memory_limit_of_groups(const char *membership, const char *root);

/* Bytes of this process that are resident and no file's, and those that are: from
 * /proc/self/status; 0 where that is not to be had. */
void memory_resident(uint64_t *anonymous, uint64_t *of_files);

#endif
