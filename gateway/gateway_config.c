/* Settings of the gateway: see gateway_config.h. */
#include "gateway/gateway_config.h"

#include <arpa/inet.h>
#include <stddef.h>
#include <string.h>

#include "common/obs/exporter.h"
#include "gateway/auth.h"

#define AT(field) offsetof(struct gateway_config, field)

/* clang-format off */
const struct config_option gateway_config_options[] = {
    {"HTTP_LISTEN", CONFIG_STRING, AT(http_listen), "127.0.0.1:8080", 0, 0, NULL, 0,
     "Address and port of the HTTP API; port 0 takes a free one (see PORT_FILE)."},
    {"PUBLIC_URL", CONFIG_STRING, AT(public_url), "", 0, 0, NULL, 0,
     "Base of the links in answers, as clients reach this service; empty: http://<HTTP_LISTEN>."},
    {"CDN_BASE_URL", CONFIG_STRING, AT(cdn_base_url), "", 0, 0, NULL, 0,
     "Base of picture URLs; empty: <PUBLIC_URL>/objects."},
    {"SECOND_CDN_BASE_URL", CONFIG_STRING, AT(second_cdn_base_url), "", 0, 0, NULL, 0,
     "Base of the URLs of pictures that only the uploader's second store has; empty: as all."},
    {"OBJECTS_FOLDER", CONFIG_STRING, AT(objects_folder), "", 0, 0, NULL, 0,
     "The uploader's folder store; when set, GET /objects/<key> serves it, so URLs work on "
     "one machine."},
    {"AUTH", CONFIG_CHOICE, AT(auth), "keys", 0, 0, "keys|off", 0,
     "keys: every request needs an API key. off: only with EMBEDDED and a loopback HTTP_LISTEN."},
    {"API_KEYS_FILE", CONFIG_STRING, AT(api_keys_file), "", 0, 0, NULL, 0,
     "File of key hashes, read again when it changes; gateway --make-key NAME makes a line."},
    {"RATE_PER_MINUTE", CONFIG_INT, AT(rate_per_minute), "600", 0, 6000000, NULL, 0,
     "Submissions a minute and key (in this process), unless the key's line says otherwise; 0 "
     "= no limit."},
    {"RATE_BURST", CONFIG_INT, AT(rate_burst), "100", 1, 1000000, NULL, 0,
     "Submissions that a key may make at once."},
    {"REDIS_URL", CONFIG_STRING, AT(redis_url), "", 0, 0, NULL, CONFIG_SECRET,
     "redis://[:password@]host[:port][/database] with the uploader's cache entries; empty: "
     "only what this process saw."},
    {"REDIS_TIMEOUT", CONFIG_DURATION, AT(redis_timeout_ms), "200ms", 1, 10000, NULL, 0,
     "How long a look into Redis may take, its time in line included, before the job is drawn "
     "instead."},
    {"MODEL_DEFAULT", CONFIG_STRING, AT(model_default), "", 0, 0, NULL, 0,
     "Model of requests that name none; empty: the first by name that a worker serves."},
    {"HTTP_BODY_MAX", CONFIG_BYTES, AT(body_bytes_max), "64KiB", 1024, 16 * 1024 * 1024, NULL, 0,
     "Largest request body."},
    {"HTTP_INPUT_MAX", CONFIG_BYTES, AT(input_bytes_max), "8MiB", 1024, 15 * 1024 * 1024, NULL, 0,
     "Largest picture that POST /v1/inputs takes."},
    {"HTTP_BODIES_MAX", CONFIG_BYTES, AT(bodies_bytes_max), "128MiB", 65536, 1LL << 40, NULL, 0,
     "Request bodies held in memory at once, past which further ones are answered 503; a quarter "
     "is for small ones (orders)."},
    {"HTTP_HEADER_MAX", CONFIG_BYTES, AT(header_bytes_max), "16KiB", 1024, 1024 * 1024, NULL, 0,
     "Largest request line and headers together."},
    {"HTTP_CONNECTIONS_MAX", CONFIG_INT, AT(connections_max), "16384", 1, 1000000, NULL, 0,
     "Connections at once, each of HTTP_HEADER_MAX and 16 KiB of memory; more wait in the "
     "backlog."},
    {"HTTP_CONNECTIONS_PER_ADDRESS_MAX", CONFIG_INT, AT(connections_per_address_max), "0", 0,
     1000000, NULL, 0,
     "Connections at once from one address; 0 = no limit (behind a proxy all come from one)."},
    {"HTTP_IDLE_TIMEOUT", CONFIG_DURATION, AT(idle_timeout_ms), "30s", 1000, 3600000, NULL, 0,
     "A connection without a byte either way is closed after this."},
    {"HTTP_REQUEST_TIMEOUT", CONFIG_DURATION, AT(request_timeout_ms), "60s", 1000, 3600000, NULL, 0,
     "A request must be there in full this long after its connection's start or last answer, "
     "however steadily it trickles."},
    {"ACCEPT_TIMEOUT", CONFIG_DURATION, AT(accept_timeout_ms), "10s", 100, 300000, NULL, 0,
     "How long a submission waits for Kafka's acknowledgement before it is answered 503."},
    {"WAIT_MAX", CONFIG_DURATION, AT(wait_max_ms), "5m", 1000, 3600000, NULL, 0,
     "Longest wait that a client can ask for with Prefer: wait."},
    {"DRAIN_TIMEOUT", CONFIG_DURATION, AT(drain_ms), "20s", 0, 600000, NULL, 0,
     "How long requests in hand may take after SIGTERM."},
    {"PROMPT_CHARACTERS_MAX", CONFIG_INT, AT(prompt_characters_max), "2000", 1, 32000, NULL, 0,
     "Longest prompt and negative prompt, in characters."},
    {"PICTURES_MAX", CONFIG_INT, AT(pictures_max), "8", 1, 64, NULL, 0,
     "Most pictures of one job (n)."},
    {"POOL_GRACE", CONFIG_DURATION, AT(pool_grace_ms), "10m", 0, 2592000000, NULL, 0,
     "As the router's: models whose workers are all gone can still be ordered for this long."},
    {"JOBS_IN_FLIGHT_MAX", CONFIG_INT, AT(jobs_in_flight_max), "10000", 1, 1000000, NULL, 0,
     "Unfinished jobs of all clients past which submissions are answered 503."},
    {"JOBS_MAX", CONFIG_INT, AT(jobs_max), "20000", 100, 10000000, NULL, 0,
     "Jobs kept in memory, about 1 KiB each; finished ones are forgotten first and then "
     "answer 410."},
    {"JOB_RETENTION", CONFIG_DURATION, AT(job_retention_ms), "24h", 1000, 604800000, NULL, 0,
     "How long a finished job can be asked about, at most the retention of the status topic."},
    {"CACHE_ENTRIES_MAX", CONFIG_INT, AT(cache_entries_max), "10000", 16, 10000000, NULL, 0,
     "Pictures remembered in process, about 300 bytes each, for requests that repeat."},
    {.name = NULL},
};
/* clang-format on */

struct embedded_only {
    bool embedded;
};

/* The same setting that kafka_config reads, which a check does not see. */
static const struct config_option embedded_options[] = {
    {"EMBEDDED", CONFIG_BOOL, offsetof(struct embedded_only, embedded), "false", 0, 0, NULL, 0, ""},
    {.name = NULL},
};

static bool is_loopback(const char *listen)
{
    char host[64];
    int port;
    struct in_addr address;
    if (exporter_parse_listen(listen, host, &port, NULL) != 0) {
        return false;
    }
    if (inet_pton(AF_INET, host, &address) == 1) {
        return ntohl(address.s_addr) >> 24 == 127;
    }
    return strcmp(host, "::1") == 0 || strcmp(host, "localhost") == 0;
}

static int check_auth(const struct gateway_config *config, struct error *err)
{
    struct embedded_only embedded;
    const struct config_option *const tables[] = {embedded_options};
    void *const structs[] = {&embedded};
    int result = config_load(tables, 1, structs, err);
    if (result != 0) {
        return result;
    }
    if (!embedded.embedded || !is_loopback(config->http_listen)) {
        return ERROR(err, STATUS_INVALID,
                     "CRAFTERSE_AUTH=off is refused: it needs CRAFTERSE_EMBEDDED=true and a "
                     "loopback address in CRAFTERSE_HTTP_LISTEN (it is \"%s\"); otherwise set "
                     "CRAFTERSE_API_KEYS_FILE",
                     config->http_listen);
    }
    return 0;
}

static int check_url(const char *name, const char *url, struct error *err)
{
    size_t size = strlen(url);
    bool is_http = strncmp(url, "http://", 7) == 0 || strncmp(url, "https://", 8) == 0;
    if (size > 0 && (!is_http || url[size - 1] == '/' || size > 512)) {
        return ERROR(err, STATUS_INVALID,
                     "CRAFTERSE_%s=%s: want http:// or https://, no slash at the end, at most 512 "
                     "characters",
                     name, url);
    }
    return 0;
}

int gateway_config_check(const void *untyped, struct error *err)
{
    const struct gateway_config *config = untyped;
    char host[64];
    int port;
    int result = exporter_parse_listen(config->http_listen, host, &port, err);
    if (result == 0) {
        result = check_url("PUBLIC_URL", config->public_url, err);
    }
    if (result == 0) {
        result = check_url("CDN_BASE_URL", config->cdn_base_url, err);
    }
    if (result == 0) {
        result = check_url("SECOND_CDN_BASE_URL", config->second_cdn_base_url, err);
    }
    if (result == 0 && config->jobs_in_flight_max > config->jobs_max) {
        result = ERROR(err, STATUS_INVALID,
                       "CRAFTERSE_JOBS_IN_FLIGHT_MAX must not pass CRAFTERSE_JOBS_MAX: an "
                       "unfinished job would have to be forgotten");
    }
    if (result == 0 && (config->bodies_bytes_max / 2 < config->input_bytes_max ||
                        config->bodies_bytes_max / 2 < config->body_bytes_max)) {
        result = ERROR(err, STATUS_INVALID,
                       "CRAFTERSE_HTTP_BODIES_MAX must be at least twice CRAFTERSE_HTTP_INPUT_MAX "
                       "and CRAFTERSE_HTTP_BODY_MAX, or the largest body would hardly ever fit");
    }
    if (result != 0 || strcmp(config->auth, "off") == 0) {
        return result != 0 ? result : check_auth(config, err);
    }
    if (config->api_keys_file[0] == '\0') {
        return ERROR(err, STATUS_INVALID,
                     "CRAFTERSE_API_KEYS_FILE is not set: name a file of API keys (gateway "
                     "--make-key NAME prints a line for it)");
    }
    struct auth *auth = NULL;
    result =
        auth_create(&auth, &(struct auth_options){.path = config->api_keys_file, .burst = 1}, err);
    auth_destroy(auth);
    return result;
}
