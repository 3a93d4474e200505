/* The pictures that an order names (topic `inputs`): fetched, and held against what the order says.
 *
 * Thread rule: the service's thread. A fetch blocks it for up to INPUTS_TIMEOUT_MS, in which no
 * cancellation is seen; the group membership does not suffer, librdkafka keeps it. */
#ifndef WORKER_INPUTS_H
#define WORKER_INPUTS_H

#include <stddef.h>
#include <stdint.h>

#include "common/base/error.h"
#include "common/bus/kafka_config.h"
#include "proto/job.pb-c.h"

#define INPUTS_TIMEOUT_MS 5000

/* PNG files; NULL where the order names none. */
struct inputs {
    uint8_t *init_png, *mask_png;
    size_t init_size, mask_size;
};

struct inputs_reader;

struct inputs_reader *inputs_reader_create(const struct kafka_config *kafka);
void inputs_reader_destroy(struct inputs_reader *reader); /* accepts NULL */

/* Fill *out with what the job names; free with inputs_deinit in any case. NOT_FOUND: it is not
 * there any more; DENIED: another key's; CORRUPT: not what the order says; UNAVAILABLE
 * (retriable): Kafka does not answer. */
int inputs_fetch(struct inputs_reader *reader, const Crafterse__V1__Job *job, struct inputs *out,
                 struct error *err) MUST_CHECK;
void inputs_deinit(struct inputs *inputs);

#endif
