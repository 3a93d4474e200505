/* Reads topics whole, without a group: every partition, from the beginning or from the end. For
 * state that every replica folds by itself (status, workers, control, progress).
 *
 * Thread rule: one thread at a time calls everything here (follower_create may run on another), but
 * for follower_mark, which any thread may call at any time until follower_destroy.
 */
#ifndef COMMON_BUS_FOLLOWER_H
#define COMMON_BUS_FOLLOWER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/error.h"
#include "common/bus/consumer.h"
#include "common/bus/kafka_config.h"

struct follower;

struct follower_topic {
    const char *topic;
    bool from_beginning; /* else only what is written after follower_create returns */
    /* With from_beginning: nothing of it comes before all that follower_create found in the other
     * topics from the beginning. For a topic that is understood by what stands on those. */
    bool is_last;
};

/* When records come. TOGETHER: many at once, up to the fetch wait later than they could. A reader
 * for which that is soon enough spares the broker, and itself, an answer for every few of them. */
enum follower_pace { FOLLOWER_AT_ONCE, FOLLOWER_TOGETHER };

/* Waits up to timeout_ms for the topics' metadata; UNAVAILABLE (retriable) when there is none. */
int follower_create(struct follower **out, const struct kafka_config *kafka,
                    const struct follower_topic *topics, size_t count, enum follower_pace pace,
                    int timeout_ms, struct error *err) MUST_CHECK;
void follower_destroy(struct follower *f);

/* The next record; false when none waits after timeout_ms. *out is borrowed until the next call.
 * payload is NULL for a tombstone. Empties follower_fd before it gives false; call it until then
 * before sleeping. */
bool follower_next(struct follower *f, int timeout_ms, struct record *out);

/* True once everything that was there at follower_create in the topics read from the beginning has
 * been read. */
bool follower_is_caught_up(struct follower *f);
/* Asks where the ends of the topics read from the beginning are now; follower_has_reached tells
 * when all before them has been read. For "404 only after reading to the end of the moment of
 * asking". Marks are numbered and reached in their order. 0 = no broker answered within timeout_ms.
 * Blocks; on an idle topic for up to the fetch wait, as the broker answers one request at a time.
 */
uint64_t follower_mark(struct follower *f, int timeout_ms);
bool follower_has_reached(struct follower *f, uint64_t mark);

/* Partitions were added to a topic: what is written to them is not read. The owner ends, and reads
 * them when it is started again. Known within the client's topic.metadata.refresh.interval.ms (5
 * min), by which producers write to them too. */
bool follower_is_fatal(const struct follower *f, struct error *err);

/* Becomes readable when records wait; follower_next empties it. */
int follower_fd(struct follower *f);

#endif
