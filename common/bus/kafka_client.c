#include "common/bus/kafka_client.h"

#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/fault.h"
#include "common/base/log.h"
#include "common/base/panic.h"

#define EXTRA_TEXT_MAX 512
#define CLOSE_LOOK_MS 5

/* librdkafka's levels are those of syslog.h, whose names clash with log.h's. */
enum { SYSLOG_ERROR = 3, SYSLOG_WARNING = 4, SYSLOG_INFO = 6 };

static void on_log(const rd_kafka_t *rk, int level, const char *facility, const char *text)
{
    (void)rk;
    /* An old broker (devbroker) cannot be told not to create topics: said at every look-up. */
    if (strcmp(facility, "AUTOCREATE") == 0) {
        return;
    }
    enum log_level ours = level <= SYSLOG_ERROR     ? LOG_ERROR
                          : level == SYSLOG_WARNING ? LOG_WARN
                          : level <= SYSLOG_INFO    ? LOG_INFO
                                                    : LOG_DEBUG;
    log_write(ours, "librdkafka", "facility=%s text=%s", facility, LOG_QUOTED(text));
}

void kafka_client_on_error(rd_kafka_t *rk, int code, const char *reason, void *opaque)
{
    (void)rk, (void)opaque;
    log_warn("Kafka connection", "code=%s reason=%s", rd_kafka_err2name((rd_kafka_resp_err_t)code),
             LOG_QUOTED(reason));
}

static int set(rd_kafka_conf_t *conf, const char *name, const char *value, struct error *err)
{
    char text[512];
    if (rd_kafka_conf_set(conf, name, value, text, sizeof(text)) != RD_KAFKA_CONF_OK) {
        return ERROR(err, STATUS_INVALID, "librdkafka refuses %s: %s", name, text);
    }
    return 0;
}

static int set_all(rd_kafka_conf_t *conf, const struct kafka_client_property *properties,
                   struct error *err)
{
    for (; properties->name != NULL; properties++) {
        int result = set(conf, properties->name, properties->value, err);
        if (result < 0) {
            return result;
        }
    }
    return 0;
}

static int set_connection(rd_kafka_conf_t *conf, const struct kafka_config *kafka,
                          struct error *err)
{
    const struct kafka_client_property properties[] = {
        {"client.id", "crafterse"},
        {"security.protocol", kafka->security_protocol},
        /* A hop of the pipeline is one small record: waiting to fill a segment costs 40 ms. */
        {"socket.nagle.disable", "true"},
        {"socket.keepalive.enable", "true"},
        {"reconnect.backoff.ms", "50"},
        {"reconnect.backoff.max.ms", "2000"},
        /* Idle connections are closed by brokers all the time; reconnects log their own failures.
         */
        {"log.connection.close", "false"},
        {NULL, NULL},
    };
    int result = set_all(conf, properties, err);
    if (result == 0 && kafka->brokers[0] != '\0') {
        result = set(conf, "bootstrap.servers", kafka->brokers, err);
    }
    if (result == 0 && strncmp(kafka->security_protocol, "sasl_", 5) == 0) {
        const struct kafka_client_property sasl[] = {
            {"sasl.mechanism", kafka->sasl_mechanism},
            {"sasl.username", kafka->sasl_username},
            {"sasl.password", kafka->sasl_password},
            {NULL, NULL},
        };
        result = set_all(conf, sasl, err);
    }
    if (result == 0 && kafka->ssl_ca_location[0] != '\0') {
        result = set(conf, "ssl.ca.location", kafka->ssl_ca_location, err);
    }
    return result;
}

/* "key=value;key=value" */
static int set_extra(rd_kafka_conf_t *conf, const char *extra, struct error *err)
{
    while (*extra != '\0') {
        size_t length = strcspn(extra, ";");
        char pair[EXTRA_TEXT_MAX];
        if (length >= sizeof(pair)) {
            return ERROR(err, STATUS_INVALID, "a property is longer than %d bytes",
                         EXTRA_TEXT_MAX - 1);
        }
        memcpy(pair, extra, length);
        pair[length] = '\0';
        extra += length + (extra[length] == ';');
        char *equals = strchr(pair, '=');
        if (equals == NULL || equals == pair) {
            return ERROR(err, STATUS_INVALID, "\"%s\" is not key=value", pair);
        }
        *equals = '\0';
        int result = set(conf, pair, equals + 1, err);
        if (result < 0) {
            return result;
        }
    }
    return 0;
}

rd_kafka_conf_t *kafka_client_conf(const struct kafka_config *kafka,
                                   const struct kafka_client_property *properties,
                                   struct error *err)
{
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    rd_kafka_conf_set_log_cb(conf, on_log);
    rd_kafka_conf_set_error_cb(conf, kafka_client_on_error);
    if (set_connection(conf, kafka, err) < 0 || set_all(conf, properties, err) < 0) {
        rd_kafka_conf_destroy(conf);
        return NULL;
    }
    return conf;
}

rd_kafka_t *kafka_client_open(rd_kafka_type_t type, rd_kafka_conf_t *conf,
                              const struct kafka_config *kafka, struct error *err)
{
    char text[512];
    if (set_extra(conf, kafka->extra, err) < 0) {
        error_wrap(err, "CRAFTERSE_KAFKA_EXTRA");
        rd_kafka_conf_destroy(conf);
        return NULL;
    }
    rd_kafka_t *rk = rd_kafka_new(type, conf, text, sizeof(text));
    if (rk == NULL) {
        ERROR(err, STATUS_INVALID, "librdkafka does not start: %s", text);
        rd_kafka_conf_destroy(conf);
    }
    return rk;
}

int kafka_client_check(const struct kafka_config *kafka, struct error *err)
{
    const struct kafka_client_property none[] = {{NULL, NULL}};
    rd_kafka_conf_t *conf = kafka_client_conf(kafka, none, err);
    if (conf == NULL) {
        return err->status;
    }
    int result = set_extra(conf, kafka->extra, err);
    if (result < 0) {
        error_wrap(err, "CRAFTERSE_KAFKA_EXTRA");
    }
    rd_kafka_conf_destroy(conf);
    return result;
}

void kafka_client_signal(rd_kafka_queue_t *queue, int fd)
{
    static const uint64_t one = 1;
    rd_kafka_queue_io_event_enable(queue, fd, fd >= 0 ? &one : NULL, fd >= 0 ? sizeof(one) : 0);
}

static enum status status_of(rd_kafka_resp_err_t code)
{
    switch ((int)code) {
    case RD_KAFKA_RESP_ERR__TIMED_OUT:
    case RD_KAFKA_RESP_ERR__MSG_TIMED_OUT:
    case RD_KAFKA_RESP_ERR__TIMED_OUT_QUEUE:
    case RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT:
        return STATUS_TIMEOUT;
    case RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE:
    case RD_KAFKA_RESP_ERR_RECORD_LIST_TOO_LARGE:
        return STATUS_TOO_LARGE;
    case RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC:
    case RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION:
    case RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART:
        return STATUS_NOT_FOUND;
    case RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED:
    case RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED:
    case RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED:
    case RD_KAFKA_RESP_ERR_SASL_AUTHENTICATION_FAILED:
    case RD_KAFKA_RESP_ERR__AUTHENTICATION:
        return STATUS_DENIED;
    case RD_KAFKA_RESP_ERR_ILLEGAL_GENERATION:
    case RD_KAFKA_RESP_ERR_UNKNOWN_MEMBER_ID:
    case RD_KAFKA_RESP_ERR_FENCED_INSTANCE_ID:
    case RD_KAFKA_RESP_ERR__ASSIGNMENT_LOST:
        return STATUS_CANCELLED;
    case RD_KAFKA_RESP_ERR_TOPIC_ALREADY_EXISTS:
        return STATUS_EXISTS;
    case RD_KAFKA_RESP_ERR__FATAL:
        return STATUS_INTERNAL;
    case RD_KAFKA_RESP_ERR__INVALID_ARG:
    case RD_KAFKA_RESP_ERR_INVALID_CONFIG:
    case RD_KAFKA_RESP_ERR_INVALID_PARTITIONS:
    case RD_KAFKA_RESP_ERR_INVALID_REPLICATION_FACTOR:
    case RD_KAFKA_RESP_ERR_POLICY_VIOLATION:
        return STATUS_INVALID;
    default:
        return STATUS_UNAVAILABLE;
    }
}

int kafka_client_error(struct error *err, rd_kafka_resp_err_t code, const char *format, ...)
{
    char context[256];
    va_list args;
    va_start(args, format);
    vsnprintf(context, sizeof(context), format, args);
    va_end(args);
    enum status status = status_of(code);
    /* A missing topic is about to be created when a whole deployment starts at once. */
    bool is_missing_topic =
        code == RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC || code == RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART;
    bool retriable = is_missing_topic || status == STATUS_UNAVAILABLE || status == STATUS_TIMEOUT;
    return error_set(err, status, retriable, __FILE__, __LINE__, "%s: %s (%s)", context,
                     rd_kafka_err2str(code), rd_kafka_err2name(code));
}

int kafka_client_partition_count(rd_kafka_t *rk, rd_kafka_topic_t *topic, int timeout_ms,
                                 struct error *err)
{
    const rd_kafka_metadata_t *metadata = NULL;
    rd_kafka_resp_err_t code = rd_kafka_metadata(rk, 0, topic, &metadata, timeout_ms);
    int count = 0;
    if (metadata != NULL) {
        code = metadata->topic_cnt == 1 ? metadata->topics[0].err
                                        : RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART;
        count = code == RD_KAFKA_RESP_ERR_NO_ERROR ? metadata->topics[0].partition_cnt : 0;
        rd_kafka_metadata_destroy(metadata);
    }
    if (count > 0) {
        return count;
    }
    kafka_client_error(
        err, code != RD_KAFKA_RESP_ERR_NO_ERROR ? code : RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE,
        "cannot read topic %s", rd_kafka_topic_name(topic));
    err->status = STATUS_UNAVAILABLE;
    err->retriable = true;
    return STATUS_UNAVAILABLE;
}

bool kafka_client_is_fatal(rd_kafka_t *rk, struct error *err)
{
    char text[512];
    if (fault_is_fatal()) {
        rd_kafka_test_fatal_error(rk, RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER, "on purpose");
    }
    rd_kafka_resp_err_t code = rd_kafka_fatal_error(rk, text, sizeof(text));
    if (code == RD_KAFKA_RESP_ERR_NO_ERROR) {
        return false;
    }
    ERROR_FINAL(err, STATUS_INTERNAL, "Kafka client failed for good: %s (%s)", text,
                rd_kafka_err2name(code));
    return true;
}

struct closing {
    rd_kafka_t *rk;
    int flags;
};

static void *close_thread(void *user)
{
    struct closing *closing = user;
    rd_kafka_destroy_flags(closing->rk, closing->flags);
    xfree(closing);
    return NULL;
}

bool kafka_client_close(rd_kafka_t *rk, int flags, int timeout_ms)
{
    struct closing *closing = xmalloc(sizeof(*closing));
    *closing = (struct closing){.rk = rk, .flags = flags};
    pthread_t thread;
    if (pthread_create(&thread, NULL, close_thread, closing) != 0) {
        close_thread(closing);
        return true;
    }
    /* Not pthread_timedjoin_np, which goes by the wall clock, nor pthread_clockjoin_np, which the
     * thread sanitizer does not know. */
    uint64_t deadline_ms = clock_monotonic_ms() + (uint64_t)timeout_ms;
    while (pthread_tryjoin_np(thread, NULL) != 0) {
        if (clock_monotonic_ms() >= deadline_ms) {
            pthread_detach(thread);
            log_warn("Kafka handle did not close in time", "timeout_ms=%d", timeout_ms);
            return false;
        }
        clock_sleep_ms(CLOSE_LOOK_MS);
    }
    return true;
}
