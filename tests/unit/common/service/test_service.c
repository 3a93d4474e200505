/* service_main end to end, each in a child process with its output captured. */
#include "common/service/service.h"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/shutdown.h"
#include "common/obs/health.h"
#include "tests/harness/test.h"

struct sample_config {
    const char *store;
    const char *bucket;
};

static const struct config_option sample_options[] = {
    {.name = "SAMPLE_STORE",
     .type = CONFIG_CHOICE,
     .offset = offsetof(struct sample_config, store),
     .default_text = "folder",
     .choices = "folder|s3",
     .help = "Where objects go."},
    {.name = "SAMPLE_BUCKET",
     .type = CONFIG_STRING,
     .offset = offsetof(struct sample_config, bucket),
     .help = "The bucket."},
    {.name = NULL},
};

static int check(const void *config, struct error *err)
{
    const struct sample_config *sample = config;
    if (strcmp(sample->store, "s3") == 0 && sample->bucket[0] == '\0') {
        return ERROR(err, STATUS_INVALID,
                     "CRAFTERSE_SAMPLE_STORE=s3 needs CRAFTERSE_SAMPLE_BUCKET");
    }
    return 0;
}

static int run(const struct service_context *context, struct error *err)
{
    int result = service_publish_port(context, "http", 8080, err);
    result = result < 0 ? result : service_publish_port(context, "http", 8081, err);
    while (result == 0 && !shutdown_requested()) {
        clock_sleep_ms(5);
    }
    return result;
}

static int run_and_fail(const struct service_context *context, struct error *err)
{
    return ERROR(err, STATUS_UNAVAILABLE, "no broker answers at %s", context->kafka->brokers);
}

static const struct service sample = {.name = "sample",
                                      .summary = "Tests the skeleton.",
                                      .options = sample_options,
                                      .config_size = sizeof(struct sample_config),
                                      .check = check,
                                      .run = run};

static char output[65536];

struct child {
    pid_t pid;
    FILE *file;
};

static struct child start(const struct service *service, const char *argument)
{
    struct child child = {.file = tmpfile()};
    fflush(stdout);
    child.pid = fork();
    if (child.pid == 0) {
        dup2(fileno(child.file), STDOUT_FILENO);
        dup2(fileno(child.file), STDERR_FILENO);
        char name[] = "sample";
        char *argv[] = {name, argument != NULL ? strdup(argument) : NULL, NULL};
        int status = service_main(service, argument != NULL ? 2 : 1, argv);
        fflush(stdout);
        _exit(status);
    }
    return child;
}

/* Returns the exit status; the output is in `output`. */
static int finish(struct child child)
{
    int status = 0;
    waitpid(child.pid, &status, 0);
    rewind(child.file);
    output[fread(output, 1, sizeof(output) - 1, child.file)] = '\0';
    fclose(child.file);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void reset_environment(void)
{
    static const char *const names[] = {"SAMPLE_STORE", "PORT_FILE",   "METRICS_LISTEN",
                                        "INSTANCE",     "KAFKA_EXTRA", "KAFKA_SECURITY_PROTOCOL"};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        char variable[64];
        snprintf(variable, sizeof(variable), "CRAFTERSE_%s", names[i]);
        unsetenv(variable);
    }
    setenv("CRAFTERSE_KAFKA_BROKERS", "127.0.0.1:1", 1);
}

TEST(help_version_and_tables_need_no_settings)
{
    unsetenv("CRAFTERSE_KAFKA_BROKERS");
    CHECK_INT(finish(start(&sample, "--help")), 0);
    CHECK_CONTAINS(output, "Tests the skeleton.");
    CHECK_CONTAINS(output, "CRAFTERSE_SAMPLE_STORE");
    CHECK_CONTAINS(output, "CRAFTERSE_KAFKA_BROKERS");
    CHECK_CONTAINS(output, "CRAFTERSE_PORT_FILE");
    CHECK_INT(finish(start(&sample, "--version")), 0);
    CHECK(strncmp(output, "sample ", 7) == 0);
    CHECK_INT(finish(start(&sample, "--config-table")), 0);
    CHECK_CONTAINS(output, "| `CRAFTERSE_SAMPLE_STORE` |");
    CHECK(strstr(output, "KAFKA_BROKERS") == NULL);
    CHECK_INT(finish(start(&sample, "--config-table-shared")), 0);
    CHECK_CONTAINS(output, "| `CRAFTERSE_KAFKA_BROKERS` |");
    CHECK_INT(finish(start(&sample, "--nonsense")), 2);
    CHECK_CONTAINS(output, "unknown argument \"--nonsense\"");
}

TEST(check_config_says_what_is_wrong)
{
    reset_environment();
    CHECK_INT(finish(start(&sample, "--check-config")), 0);
    CHECK_STR(output, "sample: settings are valid\n");
    setenv("CRAFTERSE_SAMPLE_STORE", "s3", 1);
    CHECK_INT(finish(start(&sample, "--check-config")), 1);
    CHECK_CONTAINS(output, "CRAFTERSE_SAMPLE_STORE=s3 needs CRAFTERSE_SAMPLE_BUCKET");
    unsetenv("CRAFTERSE_SAMPLE_STORE");
    setenv("CRAFTERSE_METRICS_LISTEN", "nowhere", 1);
    CHECK_INT(finish(start(&sample, "--check-config")), 1);
    CHECK_CONTAINS(output, "CRAFTERSE_METRICS_LISTEN: \"nowhere\"");
    unsetenv("CRAFTERSE_METRICS_LISTEN");
    setenv("CRAFTERSE_KAFKA_EXTRA", "linger.ms=5;no.such.property=1", 1);
    CHECK_INT(finish(start(&sample, "--check-config")), 1);
    CHECK_CONTAINS(output, "CRAFTERSE_KAFKA_EXTRA: librdkafka refuses no.such.property");
    unsetenv("CRAFTERSE_KAFKA_EXTRA");
    setenv("CRAFTERSE_KAFKA_SECURITY_PROTOCOL", "sasl_ssl", 1);
    CHECK_INT(finish(start(&sample, "--check-config")), 1);
    CHECK_CONTAINS(output, "needs CRAFTERSE_KAFKA_SASL_USERNAME");
}

TEST(an_instance_name_is_made_when_none_is_given)
{
    reset_environment();
    CHECK_INT(finish(start(&sample, "--print-config")), 0);
    CHECK_CONTAINS(output, "CRAFTERSE_INSTANCE=sample-");
    CHECK_CONTAINS(output, "CRAFTERSE_KAFKA_TOPIC_PREFIX=crafterse. (default)");
}

TEST(ports_are_published_and_sigterm_ends_the_run_cleanly)
{
    reset_environment();
    char path[] = "/tmp/test_service.XXXXXX", text[4096] = "";
    int fd = mkstemp(path);
    CHECK(write(fd, "http=1\nstale=2\n", 15) == 15);
    close(fd);
    setenv("CRAFTERSE_PORT_FILE", path, 1);
    struct child child = start(&sample, NULL);
    for (int i = 0; i < 400 && strstr(text, "http=8081\n") == NULL; i++) {
        clock_sleep_ms(10);
        FILE *file = fopen(path, "r");
        if (file != NULL) {
            text[fread(text, 1, sizeof(text) - 1, file)] = '\0';
            fclose(file);
        }
    }
    CHECK_CONTAINS(text, "metrics=");
    CHECK_CONTAINS(text, "http=8081\n");
    CHECK(strstr(text, "stale") == NULL);
    CHECK(strstr(text, "http=8080") == NULL);
    kill(child.pid, SIGTERM);
    CHECK_INT(finish(child), 0);
    CHECK_CONTAINS(output, "msg=starting");
    CHECK_CONTAINS(output, "msg=stopped");
    unlink(path);
}

TEST(a_failed_run_exits_with_1_and_its_reason)
{
    reset_environment();
    struct service failing = sample;
    failing.run = run_and_fail;
    CHECK_INT(finish(start(&failing, NULL)), 1);
    CHECK_CONTAINS(output, "reason=\"no broker answers at 127.0.0.1:1\"");
}

/* Beats until it is asked to stop, then hangs. */
static int run_and_hang(const struct service_context *context, struct error *err)
{
    int result = service_publish_port(context, "http", 8081, err);
    while (result == 0 && !shutdown_requested()) {
        health_beat();
        clock_sleep_ms(5);
    }
    clock_sleep_ms(10000);
    return result;
}

TEST(a_service_whose_loop_hangs_ends_itself)
{
    reset_environment();
    setenv("CRAFTERSE_HANG_LIMIT", "150ms", 1);
    struct service hanging = sample;
    hanging.run = run_and_hang;
    struct child child = start(&hanging, NULL);
    int status;
    clock_sleep_ms(500);
    /* Stopped for longer than the limit: it does not hang, it was not there. */
    kill(child.pid, SIGSTOP);
    clock_sleep_ms(600);
    kill(child.pid, SIGCONT);
    clock_sleep_ms(400);
    CHECK_INT(waitpid(child.pid, &status, WNOHANG), 0);
    kill(child.pid, SIGTERM);
    CHECK_INT(finish(child), 1);
    CHECK_CONTAINS(output, "the main loop stands still");
    unsetenv("CRAFTERSE_HANG_LIMIT");
}

TEST(a_service_without_kafka_asks_for_no_brokers)
{
    reset_environment();
    unsetenv("CRAFTERSE_KAFKA_BROKERS");
    struct service lonely = sample;
    lonely.no_kafka = true;
    CHECK_INT(finish(start(&lonely, "--check-config")), 0);
    CHECK_INT(finish(start(&sample, "--check-config")), 1);
    CHECK_CONTAINS(output, "CRAFTERSE_KAFKA_BROKERS is required");
}

TEST_MAIN()
