/* A dead letter is known by its offset in `deadletter`, which has one partition. Dropping one
 * writes a tombstone with the key "drop:<offset>": the topic keeps what it has for its own time.
 *
 * The topic may hold gigabytes: of all letters only the lines of the list are kept, of one that is
 * named the whole, and nothing of others. */
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

#define LETTERS_MAX 100000 /* the newest are listed */
#define TIMEOUT_MS 15000
#define CLOSE_TIMEOUT_MS 1000 /* what was sent is reported by then, or given up */
#define DROP_PREFIX "drop:"
#define ALL (-1) /* no offset */

struct letter {
    int64_t offset;
    Crafterse__V1__DeadLetter *message; /* owned; NULL = not one that can be read */
};

struct letters {
    int64_t wanted; /* the offset of the one that is kept whole, or ALL without their payloads */
    struct letter *all; /* oldest first */
    size_t count;
    size_t left_out; /* older ones than all */
};

/* Forgets `count` letters from `first` on. */
static void forget(struct letters *letters, size_t first, size_t count)
{
    for (size_t i = first; i < first + count; i++) {
        Crafterse__V1__DeadLetter *message = letters->all[i].message;
        codec_free(message != NULL ? &message->base : NULL);
    }
    letters->count -= count;
    memmove(&letters->all[first], &letters->all[first + count],
            (letters->count - first) * sizeof(*letters->all));
}

static void note_drop(struct letters *letters, int64_t offset)
{
    for (size_t i = 0; i < letters->count; i++) {
        if (letters->all[i].offset == offset) {
            forget(letters, i, 1);
            return;
        }
    }
}

static void forget_payload(Crafterse__V1__DeadLetter *message)
{
    xfree(message->payload.data);
    message->payload.data = NULL;
    message->payload.len = 0;
}

static int note(void *user, const struct record *record, struct error *err)
{
    struct letters *letters = user;
    (void)err;
    if (record->payload == NULL) {
        if (strncmp(record->key, DROP_PREFIX, strlen(DROP_PREFIX)) == 0) {
            note_drop(letters, strtoll(record->key + strlen(DROP_PREFIX), NULL, 10));
        }
        return STATUS_OK;
    }
    if (letters->wanted != ALL && record->offset != letters->wanted) {
        return STATUS_OK;
    }
    if (letters->count == LETTERS_MAX) { /* many at once, as the others are moved up */
        forget(letters, 0, LETTERS_MAX / 10);
        letters->left_out += LETTERS_MAX / 10;
    }
    struct letter *letter = &letters->all[letters->count++];
    letter->offset = record->offset;
    letter->message = CODEC_UNPACK(Crafterse__V1__DeadLetter,
                                   crafterse__v1__dead_letter__descriptor, record, NULL);
    if (letter->message != NULL && letters->wanted == ALL) {
        forget_payload(letter->message);
    }
    return STATUS_OK;
}

static int letters_open(struct letters *letters, const struct admin *admin, int64_t wanted,
                        struct error *err)
{
    *letters = (struct letters){.wanted = wanted};
    letters->all = xcalloc(LETTERS_MAX, sizeof(*letters->all));
    return admin_read(admin, TOPIC_DEADLETTER, note, letters, err);
}

static void letters_close(struct letters *letters)
{
    if (letters->count > 0) {
        forget(letters, 0, letters->count);
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
    int result = letters_open(&letters, admin, ALL, err);
    if (result == STATUS_OK) {
        printf("%8s  %-24s  %-20s %-36s %s\n", "letter", "written", "reason", "job", "message");
        for (size_t i = 0; i < letters.count; i++) {
            print_line(&letters.all[i]);
        }
        if (letters.left_out > 0) {
            printf("%zu older letters are not listed; show, replay and drop find them by number\n",
                   letters.left_out);
        }
    }
    letters_close(&letters);
    return result;
}

/* ---- One letter ------------------------------------------------------------------------------ */

/* Reads the letter that the argument names: it is the only one of *letters then, and may be one
 * that nobody can read. NULL and *err when there is none. letters_close either way. */
static const struct letter *open_named(struct letters *letters, const struct admin *admin,
                                       struct error *err)
{
    char *end = NULL;
    long long offset = strtoll(admin->argument, &end, 10);
    bool is_number = end != admin->argument && *end == '\0' && offset >= 0;
    *letters = (struct letters){.wanted = offset};
    if (is_number && letters_open(letters, admin, offset, err) < 0) {
        return NULL;
    }
    if (letters->count == 0) {
        ERROR(err, STATUS_NOT_FOUND, "there is no dead letter %s: crafterse-admin letters",
              admin->argument);
        return NULL;
    }
    return &letters->all[0];
}

/* The order inside, or NULL and *err. Free with codec_free. */
static Crafterse__V1__Job *read_job(const struct letter *letter, struct error *err)
{
    const Crafterse__V1__DeadLetter *message = letter->message;
    Crafterse__V1__Job *job = NULL;
    if (message != NULL) {
        job = (Crafterse__V1__Job *)codec_unpack(&crafterse__v1__job__descriptor,
                                                 message->payload.data, message->payload.len, err);
    }
    if (job == NULL || job->generation == NULL || job->n_images == 0) {
        codec_free(job != NULL ? &job->base : NULL);
        ERROR(err, STATUS_UNSUPPORTED,
              "letter %" PRId64 " of topic %s holds no order that could be drawn", letter->offset,
              message != NULL ? message->topic : "-");
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
    if (message == NULL) {
        return;
    }
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
    const struct letter *letter = open_named(&letters, admin, err);
    int result = letter != NULL ? STATUS_OK : err->status;
    if (letter != NULL) {
        print_letter(letter);
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
    producer_destroy(producer, CLOSE_TIMEOUT_MS);
    codec_free(&job->base);
    if (result == STATUS_OK) {
        printf("ordered again as job %s\n", job_id);
    }
    return result;
}

int admin_letter_replay(const struct admin *admin, struct error *err)
{
    struct letters letters;
    const struct letter *letter = open_named(&letters, admin, err);
    int result = letter != NULL ? send_again(admin, letter, err) : err->status;
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
    producer_destroy(producer, CLOSE_TIMEOUT_MS);
    return result;
}

int admin_letter_drop(const struct admin *admin, struct error *err)
{
    struct letters letters;
    const struct letter *letter = open_named(&letters, admin, err);
    int result = letter != NULL ? send_drop(admin, letter->offset, err) : err->status;
    if (result == STATUS_OK) {
        printf("letter %s is listed no more\n", admin->argument);
    }
    letters_close(&letters);
    return result;
}
