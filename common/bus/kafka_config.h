/* Settings of the connection to Kafka, the same for every service.
 *
 * KAFKA_BROKERS (required), KAFKA_TOPIC_PREFIX ("crafterse."), KAFKA_SECURITY_PROTOCOL,
 * KAFKA_SASL_MECHANISM, KAFKA_SASL_USERNAME, KAFKA_SASL_PASSWORD (secret), KAFKA_SSL_CA_LOCATION,
 * KAFKA_SESSION_TIMEOUT, KAFKA_FETCH_WAIT, KAFKA_ASSIGNOR, KAFKA_EXTRA ("key=value;key=value": any
 * librdkafka property), EMBEDDED (bool: Kafka is devbroker; see docs/adr).
 */
#ifndef COMMON_BUS_KAFKA_CONFIG_H
#define COMMON_BUS_KAFKA_CONFIG_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/config.h"
#include "common/base/error.h"

struct kafka_config {
    const char *brokers;
    const char *topic_prefix;
    const char *security_protocol;
    const char *sasl_mechanism, *sasl_username, *sasl_password;
    const char *ssl_ca_location;
    int64_t session_timeout_ms; /* 0 = as suits the broker: kafka_config_session_timeout_ms */
    int64_t fetch_wait_ms;      /* 0 = as suits the broker: kafka_config_fetch_wait_ms */
    const char *assignor;
    const char *extra;
    bool embedded;
};

extern const struct config_option kafka_config_options[];

/* Checks across settings, and whether librdkafka accepts them all (KAFKA_EXTRA too). Connects to
 * nothing. */
int kafka_config_check(const struct kafka_config *kafka, struct error *err) MUST_CHECK;

/* The settings, or when they are 0 what suits the broker: 20 s and 100 ms for Kafka, 6 s and 2 ms
 * for devbroker, whose rebalance lasts a session timeout and which answers a fetch only when its
 * wait is over (docs/SPEED.md, "Kafka hops"). */
int kafka_config_session_timeout_ms(const struct kafka_config *kafka);
int kafka_config_fetch_wait_ms(const struct kafka_config *kafka);

#endif
