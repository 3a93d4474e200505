#include "uploader/uploader_config.h"

#include <stddef.h>
#include <string.h>

#include "uploader/folder_store.h"
#include "uploader/s3_store.h"

#define AT(field) offsetof(struct uploader_config, field)
#define PREFIX_LENGTH_MAX 64

const struct config_option uploader_config_options[] = {
    {.name = "STORE",
     .type = CONFIG_CHOICE,
     .offset = AT(store),
     .default_text = "folder",
     .choices = "folder|s3",
     .help = "Where pictures are kept: a folder of this machine, or S3 (AWS, Cloudflare R2, ...)."},
    {.name = "STORE_FOLDER",
     .type = CONFIG_STRING,
     .offset = AT(store_folder),
     .help = "The folder of STORE=folder; made when missing."},
    {.name = "S3_ENDPOINT",
     .type = CONFIG_STRING,
     .offset = AT(s3_endpoint),
     .help = "Address of the S3 API, for example https://ACCOUNT.r2.cloudflarestorage.com."},
    {.name = "S3_REGION",
     .type = CONFIG_STRING,
     .offset = AT(s3_region),
     .default_text = "auto",
     .help = "Region that requests are signed for; R2 wants auto."},
    {.name = "S3_BUCKET",
     .type = CONFIG_STRING,
     .offset = AT(s3_bucket),
     .help = "Bucket that takes the pictures; it must exist."},
    {.name = "S3_ACCESS_KEY_ID",
     .type = CONFIG_STRING,
     .offset = AT(s3_access_key_id),
     .help = "Name of the key that may read and write the bucket's objects."},
    {.name = "S3_SECRET_ACCESS_KEY",
     .type = CONFIG_STRING,
     .offset = AT(s3_secret_access_key),
     .flags = CONFIG_SECRET,
     .help = "The key's secret."},
    {.name = "S3_TIMEOUT",
     .type = CONFIG_DURATION,
     .offset = AT(s3_timeout_ms),
     .default_text = "30s",
     .min = 100,
     .max = 600000,
     .help = "Longest time for one request to the store; then it is tried again."},
    {.name = "OBJECT_PREFIX",
     .type = CONFIG_STRING,
     .offset = AT(object_prefix),
     .help = "Put before every object's key, for example pictures/."},
    {.name = "UPLOADS",
     .type = CONFIG_INT,
     .offset = AT(uploads),
     .default_text = "4",
     .min = 1,
     .max = 64,
     .help = "Pictures stored at the same time; each may take up to 32 MiB of memory."},
    {.name = "RETRY_MAX",
     .type = CONFIG_DURATION,
     .offset = AT(retry_max_ms),
     .default_text = "30s",
     .min = 100,
     .max = 600000,
     .help = "Longest wait between two attempts to store a picture; waits double up to it."},
    {.name = "DRAIN_LIMIT",
     .type = CONFIG_DURATION,
     .offset = AT(drain_limit_ms),
     .default_text = "30s",
     .min = 0,
     .max = 3600000,
     .help = "After SIGTERM, longest time for the pictures in hand; the rest is left to others."},
    {.name = "REDIS_URL",
     .type = CONFIG_STRING,
     .offset = AT(redis_url),
     .help = "redis://[:password@]host[:port][/database] for cache entries; empty writes none."},
    {.name = "CACHE_TTL",
     .type = CONFIG_DURATION,
     .offset = AT(cache_ttl_ms),
     .default_text = "1h",
     .min = 1000,
     .max = 30LL * 24 * 3600 * 1000,
     .help = "How long a cache entry lives in Redis."},
    {.name = NULL},
};

static int check_prefix(const char *prefix, struct error *err)
{
    static const char allowed[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789/-_.";
    if (strlen(prefix) > PREFIX_LENGTH_MAX || strspn(prefix, allowed) != strlen(prefix) ||
        prefix[0] == '/' || prefix[0] == '.' || strstr(prefix, "/.") != NULL ||
        strstr(prefix, "//") != NULL) {
        return ERROR(err, STATUS_INVALID,
                     "CRAFTERSE_OBJECT_PREFIX is \"%.80s\": expected at most %d letters, digits, "
                     "-, _, . and / with no part that is empty or begins with a dot",
                     prefix, PREFIX_LENGTH_MAX);
    }
    return 0;
}

static int check_s3(const struct uploader_config *config, struct error *err)
{
    const struct {
        const char *name, *value;
    } needed[] = {
        {"S3_ENDPOINT", config->s3_endpoint},
        {"S3_BUCKET", config->s3_bucket},
        {"S3_ACCESS_KEY_ID", config->s3_access_key_id},
        {"S3_SECRET_ACCESS_KEY", config->s3_secret_access_key},
    };
    for (size_t i = 0; i < sizeof(needed) / sizeof(needed[0]); i++) {
        if (needed[i].value[0] == '\0') {
            return ERROR(err, STATUS_INVALID, "CRAFTERSE_STORE=s3 needs CRAFTERSE_%s",
                         needed[i].name);
        }
    }
    if (strchr(config->s3_bucket, '/') != NULL) {
        return ERROR(err, STATUS_INVALID,
                     "CRAFTERSE_S3_BUCKET is \"%s\": expected a bucket's name without /; a folder "
                     "inside the bucket is CRAFTERSE_OBJECT_PREFIX",
                     config->s3_bucket);
    }
    return s3_store_check_endpoint(config->s3_endpoint, err);
}

int uploader_config_check(const void *config, struct error *err)
{
    const struct uploader_config *settings = config;
    int rc = check_prefix(settings->object_prefix, err);
    if (rc != 0) {
        return rc;
    }
    if (strcmp(settings->store, "s3") == 0) {
        return check_s3(settings, err);
    }
    return settings->store_folder[0] != '\0'
               ? 0
               : ERROR(err, STATUS_INVALID,
                       "CRAFTERSE_STORE=folder needs CRAFTERSE_STORE_FOLDER, the folder that "
                       "takes the pictures");
}

int uploader_config_open_store(const struct uploader_config *config, bool durable,
                               struct store **out, struct error *err)
{
    if (strcmp(config->store, "folder") == 0) {
        *out = folder_store_create(config->store_folder, durable);
        return 0;
    }
    const struct s3_store_settings settings = {
        .endpoint = config->s3_endpoint,
        .region = config->s3_region,
        .bucket = config->s3_bucket,
        .access_key_id = config->s3_access_key_id,
        .secret_access_key = config->s3_secret_access_key,
        .timeout_ms = config->s3_timeout_ms,
    };
    return s3_store_create(out, &settings, err);
}
