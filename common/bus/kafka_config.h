/* Settings of the connection to Kafka, the same for every service.
 *
 * KAFKA_BROKERS (required), KAFKA_TOPIC_PREFIX ("crafterse."), KAFKA_SECURITY_PROTOCOL,
 * KAFKA_SASL_MECHANISM, KAFKA_SASL_USERNAME, KAFKA_SASL_PASSWORD (secret), KAFKA_SSL_CA_LOCATION,
 * KAFKA_SESSION_TIMEOUT (default 20 s), KAFKA_FETCH_WAIT (default 100 ms; devbroker has no long
 * poll and wants 5 ms), KAFKA_ASSIGNOR, KAFKA_EXTRA ("key=value;key=value": any librdkafka property),
 * EMBEDDED (bool: Kafka is devbroker; see docs/adr).
 */
#ifndef COMMON_BUS_KAFKA_CONFIG_H
#define COMMON_BUS_KAFKA_CONFIG_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/config.h"

struct kafka_config {
    const char *brokers;
    const char *topic_prefix;
    const char *security_protocol;
    const char *sasl_mechanism, *sasl_username, *sasl_password;
    const char *ssl_ca_location;
    int64_t session_timeout_ms;
    int64_t fetch_wait_ms;
    const char *assignor;
    const char *extra;
    bool embedded;
};

extern const struct config_option kafka_config_options[];

#endif
