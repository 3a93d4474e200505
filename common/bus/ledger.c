/* A hash table with open addressing over entries that also form a ring in the order of their first
 * record, so that forgetting the oldest is taking the next place of the ring. */
#include "common/bus/ledger.h"

#include <stdint.h>
#include <string.h>

#include "common/base/fault.h"
#include "common/base/panic.h"

#define JOB_ID_SIZE 72 /* longer ids are never accepted (codec.h) */
#define NONE UINT32_MAX

struct entry {
    char job_id[JOB_ID_SIZE]; /* "" = free */
    Crafterse__V1__State state;
    uint32_t attempt;
    bool waits; /* for its next attempt */
    bool run_continues;
    uint64_t ended_ms;       /* when its end was told, by the last who told it; 0 = it has none */
    uint64_t rendered_bytes; /* its pictures', while it is RENDERED */
};

struct ledger {
    struct entry *entries; /* the ring */
    size_t capacity;
    size_t next;     /* place of the ring that is taken next */
    uint32_t *slots; /* indexes of entries; NONE = empty */
    size_t slot_mask;
    uint64_t rendered_bytes; /* of all entries */
};

struct ledger *ledger_create(size_t capacity)
{
    ASSERT(capacity > 0 && capacity < NONE / 4);
    struct ledger *l = xcalloc(1, sizeof(*l));
    size_t slots = 16;
    while (slots < capacity * 2) {
        slots *= 2;
    }
    l->capacity = capacity;
    l->entries = xcalloc(capacity, sizeof(*l->entries));
    l->slots = xmalloc(slots * sizeof(*l->slots));
    memset(l->slots, 0xFF, slots * sizeof(*l->slots));
    l->slot_mask = slots - 1;
    return l;
}

void ledger_destroy(struct ledger *l)
{
    if (l == NULL) {
        return;
    }
    xfree(l->entries);
    xfree(l->slots);
    xfree(l);
}

bool ledger_is_terminal(Crafterse__V1__State state)
{
    return (int)state >= 10;
}

/* FNV-1a: ids are random or hashes already, and a flood of chosen ids needs a valid API key. */
static size_t hash(const char *text)
{
    uint64_t value = 0xcbf29ce484222325u;
    for (; *text != '\0'; text++) {
        value = (value ^ (unsigned char)*text) * 0x100000001b3u;
    }
    return (size_t)(value ^ (value >> 32));
}

/* The slot that holds job_id, or the empty one where it belongs. */
static size_t find_slot(const struct ledger *l, const char *job_id)
{
    size_t slot = hash(job_id) & l->slot_mask;
    while (l->slots[slot] != NONE && strcmp(l->entries[l->slots[slot]].job_id, job_id) != 0) {
        slot = (slot + 1) & l->slot_mask;
    }
    return slot;
}

/* Empties a slot and moves up what had to go round it. */
static void remove_slot(struct ledger *l, size_t slot)
{
    l->slots[slot] = NONE;
    for (size_t at = (slot + 1) & l->slot_mask; l->slots[at] != NONE;
         at = (at + 1) & l->slot_mask) {
        uint32_t index = l->slots[at];
        l->slots[at] = NONE;
        l->slots[find_slot(l, l->entries[index].job_id)] = index;
    }
}

static struct entry *add(struct ledger *l, const char *job_id)
{
    struct entry *entry = &l->entries[l->next];
    if (entry->job_id[0] != '\0') {
        remove_slot(l, find_slot(l, entry->job_id));
    }
    memcpy(entry->job_id, job_id, strlen(job_id) + 1);
    l->slots[find_slot(l, job_id)] = (uint32_t)l->next;
    l->next = (l->next + 1) % l->capacity;
    return entry;
}

static void keep_state(struct ledger *l, struct entry *entry, const Crafterse__V1__Status *status)
{
    entry->state = status->state;
    entry->waits = status->retry_at_ms > 0;
    l->rendered_bytes -= entry->rendered_bytes;
    entry->rendered_bytes = 0;
    if (status->state == CRAFTERSE__V1__STATE__STATE_RENDERED) {
        for (size_t i = 0; i < status->n_images; i++) {
            entry->rendered_bytes += status->images[i]->bytes;
        }
    }
    l->rendered_bytes += entry->rendered_bytes;
}

static void keep_end(struct entry *entry, const Crafterse__V1__Status *status)
{
    if (!ledger_is_terminal(status->state)) {
        return;
    }
    entry->run_continues = status->run_continues;
    if (status->envelope->sent_ms > entry->ended_ms) {
        entry->ended_ms = status->envelope->sent_ms;
    }
}

bool ledger_fold(struct ledger *l, const Crafterse__V1__Status *status)
{
    const char *job_id = status->envelope->job_id;
    if (job_id[0] == '\0' || strlen(job_id) >= JOB_ID_SIZE) {
        return false;
    }
    uint32_t index = l->slots[find_slot(l, job_id)];
    if (index == NONE) {
        struct entry *entry = add(l, job_id);
        entry->attempt = status->envelope->attempt;
        entry->ended_ms = 0;
        entry->run_continues = false;
        keep_state(l, entry, status);
        keep_end(entry, status);
        return true;
    }
    struct entry *entry = &l->entries[index];
    keep_end(entry, status);
    uint32_t attempt = status->envelope->attempt;
    bool is_new_attempt = attempt > entry->attempt;
    bool fails = status->retry_at_ms > 0 && !entry->waits && status->state == entry->state;
    bool is_forward = attempt == entry->attempt && (status->state > entry->state || fails);
    /* A terminal record counts whatever its attempt: some are written by stages that know none. */
    if ((ledger_is_terminal(entry->state) && !fault_breaks("skip_dedup")) ||
        (!ledger_is_terminal(status->state) && !is_new_attempt && !is_forward)) {
        return false;
    }
    entry->attempt = is_new_attempt ? attempt : entry->attempt;
    keep_state(l, entry, status);
    return true;
}

Crafterse__V1__State ledger_state(const struct ledger *l, const char *job_id)
{
    uint32_t index = l->slots[find_slot(l, job_id)];
    return index != NONE ? l->entries[index].state : CRAFTERSE__V1__STATE__STATE_ACCEPTED;
}

bool ledger_is_waiting(const struct ledger *l, const char *job_id)
{
    uint32_t index = l->slots[find_slot(l, job_id)];
    return index != NONE && l->entries[index].waits;
}

bool ledger_run_continues(const struct ledger *l, const char *job_id)
{
    uint32_t index = l->slots[find_slot(l, job_id)];
    return index != NONE && l->entries[index].run_continues;
}

uint32_t ledger_attempt(const struct ledger *l, const char *job_id)
{
    uint32_t index = l->slots[find_slot(l, job_id)];
    return index != NONE ? l->entries[index].attempt : 0;
}

bool ledger_ended_before(const struct ledger *l, const char *job_id, uint64_t accepted_ms)
{
    uint32_t index = l->slots[find_slot(l, job_id)];
    return index != NONE && l->entries[index].ended_ms > 0 &&
           l->entries[index].ended_ms < accepted_ms;
}

uint64_t ledger_rendered_bytes(const struct ledger *l)
{
    return l->rendered_bytes;
}
