/* Entries live in one list in the order they were begun. An output keeps its packed bytes until
 * its report, so that it can be sent again; librdkafka itself retries for message.timeout.ms
 * before it reports a failure, so a second sending means a long outage, not a hiccup.
 *
 * Reports arrive in any order between entries. The consumer commits only the contiguous prefix of
 * a partition, so entries need no order among themselves here. */
#include "common/bus/outbox.h"

#include <string.h>

#include "common/base/clock.h"
#include "common/base/fault.h"
#include "common/base/log.h"
#include "common/base/panic.h"
#include "common/bus/bus_span.h"
#include "common/bus/codec.h"

#define RETRY_MS 1000

enum output_state { OUTPUT_HELD, OUTPUT_SENT, OUTPUT_FAILED, OUTPUT_REPORTED };

struct output {
    struct outbox_entry *entry;
    struct output *next;
    enum output_state state;
    char *topic; /* owned, as all texts and the payload are */
    int32_t partition;
    char *key;
    char *partition_key; /* may be NULL, as traceparent and tracestate */
    char *traceparent, *tracestate;
    struct span *span;
    uint32_t failures; /* deliveries that failed */
    uint8_t *payload;
    size_t size;
};

struct outbox_entry {
    struct outbox *box;
    struct outbox_entry *previous, *next;
    struct record record;
    bool has_record, ended;
    bool holds;              /* what is added from now on waits for the reports of all before */
    size_t unreported, held; /* held ones are unreported too */
    size_t failing;          /* outputs that failed and are still unreported */
    struct output *outputs, **outputs_end;
};

struct outbox {
    struct producer *producer;
    struct consumer *consumer;
    const char *sender;
    struct outbox_entry *first, *last;
    size_t count, failing;  /* entries, and those of them with failing outputs */
    bool complete;          /* some entry may be ready to commit, or to send what it held */
    uint64_t retry_at_ms;   /* 0 = nothing is to be sent again */
    outbox_refused refused; /* may be NULL */
    void *refused_user;
};

struct outbox *outbox_create(struct producer *producer, struct consumer *consumer,
                             const char *sender)
{
    struct outbox *box = xcalloc(1, sizeof(*box));
    box->producer = producer;
    box->consumer = consumer;
    box->sender = sender;
    return box;
}

void outbox_on_refused(struct outbox *box, outbox_refused refused, void *user)
{
    box->refused = refused;
    box->refused_user = user;
}

/* What the output needed until Kafka had it. */
static void output_release(struct output *output)
{
    if (output->failures > 0) {
        span_set_number(output->span, "crafterse.failed_deliveries", output->failures);
    }
    tracing_end(output->span);
    output->span = NULL;
    xfree(output->topic);
    xfree(output->key);
    xfree(output->partition_key);
    xfree(output->traceparent);
    xfree(output->tracestate);
    xfree(output->payload);
    output->topic = output->key = output->partition_key = NULL;
    output->traceparent = output->tracestate = NULL;
    output->payload = NULL;
}

static void entry_free(struct outbox_entry *entry)
{
    struct outbox *box = entry->box;
    *(entry->previous != NULL ? &entry->previous->next : &box->first) = entry->next;
    *(entry->next != NULL ? &entry->next->previous : &box->last) = entry->previous;
    box->count--;
    box->failing -= entry->failing > 0;
    for (struct output *output = entry->outputs, *next; output != NULL; output = next) {
        next = output->next;
        if (output->state != OUTPUT_REPORTED) {
            span_fail(output->span, "abandoned", "the process ended before Kafka had the record");
        }
        output_release(output);
        xfree(output);
    }
    xfree(entry);
}

void outbox_destroy(struct outbox *box)
{
    if (box == NULL) {
        return;
    }
    while (box->first != NULL) {
        ASSERT(!box->first->has_record);
        entry_free(box->first);
    }
    xfree(box);
}

struct outbox_entry *outbox_begin(struct outbox *box, struct record *record)
{
    struct outbox_entry *entry = xcalloc(1, sizeof(*entry));
    entry->box = box;
    entry->outputs_end = &entry->outputs;
    if (record != NULL) {
        entry->record = *record;
        entry->has_record = true;
        memset(record, 0, sizeof(*record));
    }
    entry->previous = box->last;
    *(box->last != NULL ? &box->last->next : &box->first) = entry;
    box->last = entry;
    box->count++;
    return entry;
}

const struct record *outbox_record(const struct outbox_entry *entry)
{
    return &entry->record;
}

static void output_settle(struct output *output)
{
    struct outbox_entry *entry = output->entry;
    if (output->failures > 0 && --entry->failing == 0) {
        entry->box->failing--;
    }
    output->state = OUTPUT_REPORTED;
    output_release(output);
    entry->unreported--;
    entry->box->complete |= entry->held > 0 || (entry->ended && entry->unreported == 0);
}

/* The thread may be at another job by now, or at none. */
static void output_log(const struct output *output, enum log_level level, const char *what,
                       const struct error *err)
{
    struct log_context before = log_context();
    log_set_job(output->key, 0, output->traceparent);
    log_write(level, what, "topic=%s bytes=%zu reason=%s", output->topic, output->size,
              LOG_QUOTED(err->text));
    log_set_context(&before);
}

static void output_give_up(struct output *output, const struct error *err)
{
    struct outbox *box = output->entry->box;
    output_log(output, LOG_ERROR, "output refused for good", err);
    if (box->refused != NULL) {
        box->refused(box->refused_user, output->entry, output->topic, output->key, err);
    }
    span_fail(output->span, status_name(err->status), err->text);
    output_settle(output);
}

static void output_delivered(void *user, const struct error *err,
                             const struct producer_place *place)
{
    (void)place;
    struct output *output = user;
    struct outbox *box = output->entry->box;
    if (err == NULL) {
        output_settle(output);
        return;
    }
    if (err->status == STATUS_TOO_LARGE || err->status == STATUS_INVALID) {
        output_give_up(output, err);
        return;
    }
    output->state = OUTPUT_FAILED;
    if (output->failures++ == 0 && output->entry->failing++ == 0) {
        box->failing++;
    }
    if ((output->failures & (output->failures - 1)) == 0) { /* 1, 2, 4, ...: thousands may fail */
        output_log(output, LOG_WARN, "output not delivered, will be sent again", err);
    }
    if (box->retry_at_ms == 0) {
        box->retry_at_ms = clock_monotonic_ms() + RETRY_MS;
    }
}

static void output_send(struct output *output)
{
    struct outbox *box = output->entry->box;
    const struct producer_record record = {.topic = output->topic,
                                           .partition = output->partition,
                                           .key = output->key,
                                           .partition_key = output->partition_key,
                                           .payload = output->payload,
                                           .size = output->size,
                                           .traceparent = output->traceparent,
                                           .tracestate = output->tracestate};
    struct error err;
    output->state = OUTPUT_SENT;
    if (producer_send(box->producer, &record, output_delivered, output, &err) < 0) {
        output_delivered(output, &err, NULL); /* the callback is not called for a refusal at once */
    }
}

static char *copy_unless_empty(const char *text)
{
    return text != NULL && text[0] != '\0' ? xstrdup(text) : NULL;
}

void outbox_add(struct outbox_entry *entry, const struct outbox_target *target,
                ProtobufCMessage *message, Crafterse__V1__Envelope *envelope)
{
    struct output *output = xcalloc(1, sizeof(*output));

    /* Stamped for the packing only: the message and its strings stay the caller's. */
    char *sender_before = envelope->sender;
    char *sender = xstrdup(entry->box->sender);
    envelope->sender = sender;
    envelope->sent_ms = clock_unix_ms();
    output->payload = codec_pack(message, &output->size);
    envelope->sender = sender_before;
    xfree(sender);

    output->entry = entry;
    output->topic = xstrdup(target->topic);
    output->partition = target->partition;
    output->key = xstrdup(target->key != NULL ? target->key : envelope->job_id);
    output->partition_key = target->partition_key != NULL ? xstrdup(target->partition_key) : NULL;
    output->traceparent = copy_unless_empty(envelope->traceparent);
    output->tracestate = copy_unless_empty(envelope->tracestate);
    output->span =
        target->span != NULL ? bus_span_send(target->span, target->topic, tracing_current()) : NULL;
    *entry->outputs_end = output;
    entry->outputs_end = &output->next;
    entry->unreported++;
    if (entry->holds && entry->unreported > 1) {
        output->state = OUTPUT_HELD;
        entry->held++;
        return;
    }
    fault_point("outbox.before_send");
    output_send(output);
    fault_point("outbox.after_send");
}

void outbox_hold(struct outbox_entry *entry)
{
    entry->holds = true;
}

void outbox_end(struct outbox_entry *entry)
{
    ASSERT(!entry->ended);
    entry->ended = true;
    entry->box->complete |= entry->unreported == 0;
}

void outbox_drop(struct outbox_entry *entry)
{
    /* Reports may still be on their way: the entry stays in the list until they are in. */
    if (entry->has_record) {
        consumer_return(entry->box->consumer, &entry->record);
        entry->has_record = false;
    }
    outbox_end(entry);
}

static void entry_commit(struct outbox_entry *entry)
{
    struct error err;
    fault_point("outbox.reported");
    if (entry->has_record && consumer_done(entry->box->consumer, &entry->record, &err) < 0) {
        log_warn("commit failed, the work will be done again", "reason=%s", LOG_QUOTED(err.text));
    }
    entry->has_record = false;
    fault_point("outbox.committing");
}

/* The first of those that wait, when there is nothing left that it waits for. */
static void send_held(struct outbox_entry *entry)
{
    if (entry->held == 0 || entry->held < entry->unreported) {
        return;
    }
    struct output *output = entry->outputs;
    while (output->state != OUTPUT_HELD) {
        output = output->next;
    }
    entry->held--;
    output_send(output);
}

static void send_failed_again(struct outbox *box)
{
    box->retry_at_ms = 0;
    for (struct outbox_entry *entry = box->first; entry != NULL; entry = entry->next) {
        for (struct output *output = entry->outputs; output != NULL; output = output->next) {
            if (output->state == OUTPUT_FAILED) {
                output_send(output);
            }
        }
    }
}

void outbox_service(struct outbox *box)
{
    if (box->retry_at_ms > 0 && clock_monotonic_ms() >= box->retry_at_ms) {
        send_failed_again(box);
    }
    if (!box->complete) {
        return;
    }
    box->complete = false;
    for (struct outbox_entry *entry = box->first, *next; entry != NULL; entry = next) {
        next = entry->next;
        send_held(entry);
        if (entry->ended && entry->unreported == 0) {
            entry_commit(entry);
            entry_free(entry);
        }
    }
}

size_t outbox_count(const struct outbox *box)
{
    return box->count;
}

size_t outbox_failing(const struct outbox *box)
{
    return box->failing;
}

void outbox_abandon(struct outbox *box)
{
    for (struct outbox_entry *entry = box->first; entry != NULL; entry = entry->next) {
        if (entry->has_record) {
            consumer_drop(entry->box->consumer, &entry->record);
            entry->has_record = false;
        }
        entry->ended = true;
    }
}
