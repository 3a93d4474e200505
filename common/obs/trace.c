#include "common/obs/trace.h"

#include <stdlib.h>
#include <string.h>

#include "common/base/digest.h"
#include "common/base/id.h"

#define FLAG_SAMPLED 1
#define FLAG_RANDOM 2
#define STATE_MEMBERS_MAX 32
#define STATE_PART_MAX 256 /* a key, a value */
#define SAMPLER_ALL (UINT64_C(1) << 63)

/* Where the parts of a traceparent begin. */
enum { AT_TRACE_ID = 3, AT_SPAN_ID = 36, AT_FLAGS = 53 };

static const char hex_digits[] = "0123456789abcdef";

/* ---- traceparent ----------------------------------------------------------------------------- */

/* False unless all are digits; capitals are none. */
static bool read_hex(const char *text, uint8_t *out, size_t bytes)
{
    for (size_t i = 0; i < 2 * bytes; i++) {
        const char *digit = text[i] != '\0' ? strchr(hex_digits, text[i]) : NULL;
        if (digit == NULL) {
            return false;
        }
        out[i / 2] = (uint8_t)(out[i / 2] << 4 | (digit - hex_digits));
    }
    return true;
}

static bool is_zero(const uint8_t *bytes, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (bytes[i] != 0) {
            return false;
        }
    }
    return true;
}

bool trace_parse(const char *traceparent, struct trace_context *out)
{
    const char *t = traceparent;
    uint8_t version = 0, flags = 0;
    size_t length = strlen(t);
    *out = (struct trace_context){.is_sampled = false};
    if (length < TRACE_PARENT_SIZE - 1 || t[2] != '-' || t[AT_SPAN_ID - 1] != '-' ||
        t[AT_FLAGS - 1] != '-' || !read_hex(t, &version, 1) ||
        !read_hex(t + AT_TRACE_ID, out->trace_id, TRACE_ID_BYTES) ||
        !read_hex(t + AT_SPAN_ID, out->span_id, TRACE_SPAN_ID_BYTES) ||
        !read_hex(t + AT_FLAGS, &flags, 1)) {
        return false;
    }
    /* Version 00 ends here; a later one may go on behind a dash. */
    char next = t[TRACE_PARENT_SIZE - 1];
    if (version == 0xFF || (next != '\0' && (version == 0 || next != '-'))) {
        return false;
    }
    out->is_sampled = (flags & FLAG_SAMPLED) != 0;
    out->is_random = (flags & FLAG_RANDOM) != 0;
    return !is_zero(out->trace_id, TRACE_ID_BYTES) && !is_zero(out->span_id, TRACE_SPAN_ID_BYTES);
}

void trace_format(const struct trace_context *context, char traceparent[TRACE_PARENT_SIZE])
{
    uint8_t flags = (uint8_t)((context->is_sampled ? FLAG_SAMPLED : 0) |
                              (context->is_random ? FLAG_RANDOM : 0));
    memcpy(traceparent, "00-", 3);
    digest_hex(context->trace_id, TRACE_ID_BYTES, traceparent + AT_TRACE_ID);
    traceparent[AT_SPAN_ID - 1] = '-';
    digest_hex(context->span_id, TRACE_SPAN_ID_BYTES, traceparent + AT_SPAN_ID);
    traceparent[AT_FLAGS - 1] = '-';
    digest_hex(&flags, 1, traceparent + AT_FLAGS);
}

/* ---- Ids ------------------------------------------------------------------------------------- */

/* Eight bytes that are not all zero: an id of only zeros is invalid by the specification. */
static void make_id(uint8_t id[8])
{
    uint64_t random;
    do {
        random = id_random();
    } while (random == 0);
    memcpy(id, &random, sizeof(random));
}

void trace_make_root(struct trace_context *out)
{
    *out = (struct trace_context){.is_sampled = false};
    make_id(out->trace_id);
    make_id(out->trace_id + 8);
    make_id(out->span_id);
}

void trace_make_child(const struct trace_context *parent, struct trace_context *out)
{
    *out = *parent;
    make_id(out->span_id);
}

/* ---- tracestate ------------------------------------------------------------------------------ */

/* key: a lower-case letter or a digit, then those and _-* / and, once, @. Returns its length. */
static size_t key_length(const char *text)
{
    static const char first[] = "abcdefghijklmnopqrstuvwxyz0123456789";
    static const char rest[] = "abcdefghijklmnopqrstuvwxyz0123456789_-*/@";
    return text[0] != '\0' && strchr(first, text[0]) != NULL ? strspn(text, rest) : 0;
}

/* One member, without the spaces around it. */
static bool is_member(const char *text, size_t length)
{
    size_t key = key_length(text);
    if (key == 0 || key > STATE_PART_MAX || key >= length || text[key] != '=') {
        return false;
    }
    const char *value = text + key + 1;
    size_t size = length - key - 1;
    for (size_t i = 0; i < size; i++) {
        if (value[i] < ' ' || value[i] > '~' || value[i] == '=') {
            return false;
        }
    }
    return size > 0 && size <= STATE_PART_MAX;
}

bool trace_state_is_valid(const char *tracestate)
{
    size_t members = 0;
    if (strlen(tracestate) >= TRACE_STATE_SIZE) {
        return false;
    }
    for (const char *at = tracestate; *at != '\0';) {
        at += strspn(at, " \t");
        size_t whole = strcspn(at, ","), length = whole;
        while (length > 0 && (at[length - 1] == ' ' || at[length - 1] == '\t')) {
            length--;
        }
        /* An empty member is allowed and says nothing. */
        if (length > 0 && (!is_member(at, length) || ++members > STATE_MEMBERS_MAX)) {
            return false;
        }
        at += whole + (at[whole] == ',');
    }
    return members > 0;
}

/* ---- Sampling -------------------------------------------------------------------------------- */

static int read_share(const char *argument, double *share, struct error *err)
{
    char *end = NULL;
    *share = argument[0] != '\0' ? strtod(argument, &end) : 1;
    if ((end != NULL && *end != '\0') || !(*share >= 0 && *share <= 1)) {
        return ERROR(err, STATUS_INVALID,
                     "OTEL_TRACES_SAMPLER_ARG is \"%s\": expected a share from 0 to 1, for example "
                     "0.01",
                     argument);
    }
    return 0;
}

int trace_sampler_init(struct trace_sampler *sampler, const char *name, const char *argument,
                       struct error *err)
{
    static const char prefix[] = "parentbased_";
    double share = 1;
    sampler->follows_parent = strncmp(name, prefix, sizeof(prefix) - 1) == 0;
    const char *root = sampler->follows_parent ? name + sizeof(prefix) - 1 : name;
    if (strcmp(root, "traceidratio") == 0) {
        int result = read_share(argument, &share, err);
        if (result < 0) {
            return result;
        }
    } else if (strcmp(root, "always_off") == 0) {
        share = 0;
    } else if (strcmp(root, "always_on") != 0) {
        return ERROR(err, STATUS_INVALID, "there is no sampler \"%s\"", name);
    }
    sampler->bound = share >= 1 ? SAMPLER_ALL : (uint64_t)(share * (double)SAMPLER_ALL);
    return 0;
}

bool trace_sampler_takes(const struct trace_sampler *sampler, const struct trace_context *parent,
                         const uint8_t trace_id[TRACE_ID_BYTES])
{
    if (sampler->follows_parent && parent != NULL) {
        return parent->is_sampled;
    }
    /* The id's last eight bytes are the random ones for all generators (level 2 of the
     * specification); OpenTelemetry's Go SDK takes 63 bits of them, and so do we. */
    uint64_t value = 0;
    for (int i = 8; i < TRACE_ID_BYTES; i++) {
        value = value << 8 | trace_id[i];
    }
    return value >> 1 < sampler->bound;
}
