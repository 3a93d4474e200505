/* Names that no other process will make: job ids, worker ids, trace ids. */
#ifndef COMMON_BASE_ID_H
#define COMMON_BASE_ID_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ID_SIZE 37          /* "018f...": UUIDv7 text (RFC 9562) and its NUL; sorts by time */
#define TRACEPARENT_SIZE 56 /* "00-<32 hex>-<16 hex>-01" and its NUL (W3C Trace Context) */

void id_make(char id[ID_SIZE]);
bool id_is_valid(const char *text); /* a UUID in lower-case text form */

/* A random 64-bit value from the kernel. */
uint64_t id_random(void);

void id_traceparent_make(char traceparent[TRACEPARENT_SIZE]);
bool id_traceparent_is_valid(const char *text);

#endif
