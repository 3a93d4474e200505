/* The life of a service: settings, log, signals, probes, its own run, and an exit status that a
 * supervisor can act on: 0 after a clean drain, 1 when settings or the run failed, 2 for wrong
 * arguments. */
#include "common/service/service.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/id.h"
#include "common/base/log.h"
#include "common/base/panic.h"
#include "common/base/shutdown.h"
#include "common/obs/exporter.h"
#include "common/obs/health.h"
#include "common/obs/metrics.h"
#include "common/obs/tracing.h"
#include "common/service/probe.h"
#include "common/service/watchdog.h"

#ifndef CRAFTERSE_VERSION
#define CRAFTERSE_VERSION "unknown"
#endif

#define TABLES_MAX 4
#define PORT_FILE_BYTES_MAX 4096
#define INSTANCE_SIZE 64

static const struct config_option service_options[] = {
    {.name = "LOG_LEVEL",
     .type = CONFIG_CHOICE,
     .offset = offsetof(struct service_settings, log_level),
     .default_text = "info",
     .choices = "debug|info|warn|error",
     .help = "The least important lines that are written; debug shows prompts."},
    {.name = "INSTANCE",
     .type = CONFIG_STRING,
     .offset = offsetof(struct service_settings, instance),
     .help = "This process's name in logs and messages; <service>-<6 hex digits> when unset."},
    {.name = "METRICS_LISTEN",
     .type = CONFIG_STRING,
     .offset = offsetof(struct service_settings, metrics_listen),
     .default_text = "127.0.0.1:0",
     .help = "Address of /metrics, /healthz and /readyz; port 0 takes a free one."},
    {.name = "PORT_FILE",
     .type = CONFIG_STRING,
     .offset = offsetof(struct service_settings, port_file),
     .help = "File that gets a name=port line for every port that the service listens on."},
    {.name = "HANG_LIMIT",
     .type = CONFIG_DURATION,
     .offset = offsetof(struct service_settings, hang_limit_ms),
     .default_text = "60s",
     .min = 100,
     .max = 3600000,
     .help = "How long the main loop may stand still before /healthz fails. After twice that time "
             "the process ends itself, to be started again."},
    {.name = NULL},
};

/* Everything that is loaded, so that it is unloaded in one place. */
struct loaded {
    const struct service *service;
    struct service_settings settings;
    struct kafka_config kafka;
    struct tracing_config tracing;
    void *config;
    const struct config_option *tables[TABLES_MAX];
    void *structs[TABLES_MAX];
    size_t table_count;
    bool is_loaded;
};

static void add_table(struct loaded *loaded, const struct config_option *table, void *structure)
{
    ASSERT(loaded->table_count < TABLES_MAX);
    loaded->tables[loaded->table_count] = table;
    loaded->structs[loaded->table_count++] = structure;
}

static void prepare(struct loaded *loaded, const struct service *service)
{
    *loaded = (struct loaded){.service = service};
    loaded->config = xcalloc(1, service->config_size);
    if (service->options != NULL) {
        add_table(loaded, service->options, loaded->config);
    }
    if (!service->no_kafka) {
        add_table(loaded, kafka_config_options, &loaded->kafka);
    }
    add_table(loaded, service_options, &loaded->settings);
    add_table(loaded, tracing_options, &loaded->tracing);
}

static void unload(struct loaded *loaded)
{
    if (loaded->is_loaded) {
        config_unload(loaded->tables, loaded->table_count, loaded->structs);
    }
    xfree(loaded->config);
}

/* The default cannot be in the table: it is made anew for every process. */
static void name_instance(const struct service *service)
{
    const char *given = getenv("CRAFTERSE_INSTANCE");
    if (given == NULL || given[0] == '\0') {
        char name[INSTANCE_SIZE];
        snprintf(name, sizeof(name), "%s-%06x", service->name, (unsigned)(id_random() & 0xFFFFFF));
        setenv("CRAFTERSE_INSTANCE", name, 1);
    }
}

static int load(struct loaded *loaded, struct error *err)
{
    name_instance(loaded->service);
    int result = config_load(loaded->tables, loaded->table_count, loaded->structs, err);
    if (result < 0) {
        return result;
    }
    loaded->is_loaded = true;
    char host[64];
    int port = 0;
    result = exporter_parse_listen(loaded->settings.metrics_listen, host, &port, err);
    if (result < 0) {
        error_wrap(err, "CRAFTERSE_METRICS_LISTEN");
        return result;
    }
    result = tracing_check(&loaded->tracing, err);
    if (result == 0 && !loaded->service->no_kafka) {
        result = kafka_config_check(&loaded->kafka, err);
    }
    if (result == 0 && loaded->service->check != NULL) {
        result = loaded->service->check(loaded->config, err);
    }
    return result;
}

/* ---- PORT_FILE ------------------------------------------------------------------------------- */

/* Reads the file's other lines into kept; a missing file is an empty one. */
static int read_other_ports(const char *path, const char *name, struct buf *kept, struct error *err)
{
    FILE *file = fopen(path, "re");
    if (file == NULL) {
        return errno == ENOENT ? 0
                               : ERROR(err, STATUS_IO, "cannot read %s: %s", path, strerror(errno));
    }
    char line[256];
    size_t length = strlen(name);
    int result = 0;
    while (result == 0 && fgets(line, sizeof(line), file) != NULL) {
        if (strncmp(line, name, length) != 0 || line[length] != '=') {
            result = buf_printf(kept, err, "%s", line);
        }
    }
    fclose(file);
    return result;
}

int service_publish_port(const struct service_context *context, const char *name, int port,
                         struct error *err)
{
    const char *path = context->settings->port_file;
    if (path[0] == '\0') {
        return 0;
    }
    struct buf text, temporary;
    buf_init(&text, PORT_FILE_BYTES_MAX);
    buf_init(&temporary, 4096);
    FILE *file = NULL;
    int result = read_other_ports(path, name, &text, err);
    if (result < 0 || (result = buf_printf(&text, err, "%s=%d\n", name, port)) < 0 ||
        (result = buf_printf(&temporary, err, "%s.%ld", path, (long)getpid())) < 0) {
        goto out;
    }
    file = fopen(temporary.data, "we");
    bool written = file != NULL && fwrite(text.data, 1, text.size, file) == text.size;
    written = (file == NULL || fclose(file) == 0) && written;
    if (!written || rename(temporary.data, path) != 0) {
        result = ERROR(err, STATUS_IO,
                       "cannot write CRAFTERSE_PORT_FILE %s: %s: its folder must exist and be "
                       "writable",
                       path, strerror(errno));
    }
out:
    buf_deinit(&text);
    buf_deinit(&temporary);
    return result;
}

/* ---- Running --------------------------------------------------------------------------------- */

static void register_build_info(const struct service *service)
{
    char labels[256];
    snprintf(labels, sizeof(labels), "service=\"%s\",version=\"%s\"", service->name,
             CRAFTERSE_VERSION);
    metric_set(metric_create(METRIC_GAUGE, "crafterse_build_info", labels,
                             "Always 1; says which build runs."),
               1);
}

static int run(struct loaded *loaded, struct error *err)
{
    const struct service *service = loaded->service;
    const struct service_settings *settings = &loaded->settings;
    struct service_context context = {.settings = settings,
                                      .kafka = service->no_kafka ? NULL : &loaded->kafka,
                                      .config = loaded->config};
    struct exporter *exporter = NULL;
    enum log_level level = LOG_INFO;
    log_level_parse(settings->log_level, &level);
    log_init(service->name, settings->instance, level);
    shutdown_init();
    health_set_beat_limit((uint64_t)settings->hang_limit_ms);
    watchdog_start(2 * (uint64_t)settings->hang_limit_ms);
    register_build_info(service);
    if (settings->port_file[0] != '\0') {
        unlink(settings->port_file); /* the ports of an earlier run are nobody's any more */
    }
    int result = exporter_start(&exporter, settings->metrics_listen, err);
    if (result == 0) {
        result = service_publish_port(&context, "metrics", exporter_port(exporter), err);
    }
    if (result == 0) {
        log_info("starting", "version=%s metrics_port=%d", LOG_QUOTED(CRAFTERSE_VERSION),
                 exporter_port(exporter));
        result = tracing_start(&loaded->tracing, service->name, settings->instance,
                               CRAFTERSE_VERSION, err);
    }
    if (result == 0) {
        result = service->run(&context, err);
    }
    tracing_stop();
    if (result < 0) {
        log_error("stopped by an error", "status=%s reason=%s", status_name(err->status),
                  LOG_QUOTED(err->text));
    } else {
        log_info("stopped", NULL);
    }
    exporter_stop(exporter);
    return result < 0 ? 1 : 0;
}

static int print_help(const struct loaded *loaded)
{
    const struct service *service = loaded->service;
    printf("Usage: %s [--help | --version | --check-config | --print-config | --config-table |\n"
           "       --config-table-shared | --probe healthz | --probe readyz]\n\n%s\n\n"
           "Settings are environment variables. SIGTERM or SIGINT drains and ends it.\n",
           service->name, service->summary);
    for (size_t i = 0; i < loaded->table_count; i++) {
        printf("\n");
        config_print_help(stdout, loaded->tables[i]);
    }
    return 0;
}

static int print_shared_tables(void)
{
    printf("### Kafka\n\n");
    config_print_markdown(stdout, kafka_config_options);
    printf("\n### Every service\n\n");
    config_print_markdown(stdout, service_options);
    printf(
        "\n### Traces\n\nOpenTelemetry's own variables ([OPERATIONS](OPERATIONS.md#traces)).\n\n");
    config_print_markdown(stdout, tracing_options);
    return 0;
}

/* What needs no settings; -1 when argument is none of those. */
static int answer_argument(const struct loaded *loaded, const char *argument)
{
    if (strcmp(argument, "--help") == 0 || strcmp(argument, "-h") == 0) {
        return print_help(loaded);
    }
    if (strcmp(argument, "--version") == 0) {
        printf("%s %s\n", loaded->service->name, CRAFTERSE_VERSION);
        return 0;
    }
    if (strcmp(argument, "--config-table") == 0) {
        if (loaded->service->options != NULL) {
            config_print_markdown(stdout, loaded->service->options);
        }
        return 0;
    }
    if (strcmp(argument, "--config-table-shared") == 0) {
        return print_shared_tables();
    }
    return -1;
}

/* What a health check runs: only the address is read, not the rest of the settings. */
static int probe(const struct service *service, const char *page)
{
    struct error err = {0};
    const char *listen = getenv("CRAFTERSE_METRICS_LISTEN");
    if (probe_ask(listen != NULL ? listen : "", page, &err) < 0) {
        fprintf(stderr, "%s: %s\n", service->name, err.text);
        return err.status == STATUS_INVALID ? 2 : 1;
    }
    return 0;
}

int service_main(const struct service *service, int argc, char **argv)
{
    struct loaded loaded;
    struct error err = {0};
    if (argc == 3 && strcmp(argv[1], "--probe") == 0) {
        return probe(service, argv[2]);
    }
    const char *argument = argc > 1 ? argv[1] : "";
    bool check_only = strcmp(argument, "--check-config") == 0;
    bool print_only = strcmp(argument, "--print-config") == 0;
    prepare(&loaded, service);
    int status = argc == 2 ? answer_argument(&loaded, argument) : -1;
    if (status >= 0) {
        goto out;
    }
    if (argc > 2 || (argc == 2 && !check_only && !print_only)) {
        fprintf(stderr, "%s: unknown argument \"%s\": see %s --help\n", service->name,
                argv[argc - 1], service->name);
        status = 2;
        goto out;
    }
    if (load(&loaded, &err) < 0) {
        fprintf(stderr, "%s: settings are not valid: %s\n", service->name, err.text);
        status = 1;
    } else if (check_only) {
        printf("%s: settings are valid\n", service->name);
        status = 0;
    } else if (print_only) {
        config_print(stdout, loaded.tables, loaded.table_count, loaded.structs);
        status = 0;
    } else {
        status = run(&loaded, &err);
    }
out:
    unload(&loaded);
    return status;
}
