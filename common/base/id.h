/* Names that no other process will make: job ids, worker ids. */
#ifndef COMMON_BASE_ID_H
#define COMMON_BASE_ID_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ID_SIZE 37 /* "018f...": UUIDv7 text (RFC 9562) and its NUL; sorts by time */

void id_make(char id[ID_SIZE]);
bool id_is_valid(const char *text); /* a UUID in lower-case text form */
/* When an id of version 7 was made, in Unix time; 0 for all others. */
uint64_t id_time_ms(const char *id);

/* A random 64-bit value from the kernel. */
uint64_t id_random(void);

#endif
