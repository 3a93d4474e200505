#include "common/bus/kafka_config.h"

#include <stddef.h>
#include <string.h>

#include "common/bus/kafka_client.h"

#define FIELD(name) offsetof(struct kafka_config, name)

const struct config_option kafka_config_options[] = {
    {.name = "KAFKA_BROKERS",
     .type = CONFIG_STRING,
     .offset = FIELD(brokers),
     .flags = CONFIG_REQUIRED,
     .help = "Where Kafka answers: host:port, several separated by commas."},
    {.name = "KAFKA_TOPIC_PREFIX",
     .type = CONFIG_STRING,
     .offset = FIELD(topic_prefix),
     .default_text = "crafterse.",
     .help = "What the names of all topics and consumer groups begin with."},
    {.name = "KAFKA_SECURITY_PROTOCOL",
     .type = CONFIG_CHOICE,
     .offset = FIELD(security_protocol),
     .default_text = "plaintext",
     .choices = "plaintext|ssl|sasl_plaintext|sasl_ssl",
     .help = "How the connection to Kafka is protected."},
    {.name = "KAFKA_SASL_MECHANISM",
     .type = CONFIG_CHOICE,
     .offset = FIELD(sasl_mechanism),
     .default_text = "PLAIN",
     .choices = "PLAIN|SCRAM-SHA-256|SCRAM-SHA-512",
     .help = "How the user name and password are proved, with a sasl_ security protocol."},
    {.name = "KAFKA_SASL_USERNAME",
     .type = CONFIG_STRING,
     .offset = FIELD(sasl_username),
     .help = "User name for Kafka, with a sasl_ security protocol."},
    {.name = "KAFKA_SASL_PASSWORD",
     .type = CONFIG_STRING,
     .offset = FIELD(sasl_password),
     .flags = CONFIG_SECRET,
     .help = "Password for Kafka, with a sasl_ security protocol."},
    {.name = "KAFKA_SSL_CA_LOCATION",
     .type = CONFIG_STRING,
     .offset = FIELD(ssl_ca_location),
     .help = "File with the certificates that Kafka's must be signed by; the system's when unset."},
    {.name = "KAFKA_SESSION_TIMEOUT",
     .type = CONFIG_DURATION,
     .offset = FIELD(session_timeout_ms),
     .default_text = "0ms",
     .max = 1800000,
     .help = "After how long without a heartbeat a dead group member's work goes to another; "
             "0 chooses 20s, or 6s with EMBEDDED."},
    {.name = "KAFKA_FETCH_WAIT",
     .type = CONFIG_DURATION,
     .offset = FIELD(fetch_wait_ms),
     .default_text = "0ms",
     .max = 30000,
     .help = "How long the broker may hold a fetch when nothing is there; 0 chooses 100ms, or 2ms "
             "with EMBEDDED."},
    {.name = "KAFKA_ASSIGNOR",
     .type = CONFIG_CHOICE,
     .offset = FIELD(assignor),
     .default_text = "cooperative-sticky",
     .choices = "cooperative-sticky|range|roundrobin",
     .help = "How partitions are shared among group members; the same in every member."},
    {.name = "KAFKA_EXTRA",
     .type = CONFIG_STRING,
     .offset = FIELD(extra),
     .help = "More librdkafka properties, applied last: key=value;key=value."},
    {.name = "EMBEDDED",
     .type = CONFIG_BOOL,
     .offset = FIELD(embedded),
     .default_text = "false",
     .help = "Kafka is devbroker: one machine, nothing kept, small pictures only."},
    {.name = NULL},
};

int kafka_config_session_timeout_ms(const struct kafka_config *kafka)
{
    if (kafka->session_timeout_ms > 0) {
        return (int)kafka->session_timeout_ms;
    }
    return kafka->embedded ? 6000 : 20000;
}

int kafka_config_fetch_wait_ms(const struct kafka_config *kafka)
{
    if (kafka->fetch_wait_ms > 0) {
        return (int)kafka->fetch_wait_ms;
    }
    return kafka->embedded ? 2 : 100;
}

/* Kafka's own rule for topic names, so that the prefix fails here and not at the first topic. */
static bool is_topic_text(const char *text)
{
    return strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") ==
           strlen(text);
}

int kafka_config_check(const struct kafka_config *kafka, struct error *err)
{
    if (strncmp(kafka->security_protocol, "sasl_", 5) == 0 &&
        (kafka->sasl_username[0] == '\0' || kafka->sasl_password[0] == '\0')) {
        return ERROR(err, STATUS_INVALID,
                     "CRAFTERSE_KAFKA_SECURITY_PROTOCOL is %s: it needs "
                     "CRAFTERSE_KAFKA_SASL_USERNAME and CRAFTERSE_KAFKA_SASL_PASSWORD",
                     kafka->security_protocol);
    }
    if (!is_topic_text(kafka->topic_prefix) || strlen(kafka->topic_prefix) > 64) {
        return ERROR(err, STATUS_INVALID,
                     "CRAFTERSE_KAFKA_TOPIC_PREFIX is \"%s\": at most 64 letters, digits, dots, "
                     "underscores and dashes",
                     kafka->topic_prefix);
    }
    return kafka_client_check(kafka, err);
}
