#include "common/bus/embedded_broker.h"

#include <arpa/inet.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <librdkafka/rdkafka.h>
#include <librdkafka/rdkafka_mock.h>

#include "common/base/panic.h"
#include "common/bus/kafka_client.h"

struct embedded_broker {
    rd_kafka_t *rk;
    rd_kafka_mock_cluster_t *cluster;
};

/* The mock cluster's thread often sleeps through an order of its host and sees it only at its next
 * timer, up to a second later. A connection always wakes it: so somebody knocks while an order is
 * under way. (Start with eleven topics: 30 ms instead of up to 4 s.) */
struct knocker {
    struct sockaddr_in address;
    pthread_t thread;
    bool is_running;
    atomic_bool is_done;
};

static void *knock(void *user)
{
    struct knocker *knocker = user;
    const struct timespec pause = {.tv_nsec = 2000000};
    while (!atomic_load(&knocker->is_done)) {
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (fd >= 0) {
            (void)connect(fd, (const struct sockaddr *)&knocker->address, sizeof(knocker->address));
            close(fd);
        }
        nanosleep(&pause, NULL);
    }
    return NULL;
}

static void knocker_start(struct knocker *knocker, int port)
{
    *knocker = (struct knocker){
        .address = {.sin_family = AF_INET,
                    .sin_port = htons((uint16_t)port),
                    .sin_addr = {.s_addr = htonl(INADDR_LOOPBACK)}},
    };
    knocker->is_running = pthread_create(&knocker->thread, NULL, knock, knocker) == 0;
}

static void knocker_stop(struct knocker *knocker)
{
    atomic_store(&knocker->is_done, true);
    if (knocker->is_running) {
        pthread_join(knocker->thread, NULL);
    }
}

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
    struct knocker knocker;
    knocker_start(&knocker, embedded_broker_port(b));
    rd_kafka_resp_err_t code = rd_kafka_mock_topic_create(b->cluster, name, partitions, 1);
    knocker_stop(&knocker);
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
