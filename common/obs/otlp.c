/* protobuf-c packs trees of structs, so the batch is laid out as one array for each kind of message
 * and packed in one go. */
#include "common/obs/otlp.h"

#include <stdio.h>
#include <string.h>

#include "common/base/borrow.h"
#include "common/base/panic.h"
#include "common/base/utf8.h"
#include "proto/otlp.pb-c.h"

#define ANSWER_BYTES_MAX (64 * 1024)

struct layout {
    Otlp__Span *spans;
    Otlp__Span **span_list;
    Otlp__Status *statuses;
    Otlp__KeyValue *pairs; /* of all spans, then of the resource */
    Otlp__KeyValue **pair_list;
    Otlp__AnyValue *values;
    size_t pair_count;
};

/* text NULL: number is the value. */
static void add_pair(struct layout *l, const char *key, const char *value, int64_t number)
{
    Otlp__KeyValue *pair = &l->pairs[l->pair_count];
    Otlp__AnyValue *any = &l->values[l->pair_count];
    otlp__key_value__init(pair);
    otlp__any_value__init(any);
    pair->key = borrow_text(key);
    pair->value = any;
    if (value != NULL) {
        any->value_case = OTLP__ANY_VALUE__VALUE_STRING_VALUE;
        any->string_value = borrow_text(value);
    } else {
        any->value_case = OTLP__ANY_VALUE__VALUE_INT_VALUE;
        any->int_value = number;
    }
    l->pair_list[l->pair_count++] = pair;
}

static void fill_span(struct layout *l, size_t index, struct span *span)
{
    Otlp__Span *out = &l->spans[index];
    otlp__span__init(out);
    l->span_list[index] = out;
    out->trace_id = (ProtobufCBinaryData){TRACE_ID_BYTES, span->context.trace_id};
    out->span_id = (ProtobufCBinaryData){TRACE_SPAN_ID_BYTES, span->context.span_id};
    if (span->has_parent) {
        out->parent_span_id = (ProtobufCBinaryData){TRACE_SPAN_ID_BYTES, span->parent_id};
    }
    out->name = span->name;
    out->kind = (Otlp__SpanKind)span->kind;
    out->start_time_unix_nano = span->start_ns;
    out->end_time_unix_nano = span->end_ns;
    out->flags = span->context.is_sampled;
    out->dropped_attributes_count = (uint32_t)span->attributes_dropped;
    out->attributes = l->pair_list + l->pair_count;
    out->n_attributes = span->attribute_count;
    for (size_t i = 0; i < span->attribute_count; i++) {
        const struct span_attribute *attribute = &span->attributes[i];
        add_pair(l, attribute->key, attribute->text, attribute->number);
    }
    if (span->has_failed) {
        otlp__status__init(&l->statuses[index]);
        l->statuses[index].code = OTLP__STATUS_CODE__STATUS_CODE_ERROR;
        l->statuses[index].message = span->failure;
        out->status = &l->statuses[index];
    }
}

static void layout_init(struct layout *l, struct span *const spans[], size_t count,
                        const struct pairs *resource)
{
    size_t pairs = resource->count;
    for (size_t i = 0; i < count; i++) {
        pairs += spans[i]->attribute_count;
    }
    *l = (struct layout){.spans = xcalloc(count, sizeof(*l->spans)),
                         .span_list = xcalloc(count, sizeof(Otlp__Span *)),
                         .statuses = xcalloc(count, sizeof(*l->statuses)),
                         .pairs = xcalloc(pairs, sizeof(*l->pairs)),
                         .pair_list = xcalloc(pairs, sizeof(Otlp__KeyValue *)),
                         .values = xcalloc(pairs, sizeof(*l->values))};
    for (size_t i = 0; i < count; i++) {
        fill_span(l, i, spans[i]);
    }
}

static void layout_deinit(struct layout *l)
{
    xfree(l->spans);
    xfree(l->span_list);
    xfree(l->statuses);
    xfree(l->pairs);
    xfree(l->pair_list);
    xfree(l->values);
}

uint8_t *otlp_pack(const struct pairs *resource, const char *version, struct span *const spans[],
                   size_t count, size_t *size)
{
    struct layout l;
    Otlp__InstrumentationScope scope = OTLP__INSTRUMENTATION_SCOPE__INIT;
    Otlp__ScopeSpans scope_spans = OTLP__SCOPE_SPANS__INIT;
    Otlp__Resource description = OTLP__RESOURCE__INIT;
    Otlp__ResourceSpans resource_spans = OTLP__RESOURCE_SPANS__INIT;
    Otlp__ExportTraceServiceRequest request = OTLP__EXPORT_TRACE_SERVICE_REQUEST__INIT;
    layout_init(&l, spans, count, resource);
    description.attributes = l.pair_list + l.pair_count;
    description.n_attributes = resource->count;
    for (size_t i = 0; i < resource->count; i++) {
        add_pair(&l, resource->list[i].key, resource->list[i].value, 0);
    }
    scope.name = borrow_text("crafterse");
    scope.version = borrow_text(version);
    scope_spans.scope = &scope;
    scope_spans.spans = l.span_list;
    scope_spans.n_spans = count;
    resource_spans.resource = &description;
    resource_spans.scope_spans = (Otlp__ScopeSpans *[]){&scope_spans};
    resource_spans.n_scope_spans = 1;
    request.resource_spans = (Otlp__ResourceSpans *[]){&resource_spans};
    request.n_resource_spans = 1;

    *size = otlp__export_trace_service_request__get_packed_size(&request);
    uint8_t *bytes = xmalloc(*size);
    otlp__export_trace_service_request__pack(&request, bytes);
    layout_deinit(&l);
    return bytes;
}

int otlp_read_answer(const void *bytes, size_t length, int64_t *rejected, char *why, size_t size,
                     struct error *err)
{
    *rejected = 0;
    why[0] = '\0';
    Otlp__ExportTraceServiceResponse *answer =
        length <= ANSWER_BYTES_MAX
            ? otlp__export_trace_service_response__unpack(NULL, length, bytes)
            : NULL;
    if (answer == NULL) {
        return ERROR(err, STATUS_CORRUPT,
                     "the answer of %zu bytes is no ExportTraceServiceResponse: is the address "
                     "that of an OTLP/HTTP receiver?",
                     length);
    }
    if (answer->partial_success != NULL) {
        const char *message = answer->partial_success->error_message;
        *rejected = answer->partial_success->rejected_spans;
        snprintf(why, size, "%s", utf8_is_valid(message, strlen(message)) ? message : "");
    }
    otlp__export_trace_service_response__free_unpacked(answer, NULL);
    return 0;
}
