#include "common/service/probe.h"

#include <stdio.h>
#include <string.h>

#include "common/obs/exporter.h"
#include "common/obs/health.h"
#include "tests/harness/test.h"

static struct exporter *start(char listen[32])
{
    struct exporter *exporter = NULL;
    struct error err;
    CHECK(exporter_start(&exporter, "127.0.0.1:0", &err) == 0);
    snprintf(listen, 32, "127.0.0.1:%d", exporter_port(exporter));
    return exporter;
}

TEST(a_probe_says_what_the_service_says)
{
    char listen[32];
    struct error err;
    struct exporter *exporter = start(listen);
    CHECK(probe_ask(listen, "healthz", &err) == 0);

    health_set_ready("kafka", false, "no broker answers");
    CHECK(probe_ask(listen, "readyz", &err) == STATUS_UNAVAILABLE);
    CHECK(strstr(err.text, "kafka: no broker answers") != NULL);
    health_set_ready("kafka", true, "");
    CHECK(probe_ask(listen, "readyz", &err) == 0);
    exporter_stop(exporter);
}

TEST(all_addresses_are_asked_over_loopback)
{
    char listen[32];
    struct error err;
    struct exporter *exporter = start(listen);
    CHECK(probe_ask(strchr(listen, ':'), "healthz", &err) == 0);
    exporter_stop(exporter);
}

TEST(nobody_there_is_an_answer_within_the_time_of_a_health_check)
{
    char listen[32];
    struct error err;
    exporter_stop(start(listen)); /* a port that was just free */
    CHECK(probe_ask(listen, "healthz", &err) == STATUS_UNAVAILABLE);
}

TEST(what_cannot_be_asked_is_refused)
{
    struct error err;
    CHECK(probe_ask("127.0.0.1:0", "healthz", &err) == STATUS_INVALID);
    CHECK(probe_ask("", "healthz", &err) == STATUS_INVALID);
    CHECK(probe_ask("127.0.0.1:9100", "metrics", &err) == STATUS_INVALID);
}

TEST_MAIN()
