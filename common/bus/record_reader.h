/* Reads one record of a topic by its place, which some message named: for what is too large to
 * travel along (docs/PROTOCOL.md, `inputs`).
 *
 * Thread rule: one thread at a time.
 */
#ifndef COMMON_BUS_RECORD_READER_H
#define COMMON_BUS_RECORD_READER_H

#include <stddef.h>
#include <stdint.h>

#include "common/base/error.h"
#include "common/bus/kafka_config.h"

struct record_reader;

/* Connects when the first record is read. */
int record_reader_create(struct record_reader **out, const struct kafka_config *kafka,
                         const char *topic, struct error *err) MUST_CHECK;
void record_reader_destroy(struct record_reader *reader); /* accepts NULL */

/* The record at this place: *payload (xfree) and *size. Waits at most timeout_ms. NOT_FOUND: the
 * topic's retention has deleted it, or it never was (which is believed after 1.5 s: a broker that
 * has just come to lead a partition tells an end before its last records); UNAVAILABLE (retriable):
 * no broker told of it in time. */
int record_reader_read(struct record_reader *reader, int32_t partition, int64_t offset,
                       int timeout_ms, uint8_t **payload, size_t *size,
                       struct error *err) MUST_CHECK;

#endif
