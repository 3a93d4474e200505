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
     .offset = AT(first.kind),
     .default_text = "folder",
     .choices = "folder|s3",
     .help = "Where pictures are kept: a folder of this machine, or S3 (AWS, Cloudflare R2, ...)."},
    {.name = "STORE_FOLDER",
     .type = CONFIG_STRING,
     .offset = AT(first.folder),
     .help = "The folder of STORE=folder; made when missing."},
    {.name = "S3_ENDPOINT",
     .type = CONFIG_STRING,
     .offset = AT(first.s3_endpoint),
     .help = "Address of the S3 API, for example https://ACCOUNT.r2.cloudflarestorage.com."},
    {.name = "S3_REGION",
     .type = CONFIG_STRING,
     .offset = AT(first.s3_region),
     .default_text = "auto",
     .help = "Region that requests are signed for; R2 wants auto."},
    {.name = "S3_BUCKET",
     .type = CONFIG_STRING,
     .offset = AT(first.s3_bucket),
     .help = "Bucket that takes the pictures; it must exist."},
    {.name = "S3_ACCESS_KEY_ID",
     .type = CONFIG_STRING,
     .offset = AT(first.s3_access_key_id),
     .help = "Name of the key that may read and write the bucket's objects."},
    {.name = "S3_SECRET_ACCESS_KEY",
     .type = CONFIG_STRING,
     .offset = AT(first.s3_secret_access_key),
     .flags = CONFIG_SECRET,
     .help = "The key's secret."},
    {.name = "SECOND_STORE",
     .type = CONFIG_CHOICE,
     .offset = AT(second.kind),
     .default_text = "none",
     .choices = "none|folder|s3",
     .help = "A second store, best with another provider: every picture goes to both, and while "
             "the first is away the second alone is enough."},
    {.name = "SECOND_STORE_FOLDER",
     .type = CONFIG_STRING,
     .offset = AT(second.folder),
     .help = "As STORE_FOLDER, of the second store."},
    {.name = "SECOND_S3_ENDPOINT",
     .type = CONFIG_STRING,
     .offset = AT(second.s3_endpoint),
     .help = "As S3_ENDPOINT, of the second store."},
    {.name = "SECOND_S3_REGION",
     .type = CONFIG_STRING,
     .offset = AT(second.s3_region),
     .default_text = "auto",
     .help = "As S3_REGION, of the second store."},
    {.name = "SECOND_S3_BUCKET",
     .type = CONFIG_STRING,
     .offset = AT(second.s3_bucket),
     .help = "As S3_BUCKET, of the second store."},
    {.name = "SECOND_S3_ACCESS_KEY_ID",
     .type = CONFIG_STRING,
     .offset = AT(second.s3_access_key_id),
     .help = "As S3_ACCESS_KEY_ID, of the second store."},
    {.name = "SECOND_S3_SECRET_ACCESS_KEY",
     .type = CONFIG_STRING,
     .offset = AT(second.s3_secret_access_key),
     .flags = CONFIG_SECRET,
     .help = "As S3_SECRET_ACCESS_KEY, of the second store."},
    {.name = "SECOND_S3_TIMEOUT",
     .type = CONFIG_DURATION,
     .offset = AT(second.s3_timeout_ms),
     .default_text = "10s",
     .min = 100,
     .max = 600000,
     .help = "As S3_TIMEOUT, of the second store; a picture waits for that as well."},
    {.name = "STORE_PATIENCE",
     .type = CONFIG_DURATION,
     .offset = AT(patience_ms),
     .default_text = "5s",
     .min = 0,
     .max = 3600000,
     .help = "How long the first store may fail before the second alone is enough."},
    {.name = "S3_TIMEOUT",
     .type = CONFIG_DURATION,
     .offset = AT(first.s3_timeout_ms),
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
     .help = "Pictures stored at the same time; as many again, and at least 12, may wait until "
             "they are tried again, or behind their job's. Each may take up to 32 MiB of memory."},
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
     .flags = CONFIG_SECRET,
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

static int check_s3(const struct uploader_place *place, const char *which, struct error *err)
{
    const struct {
        const char *name, *value;
    } needed[] = {
        {"S3_ENDPOINT", place->s3_endpoint},
        {"S3_BUCKET", place->s3_bucket},
        {"S3_ACCESS_KEY_ID", place->s3_access_key_id},
        {"S3_SECRET_ACCESS_KEY", place->s3_secret_access_key},
    };
    for (size_t i = 0; i < sizeof(needed) / sizeof(needed[0]); i++) {
        if (needed[i].value[0] == '\0') {
            return ERROR(err, STATUS_INVALID, "CRAFTERSE_%sSTORE=s3 needs CRAFTERSE_%s%s", which,
                         which, needed[i].name);
        }
    }
    if (strchr(place->s3_bucket, '/') != NULL) {
        return ERROR(
            err, STATUS_INVALID,
            "CRAFTERSE_%sS3_BUCKET is \"%s\": expected a bucket's name without /; a folder "
            "inside the bucket is CRAFTERSE_OBJECT_PREFIX",
            which, place->s3_bucket);
    }
    return s3_store_check_endpoint(place->s3_endpoint, err);
}

/* which: "" or "SECOND_". */
static int check_place(const struct uploader_place *place, const char *which, struct error *err)
{
    if (strcmp(place->kind, "s3") == 0) {
        return check_s3(place, which, err);
    }
    return strcmp(place->kind, "folder") != 0 || place->folder[0] != '\0'
               ? 0
               : ERROR(err, STATUS_INVALID,
                       "CRAFTERSE_%sSTORE=folder needs CRAFTERSE_%sSTORE_FOLDER, the folder that "
                       "takes the pictures",
                       which, which);
}

bool uploader_config_has_second(const struct uploader_config *config)
{
    return strcmp(config->second.kind, "none") != 0;
}

static bool is_same_place(const struct uploader_place *a, const struct uploader_place *b)
{
    if (strcmp(a->kind, b->kind) != 0) {
        return false;
    }
    return strcmp(a->kind, "folder") == 0 ? strcmp(a->folder, b->folder) == 0
                                          : strcmp(a->s3_endpoint, b->s3_endpoint) == 0 &&
                                                strcmp(a->s3_bucket, b->s3_bucket) == 0;
}

int uploader_config_check(const void *config, struct error *err)
{
    const struct uploader_config *settings = config;
    int rc = check_prefix(settings->object_prefix, err);
    rc = rc == 0 ? check_place(&settings->first, "", err) : rc;
    rc = rc == 0 ? check_place(&settings->second, "SECOND_", err) : rc;
    if (rc == 0 && is_same_place(&settings->first, &settings->second)) {
        return ERROR(err, STATUS_INVALID,
                     "CRAFTERSE_SECOND_STORE is the first store once more: name another folder or "
                     "bucket");
    }
    return rc;
}

static int open_place(const struct uploader_place *place, bool durable, struct store **out,
                      struct error *err)
{
    if (strcmp(place->kind, "folder") == 0) {
        *out = folder_store_create(place->folder, durable);
        return 0;
    }
    const struct s3_store_settings settings = {
        .endpoint = place->s3_endpoint,
        .region = place->s3_region,
        .bucket = place->s3_bucket,
        .access_key_id = place->s3_access_key_id,
        .secret_access_key = place->s3_secret_access_key,
        .timeout_ms = place->s3_timeout_ms,
    };
    return s3_store_create(out, &settings, err);
}

int uploader_config_open_stores(const struct uploader_config *config, bool durable,
                                struct store_pair *out, struct error *err)
{
    int rc = open_place(&config->first, durable, &out->stores[0], err);
    if (rc == 0 && uploader_config_has_second(config)) {
        rc = open_place(&config->second, durable, &out->stores[1], err);
    }
    return rc;
}
