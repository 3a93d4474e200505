#include "common/bus/embedded_broker.h"

#include <stdlib.h>
#include <string.h>

#include <librdkafka/rdkafka.h>
#include <librdkafka/rdkafka_mock.h>

#include "common/base/panic.h"
#include "common/bus/kafka_client.h"

struct embedded_broker {
    rd_kafka_t *rk;
    rd_kafka_mock_cluster_t *cluster;
};

int embedded_broker_start(struct embedded_broker **out, struct error *err)
{
    /* The host handle talks to nobody. */
    const struct kafka_config nowhere = {
        .brokers = "", .security_protocol = "plaintext", .ssl_ca_location = "", .extra = ""};
    const struct kafka_client_property properties[] = {
        /* The largest request that the mock cluster takes. */
        {"receive.message.max.bytes", "33554432"},
        {"log_level", "4"}, /* warnings: it would tell that it has no broker to connect to */
        {NULL, NULL},
    };
    *out = NULL;
    rd_kafka_conf_t *conf = kafka_client_conf(&nowhere, properties, err);
    rd_kafka_t *rk =
        conf != NULL ? kafka_client_open(RD_KAFKA_PRODUCER, conf, &nowhere, err) : NULL;
    if (rk == NULL) {
        return err->status;
    }
    rd_kafka_mock_cluster_t *cluster = rd_kafka_mock_cluster_new(rk, 1);
    if (cluster == NULL) {
        kafka_client_close(rk, 0, 5000);
        return ERROR(err, STATUS_INTERNAL, "librdkafka's mock cluster does not start");
    }
    struct embedded_broker *b = xcalloc(1, sizeof(*b));
    *b = (struct embedded_broker){.rk = rk, .cluster = cluster};
    *out = b;
    return 0;
}

void embedded_broker_stop(struct embedded_broker *b)
{
    if (b == NULL) {
        return;
    }
    rd_kafka_mock_cluster_destroy(b->cluster);
    kafka_client_close(b->rk, 0, 5000);
    xfree(b);
}

int embedded_broker_add_topic(struct embedded_broker *b, const char *name, int partitions,
                              struct error *err)
{
    rd_kafka_resp_err_t code = rd_kafka_mock_topic_create(b->cluster, name, partitions, 1);
    if (code != RD_KAFKA_RESP_ERR_NO_ERROR) {
        return kafka_client_error(err, code, "cannot create topic %s", name);
    }
    return 0;
}

const char *embedded_broker_address(const struct embedded_broker *b)
{
    return rd_kafka_mock_cluster_bootstraps(b->cluster);
}

int embedded_broker_port(const struct embedded_broker *b)
{
    const char *colon = strrchr(embedded_broker_address(b), ':');
    return colon != NULL ? (int)strtol(colon + 1, NULL, 10) : 0;
}
