/* A dead letter is known by its offset in `deadletter`, which has one partition. Dropping one
 * writes a tombstone with the key "drop:<offset>": the topic keeps what it has for its own time. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/id.h"
#include "common/base/panic.h"
#include "common/bus/codec.h"
#include "common/bus/producer.h"
#include "deploy/admin/admin.h"
#include "proto/dead_letter.pb-c.h"

#define LETTERS_MAX 100000
#define TIMEOUT_MS 15000
#define DROP_PREFIX "drop:"

struct letter {
    int64_t offset;
    Crafterse__V1__DeadLetter *message; /* owned; NULL = not one that can be read */
    bool dropped;
};

struct letters {
    struct letter *all;
    size_t count;
};

static struct letter *find(const struct letters *letters, int64_t offset)
{
    for (size_t i = 0; i < letters->count; i++) {
        if (letters->all[i].offset == offset && !letters->all[i].dropped) {
            return &letters->all[i];
        }
    }
    return NULL;
}

static int note(void *user, const struct record *record, struct error *err)
{
    struct letters *letters = user;
    if (record->payload == NULL) {
        if (strncmp(record->key, DROP_PREFIX, strlen(DROP_PREFIX)) == 0) {
            struct letter *letter =
                find(letters, strtoll(record->key + strlen(DROP_PREFIX), NULL, 10));
            if (letter != NULL) {
                letter->dropped = true;
            }
        }
        return STATUS_OK;
    }
    if (letters->count == LETTERS_MAX) {
        return ERROR(err, STATUS_TOO_LARGE, "more than %d dead letters", LETTERS_MAX);
    }
    letters->all[letters->count++] = (struct letter){
        .offset = record->offset,
        .message = CODEC_UNPACK(Crafterse__V1__DeadLetter, crafterse__v1__dead_letter__descriptor,
                                record, NULL)};
    return STATUS_OK;
}

static int letters_open(struct letters *letters, const struct admin *admin, struct error *err)
{
    letters->count = 0;
    letters->all = xcalloc(LETTERS_MAX, sizeof(*letters->all));
    return admin_read(admin, TOPIC_DEADLETTER, note, letters, err);
}

static void letters_close(struct letters *letters)
{
    for (size_t i = 0; i < letters->count; i++) {
        struct letter *letter = &letters->all[i];
        codec_free(letter->message != NULL ? &letter->message->base : NULL);
    }
    xfree(letters->all);
}

/* ---- Listing --------------------------------------------------------------------------------- */

static void print_line(const struct letter *letter)
{
    const Crafterse__V1__DeadLetter *message = letter->message;
    char at[CLOCK_TEXT_SIZE];
    if (message == NULL) {
        printf("%8" PRId64 "  (not a dead letter)\n", letter->offset);
        return;
    }
    clock_format_utc(message->envelope->sent_ms, at);
    printf("%8" PRId64 "  %s  %-20s %-36s %s\n", letter->offset, at, message->reason,
           message->envelope->job_id[0] != '\0' ? message->envelope->job_id : "-",
           message->message);
}

int admin_letters(const struct admin *admin, struct error *err)
{
    struct letters letters;
    int result = letters_open(&letters, admin, err);
    if (result == STATUS_OK) {
        printf("%8s  %-24s  %-20s %-36s %s\n", "letter", "written", "reason", "job", "message");
        for (size_t i = 0; i < letters.count; i++) {
            if (!letters.all[i].dropped) {
                print_line(&letters.all[i]);
            }
        }
    }
    letters_close(&letters);
    return result;
}

/* ---- One letter ------------------------------------------------------------------------------ */

/* The letter that the argument names; NULL and *err when there is none. */
static const struct letter *find_named(const struct letters *letters, const char *argument,
                                       struct error *err)
{
    char *end = NULL;
    long long offset = strtoll(argument, &end, 10);
    const struct letter *letter = end != argument && *end == '\0' ? find(letters, offset) : NULL;
    if (letter == NULL || letter->message == NULL) {
        ERROR(err, STATUS_NOT_FOUND, "there is no dead letter %s: crafterse-admin letters",
              argument);
        return NULL;
    }
    return letter;
}

/* The order inside, or NULL and *err. Free with codec_free. */
static Crafterse__V1__Job *read_job(const struct letter *letter, struct error *err)
{
    const ProtobufCBinaryData *payload = &letter->message->payload;
    Crafterse__V1__Job *job = (Crafterse__V1__Job *)codec_unpack(&crafterse__v1__job__descriptor,
                                                                 payload->data, payload->len, err);
    if (job == NULL || job->generation == NULL || job->n_images == 0) {
        codec_free(job != NULL ? &job->base : NULL);
        ERROR(err, STATUS_UNSUPPORTED,
              "letter %" PRId64 " of topic %s holds no order that could be drawn", letter->offset,
              letter->message->topic);
        return NULL;
    }
    return job;
}

static void print_attempt(const Crafterse__V1__Attempt *attempt)
{
    char from[CLOCK_TEXT_SIZE] = "?", until[CLOCK_TEXT_SIZE] = "?";
    if (attempt->started_ms > 0) {
        clock_format_utc(attempt->started_ms, from);
    }
    if (attempt->ended_ms > 0) {
        clock_format_utc(attempt->ended_ms, until);
    }
    printf("attempt   %" PRIu32 " on %s, %s to %s: %s: %s\n", attempt->number,
           attempt->worker_id[0] != '\0' ? attempt->worker_id : "?", from, until, attempt->reason,
           attempt->message);
}

static void print_letter(const struct letter *letter)
{
    const Crafterse__V1__DeadLetter *message = letter->message;
    struct error err;
    print_line(letter);
    printf("from      %s, partition %" PRId32 ", offset %" PRId64 ", by %s\n", message->topic,
           message->partition, message->offset, message->service);
    printf("payload   %zu bytes\n", message->payload.len);
    for (size_t i = 0; i < message->n_attempts; i++) {
        print_attempt(message->attempts[i]);
    }
    Crafterse__V1__Job *job = read_job(letter, &err);
    if (job != NULL) {
        const Crafterse__V1__Generation *wanted = job->generation;
        printf("order     %s %" PRIu32 "x%" PRIu32 ", %" PRIu32 " steps, %s, seed %" PRIu64
               ", %zu pictures, key %s\nprompt    %s\n",
               wanted->model, wanted->width, wanted->height, wanted->steps, wanted->scheduler,
               wanted->seed, job->n_images, job->key_id, wanted->prompt);
        codec_free(&job->base);
    }
}

int admin_letter_show(const struct admin *admin, struct error *err)
{
    struct letters letters;
    int result = letters_open(&letters, admin, err);
    if (result == STATUS_OK) {
        const struct letter *letter = find_named(&letters, admin->argument, err);
        result = letter != NULL ? STATUS_OK : err->status;
        if (letter != NULL) {
            print_letter(letter);
        }
    }
    letters_close(&letters);
    return result;
}

static int send_again(const struct admin *admin, const struct letter *letter, struct error *err)
{
    char topic[TOPIC_NAME_MAX], job_id[ID_SIZE];
    struct producer *producer = NULL;
    Crafterse__V1__Job *job = read_job(letter, err);
    if (job == NULL) {
        return err->status;
    }
    topic_name(admin->kafka, TOPIC_REQUESTS, "", topic);
    int result = producer_create(&producer, admin->kafka, err);
    if (result == STATUS_OK) {
        const struct codec_target target = {topic, PRODUCER_PARTITION_BY_KEY, "crafterse-admin"};
        /* A new order: the old one has its end for ever. */
        Crafterse__V1__Envelope envelope = CRAFTERSE__V1__ENVELOPE__INIT;
        Crafterse__V1__Envelope *before = job->envelope;
        id_make(job_id);
        envelope.job_id = job_id;
        job->envelope = &envelope;
        job->accepted_ms = clock_unix_ms();
        job->queued_ms = job->dispatched_ms = job->not_before_ms = 0;
        Crafterse__V1__Attempt **attempts = job->attempts;
        size_t attempt_count = job->n_attempts;
        job->attempts = NULL;
        job->n_attempts = 0;
        result = codec_send_wait(producer, &target, &job->base, TIMEOUT_MS, err);
        job->envelope = before;
        job->attempts = attempts;
        job->n_attempts = attempt_count;
    }
    producer_destroy(producer, TIMEOUT_MS);
    codec_free(&job->base);
    if (result == STATUS_OK) {
        printf("ordered again as job %s\n", job_id);
    }
    return result;
}

int admin_letter_replay(const struct admin *admin, struct error *err)
{
    struct letters letters;
    int result = letters_open(&letters, admin, err);
    if (result == STATUS_OK) {
        const struct letter *letter = find_named(&letters, admin->argument, err);
        result = letter != NULL ? send_again(admin, letter, err) : err->status;
    }
    letters_close(&letters);
    return result;
}

static int send_drop(const struct admin *admin, int64_t offset, struct error *err)
{
    char topic[TOPIC_NAME_MAX], key[40];
    struct producer *producer = NULL;
    topic_name(admin->kafka, TOPIC_DEADLETTER, "", topic);
    snprintf(key, sizeof(key), DROP_PREFIX "%" PRId64, offset);
    int result = producer_create(&producer, admin->kafka, err);
    if (result < 0) {
        return result;
    }
    const struct producer_record record = {.topic = topic, .partition = 0, .key = key};
    result = producer_send_wait(producer, &record, TIMEOUT_MS, err);
    producer_destroy(producer, TIMEOUT_MS);
    return result;
}

int admin_letter_drop(const struct admin *admin, struct error *err)
{
    struct letters letters;
    int result = letters_open(&letters, admin, err);
    if (result == STATUS_OK) {
        const struct letter *letter = find_named(&letters, admin->argument, err);
        result = letter != NULL ? send_drop(admin, letter->offset, err) : err->status;
    }
    if (result == STATUS_OK) {
        printf("letter %s is listed no more\n", admin->argument);
    }
    letters_close(&letters);
    return result;
}
