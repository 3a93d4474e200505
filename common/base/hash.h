/* FNV-1a of 64 bits (Fowler, Noll, Vo): for tables in memory whose keys nobody gains by choosing,
 * as ids that are random or hashes already. What leaves the process is hashed with digest.h. */
#ifndef COMMON_BASE_HASH_H
#define COMMON_BASE_HASH_H

#include <stdint.h>

uint64_t hash_text(const char *text);
/* Of two texts in that order; where the first ends counts. */
uint64_t hash_two_texts(const char *first, const char *second);

#endif
