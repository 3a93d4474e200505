/* Attempts of the records of one partition, as they are kept in its commit metadata: pure text and
 * counting, used by consumer.c.
 *
 * The metadata of a commit of offset N is "1 <delta>:<count> <delta>:<count> ..." ("1" is the
 * format's version): the record at N + delta has been started count times. Records before N are
 * done and need no count.
 */
#ifndef COMMON_BUS_ATTEMPTS_H
#define COMMON_BUS_ATTEMPTS_H

#include <stddef.h>
#include <stdint.h>

#define ATTEMPTS_MAX 64
#define ATTEMPTS_TEXT_SIZE 2048 /* a broker takes 4096 bytes of metadata by default */

struct attempts {
    struct {
        int64_t offset;
        uint32_t count;
    } entries[ATTEMPTS_MAX];
    int count;
};

/* Unreadable metadata (another program's) is no attempts. */
void attempts_parse(struct attempts *a, int64_t committed_offset, const char *metadata,
                    size_t size);
/* Drops what lies before committed_offset, then writes the rest; "" when there is none. */
void attempts_format(struct attempts *a, int64_t committed_offset, char text[ATTEMPTS_TEXT_SIZE]);

/* Adds amount (1 or, to take it back, -1) and returns the record's count. A full table forgets the
 * lowest offset. */
uint32_t attempts_add(struct attempts *a, int64_t offset, int amount);

#endif
