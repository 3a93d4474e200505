/* Gives up on a record: writes it whole to `deadletter`, with where it came from and why. */
#ifndef COMMON_BUS_DEAD_LETTER_H
#define COMMON_BUS_DEAD_LETTER_H

#include "common/base/error.h"
#include "common/bus/consumer.h"
#include "common/bus/kafka_config.h"
#include "common/bus/producer.h"

/* job_id may be "" (undecodable). Returns once Kafka has it, or a retriable error: then the record
 * must not be committed. */
int dead_letter_send(struct producer *p, const struct kafka_config *kafka, const struct record *r,
                     const char *job_id, const char *reason, const char *message,
                     const char *sender, struct error *err) MUST_CHECK;

#endif
