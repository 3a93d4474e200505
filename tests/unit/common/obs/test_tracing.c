#include "common/obs/tracing.h"

#include "common/base/log.h"
#include "tests/harness/test.h"

static const struct config_option *const tables[] = {tracing_options};

/* As the services do: 0 when a process would start with these settings. */
static int load(struct tracing_config *config, struct error *err)
{
    void *const structs[] = {config};
    int result = config_load(tables, 1, structs, err);
    if (result == 0 && (result = tracing_check(config, err)) < 0) {
        config_unload(tables, 1, structs);
    }
    return result;
}

static void unload(struct tracing_config *config)
{
    void *const structs[] = {config};
    config_unload(tables, 1, structs);
}

static const char *refusal(const char *name, const char *value)
{
    static struct error err;
    struct tracing_config config;
    setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1", 1);
    setenv(name, value, 1);
    if (load(&config, &err) == 0) {
        unload(&config);
        snprintf(err.text, sizeof(err.text), "none");
    }
    unsetenv(name);
    return err.text;
}

TEST(settings_are_opentelemetrys_and_judged_before_the_start)
{
    CHECK_STR(refusal("OTEL_SERVICE_NAME", "x"), "none");
    CHECK_CONTAINS(refusal("OTEL_TRACES_SAMPLER", "jaeger_remote"), "OTEL_TRACES_SAMPLER is");
    CHECK_STR(refusal("OTEL_TRACES_SAMPLER_ARG", "2"), "none"); /* not asked for */
    setenv("OTEL_TRACES_SAMPLER", "parentbased_traceidratio", 1);
    CHECK_CONTAINS(refusal("OTEL_TRACES_SAMPLER_ARG", "2"), "share from 0 to 1");
    unsetenv("OTEL_TRACES_SAMPLER");
    CHECK_CONTAINS(refusal("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4318"), "http");
    CHECK_CONTAINS(refusal("OTEL_EXPORTER_OTLP_HEADERS", "s3cret"), "OTLP_HEADERS: member 1");
    CHECK_CONTAINS(refusal("OTEL_RESOURCE_ATTRIBUTES", "a"), "OTEL_RESOURCE_ATTRIBUTES: ");
    CHECK_CONTAINS(refusal("OTEL_BSP_MAX_QUEUE_SIZE", "10"), "OTEL_BSP_MAX_EXPORT_BATCH_SIZE");
    CHECK_CONTAINS(refusal("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"), "http/protobuf");
}

TEST(without_an_endpoint_contexts_travel_on_as_they_came)
{
    struct trace_context client, context;
    REQUIRE(trace_parse("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", &client));
    CHECK(tracing_begin_request("x", &client, &context) == NULL);
    CHECK(memcmp(&client, &context, sizeof(client)) == 0);
    CHECK(tracing_begin_request("x", NULL, &context) == NULL);
    CHECK(!context.is_sampled);
    CHECK(tracing_begin("x", SPAN_INTERNAL, NULL) == NULL);
    tracing_end(NULL);
}

static void start(const char *sampler)
{
    struct tracing_config config;
    struct error err;
    setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1", 1);
    setenv("OTEL_TRACES_SAMPLER", sampler, 1);
    CHECK_INT(load(&config, &err), 0);
    CHECK_INT(tracing_start(&config, "worker", "worker-1", "1", &err), 0);
    unload(&config);
}

TEST(what_the_client_decided_holds_and_is_carried_on)
{
    struct trace_context client, context;
    log_init("test", "test", LOG_ERROR);
    start("parentbased_always_off");
    REQUIRE(trace_parse("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", &client));
    struct span *span = tracing_begin_request("x", &client, &context);
    REQUIRE(span != NULL);
    CHECK(context.is_sampled);
    CHECK(memcmp(context.span_id, client.span_id, sizeof(client.span_id)) != 0);
    struct span *child = tracing_begin_child("y", SPAN_CLIENT, span);
    REQUIRE(child != NULL);
    CHECK(memcmp(child->parent_id, context.span_id, sizeof(context.span_id)) == 0);
    tracing_enter(span);
    tracing_enter(child);
    CHECK(tracing_current() == child);
    tracing_leave(child);
    CHECK(tracing_current() == span);
    tracing_leave(span);
    tracing_end(child);
    tracing_end(span);
    client.is_sampled = false;
    CHECK(tracing_begin_request("x", &client, &context) == NULL);
    CHECK(!context.is_sampled);
    CHECK(tracing_begin("x", SPAN_CONSUMER, &context) == NULL);
    CHECK(tracing_begin("x", SPAN_INTERNAL, NULL) == NULL);
    CHECK(tracing_begin_text("x", SPAN_CONSUMER, "no traceparent") == NULL);
    tracing_stop();
    CHECK(tracing_begin_child("late", SPAN_INTERNAL, NULL) == NULL);
}

TEST_MAIN()
