#include "common/obs/tracing.h"

#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "common/base/log.h"
#include "common/base/panic.h"
#include "common/obs/span_exporter.h"

#define STOP_MS 3000
#define URL_SIZE 2048
#define NAME_SIZE 64

static struct {
    _Atomic(struct span_exporter *) exporter; /* NULL: nothing is recorded */
    struct trace_sampler sampler;
} tracer;

static _Thread_local struct span *innermost;

#define AT(field) offsetof(struct tracing_config, field)
#define SAMPLERS \
    "always_on|always_off|traceidratio|parentbased_always_on|parentbased_always_off|" \
    "parentbased_traceidratio"

const struct config_option tracing_options[] = {
    {"OTEL_SDK_DISABLED", CONFIG_BOOL, AT(is_disabled), "false", 0, 0, NULL, CONFIG_WHOLE_NAME,
     "Record no spans, whatever else is set."},
    {"OTEL_TRACES_EXPORTER", CONFIG_CHOICE, AT(exporter), "otlp", 0, 0, "otlp|none",
     CONFIG_WHOLE_NAME, "none records no spans."},
    {"OTEL_EXPORTER_OTLP_ENDPOINT", CONFIG_STRING, AT(endpoint), "", 0, 0, NULL, CONFIG_WHOLE_NAME,
     "Address of an OTLP/HTTP receiver, for example http://collector:4318: spans go to its "
     "/v1/traces. Without it none are recorded."},
    {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", CONFIG_STRING, AT(traces_endpoint), "", 0, 0, NULL,
     CONFIG_WHOLE_NAME, "The same as a whole address, which is taken as it is and goes first."},
    {"OTEL_EXPORTER_OTLP_PROTOCOL", CONFIG_CHOICE, AT(protocol), "http/protobuf", 0, 0,
     "http/protobuf", CONFIG_WHOLE_NAME, "The one that there is."},
    {"OTEL_EXPORTER_OTLP_HEADERS", CONFIG_STRING, AT(headers), "", 0, 0, NULL,
     CONFIG_WHOLE_NAME | CONFIG_SECRET,
     "Headers of the requests, as key=value,key=value with values percent-encoded."},
    {"OTEL_EXPORTER_OTLP_TRACES_HEADERS", CONFIG_STRING, AT(traces_headers), "", 0, 0, NULL,
     CONFIG_WHOLE_NAME | CONFIG_SECRET, "The same; these go first."},
    {"OTEL_EXPORTER_OTLP_CERTIFICATE", CONFIG_STRING, AT(certificate), "", 0, 0, NULL,
     CONFIG_WHOLE_NAME, "PEM file of the authorities that the receiver's certificate may be from."},
    {"OTEL_EXPORTER_OTLP_TIMEOUT", CONFIG_INT, AT(timeout_ms), "10000", 1, 600000, NULL,
     CONFIG_WHOLE_NAME, "Milliseconds that one request may take."},
    {"OTEL_SERVICE_NAME", CONFIG_STRING, AT(service_name), "", 0, 0, NULL, CONFIG_WHOLE_NAME,
     "service.name of the spans; crafterse-<service> when unset."},
    {"OTEL_RESOURCE_ATTRIBUTES", CONFIG_STRING, AT(resource_attributes), "", 0, 0, NULL,
     CONFIG_WHOLE_NAME,
     "What else describes this process, as key=value,key=value: "
     "deployment.environment.name=production."},
    {"OTEL_TRACES_SAMPLER", CONFIG_CHOICE, AT(sampler), "parentbased_always_on", 0, 0, SAMPLERS,
     CONFIG_WHOLE_NAME,
     "Which traces are recorded. The gateway decides, and what it decided travels with the job."},
    {"OTEL_TRACES_SAMPLER_ARG", CONFIG_STRING, AT(sampler_argument), "", 0, 0, NULL,
     CONFIG_WHOLE_NAME,
     "The share of traces that traceidratio records, from 0 to 1; 1 when unset."},
    {"OTEL_BSP_SCHEDULE_DELAY", CONFIG_INT, AT(schedule_delay_ms), "5000", 1, 3600000, NULL,
     CONFIG_WHOLE_NAME, "Milliseconds that a span waits for others to be sent with."},
    {"OTEL_BSP_EXPORT_TIMEOUT", CONFIG_INT, AT(export_timeout_ms), "30000", 1, 3600000, NULL,
     CONFIG_WHOLE_NAME, "Milliseconds after which a batch that cannot be delivered is dropped."},
    {"OTEL_BSP_MAX_QUEUE_SIZE", CONFIG_INT, AT(queue_max), "2048", 1, 1000000, NULL,
     CONFIG_WHOLE_NAME, "Spans that wait at most, about 1 KiB each; more are dropped and counted."},
    {"OTEL_BSP_MAX_EXPORT_BATCH_SIZE", CONFIG_INT, AT(batch_max), "512", 1, 100000, NULL,
     CONFIG_WHOLE_NAME, "Spans of one request at most."},
    {.name = NULL},
};

/* ---- Settings -------------------------------------------------------------------------------- */

/* The whole address; false when there is none, so that nothing is recorded. */
static bool find_url(const struct tracing_config *config, char url[URL_SIZE])
{
    const char *base = config->endpoint;
    url[0] = '\0';
    if (config->is_disabled || strcmp(config->exporter, "none") == 0) {
        return false;
    }
    if (config->traces_endpoint[0] != '\0') {
        snprintf(url, URL_SIZE, "%s", config->traces_endpoint);
    } else if (base[0] != '\0') {
        bool has_slash = base[strlen(base) - 1] == '/';
        snprintf(url, URL_SIZE, "%s%sv1/traces", base, has_slash ? "" : "/");
    }
    return url[0] != '\0';
}

/* The traces' own headers, then those of all signals. */
static int read_headers(const struct tracing_config *config, struct pairs *out, struct error *err)
{
    struct pairs shared;
    int result = pairs_parse(out, config->traces_headers, err);
    if (result < 0) {
        return error_wrap(err, "OTEL_EXPORTER_OTLP_TRACES_HEADERS");
    }
    result = pairs_parse(&shared, config->headers, err);
    if (result < 0) {
        pairs_deinit(out);
        return error_wrap(err, "OTEL_EXPORTER_OTLP_HEADERS");
    }
    for (size_t i = 0; i < shared.count; i++) {
        pairs_add(out, shared.list[i].key, shared.list[i].value);
    }
    pairs_deinit(&shared);
    return 0;
}

static int read_resource(const struct tracing_config *config, struct pairs *out, struct error *err)
{
    return pairs_parse(out, config->resource_attributes, err) < 0
               ? error_wrap(err, "OTEL_RESOURCE_ATTRIBUTES")
               : 0;
}

int tracing_check(const struct tracing_config *config, struct error *err)
{
    char url[URL_SIZE];
    struct trace_sampler sampler;
    struct pairs pairs;
    if (!find_url(config, url)) {
        return 0;
    }
    if ((strncmp(url, "http://", 7) != 0 && strncmp(url, "https://", 8) != 0) ||
        strlen(url) == URL_SIZE - 1) {
        return ERROR(err, STATUS_INVALID,
                     "the OTLP endpoint \"%.200s\" is no http or https address of at most %d "
                     "characters, such as http://collector:4318",
                     url, URL_SIZE - 2);
    }
    int result = trace_sampler_init(&sampler, config->sampler, config->sampler_argument, err);
    if (result == 0 && (result = read_headers(config, &pairs, err)) == 0) {
        pairs_deinit(&pairs);
    }
    if (result == 0 && (result = read_resource(config, &pairs, err)) == 0) {
        pairs_deinit(&pairs);
    }
    if (result == 0 && config->batch_max > config->queue_max) {
        result = ERROR(err, STATUS_INVALID,
                       "OTEL_BSP_MAX_EXPORT_BATCH_SIZE is over OTEL_BSP_MAX_QUEUE_SIZE");
    }
    return result;
}

/* ---- Life ------------------------------------------------------------------------------------ */

/* What names the process comes first: pairs_add leaves what is there. */
static int describe(const struct tracing_config *config, const char *service, const char *instance,
                    const char *version, struct pairs *out, struct error *err)
{
    struct pairs given;
    char name[NAME_SIZE];
    int result = read_resource(config, &given, err);
    if (result < 0) {
        return result;
    }
    *out = (struct pairs){.count = 0};
    if (config->service_name[0] != '\0') {
        pairs_add(out, "service.name", config->service_name);
    }
    for (size_t i = 0; i < given.count; i++) {
        pairs_add(out, given.list[i].key, given.list[i].value);
    }
    pairs_deinit(&given);
    snprintf(name, sizeof(name), "crafterse-%s", service);
    pairs_add(out, "service.name", name);
    pairs_add(out, "service.namespace", "crafterse");
    pairs_add(out, "service.instance.id", instance);
    pairs_add(out, "service.version", version);
    return 0;
}

int tracing_start(const struct tracing_config *config, const char *service, const char *instance,
                  const char *version, struct error *err)
{
    char url[URL_SIZE];
    struct pairs headers, resource;
    struct span_exporter *exporter = NULL;
    span_exporter_register_metrics();
    if (!find_url(config, url)) {
        return 0;
    }
    int result =
        trace_sampler_init(&tracer.sampler, config->sampler, config->sampler_argument, err);
    if (result < 0 || (result = read_headers(config, &headers, err)) < 0) {
        return result;
    }
    result = describe(config, service, instance, version, &resource, err);
    if (result == 0) {
        const struct span_exporter_options options = {
            .url = url,
            .ca_file = config->certificate,
            .version = version,
            .headers = &headers,
            .resource = &resource,
            .timeout_ms = config->timeout_ms,
            .schedule_delay_ms = config->schedule_delay_ms,
            .export_timeout_ms = config->export_timeout_ms,
            .queue_max = config->queue_max,
            .batch_max = config->batch_max,
        };
        result = span_exporter_start(&exporter, &options, err);
        pairs_deinit(&resource);
    }
    pairs_deinit(&headers);
    if (result == 0) {
        atomic_store(&tracer.exporter, exporter);
        log_info("spans are exported", "endpoint=%s sampler=%s", LOG_QUOTED(url), config->sampler);
    }
    return result;
}

void tracing_stop(void)
{
    span_exporter_stop(atomic_exchange(&tracer.exporter, NULL), STOP_MS);
}

/* ---- Spans ----------------------------------------------------------------------------------- */

static bool is_on(void)
{
    return atomic_load_explicit(&tracer.exporter, memory_order_acquire) != NULL;
}

struct span *tracing_begin_request(const char *name, const struct trace_context *parent,
                                   struct trace_context *context)
{
    if (!is_on() && parent != NULL) {
        *context = *parent; /* we take no part: the next one is the client's child */
        return NULL;
    }
    if (parent != NULL) {
        trace_make_child(parent, context);
    } else {
        trace_make_root(context);
    }
    if (!is_on()) {
        return NULL;
    }
    context->is_sampled = trace_sampler_takes(&tracer.sampler, parent, context->trace_id);
    return context->is_sampled ? span_create(name, SPAN_SERVER, context, parent) : NULL;
}

struct span *tracing_begin(const char *name, enum span_kind kind,
                           const struct trace_context *parent)
{
    struct trace_context context;
    if (!is_on()) {
        return NULL;
    }
    if (parent == NULL) {
        trace_make_root(&context);
    } else if (tracer.sampler.follows_parent && !parent->is_sampled) {
        return NULL;
    } else {
        trace_make_child(parent, &context);
    }
    context.is_sampled = trace_sampler_takes(&tracer.sampler, parent, context.trace_id);
    return context.is_sampled ? span_create(name, kind, &context, parent) : NULL;
}

struct span *tracing_begin_text(const char *name, enum span_kind kind, const char *traceparent)
{
    struct trace_context parent;
    return is_on() && trace_parse(traceparent, &parent) ? tracing_begin(name, kind, &parent) : NULL;
}

struct span *tracing_begin_child(const char *name, enum span_kind kind, const struct span *parent)
{
    return parent != NULL ? tracing_begin(name, kind, &parent->context) : NULL;
}

void tracing_end_after(struct span *span, double seconds)
{
    if (span == NULL) {
        return;
    }
    struct span_exporter *exporter = atomic_load(&tracer.exporter);
    ASSERT(span != innermost);
    span_finish(span, seconds);
    if (exporter != NULL) {
        span_exporter_push(exporter, span);
    } else {
        span_destroy(span);
    }
}

void tracing_end(struct span *span)
{
    tracing_end_after(span, -1);
}

void tracing_enter(struct span *span)
{
    if (span != NULL) {
        span->outer = innermost;
        innermost = span;
    }
}

void tracing_leave(struct span *span)
{
    if (span != NULL) {
        ASSERT(span == innermost);
        innermost = span->outer;
    }
}

struct span *tracing_current(void)
{
    return innermost;
}
