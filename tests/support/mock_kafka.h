/* Settings of a client of librdkafka's mock cluster (common/bus/embedded_broker), all but its
 * address and `extra`: struct kafka_config kafka = {MOCK_KAFKA, .extra = ""}; */
#ifndef TESTS_SUPPORT_MOCK_KAFKA_H
#define TESTS_SUPPORT_MOCK_KAFKA_H

#include "common/bus/kafka_config.h"

#define MOCK_KAFKA \
    .topic_prefix = "t.", .security_protocol = "plaintext", .sasl_mechanism = "PLAIN", \
    .sasl_username = "", .sasl_password = "", .ssl_ca_location = "", \
    .assignor = "cooperative-sticky", .embedded = true

#endif
