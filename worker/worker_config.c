#include "worker/worker_config.h"

#include <stddef.h>

#include "common/base/panic.h"
#include "common/bus/topics.h"
#include "worker/worker_metrics.h"

#define AT(field) offsetof(struct worker_config, field)

const struct config_option worker_config_options[] = {
    {.name = "POOL",
     .type = CONFIG_STRING,
     .offset = AT(pool),
     .default_text = "default",
     .help = "The pool whose jobs this worker takes."},
    {.name = "MODEL_PATH",
     .type = CONFIG_STRING,
     .offset = AT(model_path),
     .flags = CONFIG_REQUIRED,
     .help = "The model: a single-file .safetensors checkpoint, or the folder that diffusers "
             "writes, with a model_index.json."},
    {.name = "MODEL_NAME",
     .type = CONFIG_STRING,
     .offset = AT(model_name),
     .default_text = "",
     .help = "The name that clients order the model by; empty = the folder's own name, or the "
             "file's without .safetensors."},
    {.name = "VAE_PATH",
     .type = CONFIG_STRING,
     .offset = AT(vae_path),
     .default_text = "",
     .help = "A VAE in place of the model's own: a folder that diffusers writes (also TAESD, which "
             "decodes several times as fast) or a .safetensors file; empty = the model's."},
    {.name = "LORA_FOLDER",
     .type = CONFIG_STRING,
     .offset = AT(lora_folder),
     .default_text = "",
     .help = "A folder of LoRAs, *.safetensors, which orders name by file stem; empty = none. Read "
             "once, at the start."},
    {.name = "EMBEDDING_FOLDER",
     .type = CONFIG_STRING,
     .offset = AT(embedding_folder),
     .default_text = "",
     .help = "A folder of textual inversion embeddings, *.safetensors, which prompts call by file "
             "stem; empty = none. Read once, at the start."},
    {.name = "WEIGHTS",
     .type = CONFIG_CHOICE,
     .offset = AT(weights),
     .default_text = "file",
     .choices = "file|f32",
     .help = "file: weights are used where their file is mapped, in its precision. f32: they are "
             "expanded at the start, which takes longer and two to three times the memory; steps "
             "are a few hundredths faster."},
    {.name = "PRECISION",
     .type = CONFIG_CHOICE,
     .offset = AT(precision),
     .default_text = "f32",
     .choices = "f32|f16|bf16|int8",
     .help = "How far the operands of matrix products may be rounded for speed: not at all, to "
             "float16, to bfloat16, to bytes. The fastest arithmetic within it, as measured at "
             "the start, is used; when that rounds, the model is announced as another one, because "
             "its pictures "
             "differ."},
    {.name = "MEMORY_LIMIT",
     .type = CONFIG_BYTES,
     .offset = AT(memory_limit),
     .default_text = "0",
     .min = 0,
     .max = INT64_MAX,
     .help = "Pictures that would take more, all of the process counted, are refused; 0 = what the "
             "control group allows, or the machine has."},
    {.name = "CACHE_FOLDER",
     .type = CONFIG_STRING,
     .offset = AT(cache_folder),
     .default_text = "",
     .help = "Where weights that were packed for this machine's arithmetic are kept, so that later "
             "starts take seconds; shared by the workers of a host. Empty = "
             "$XDG_CACHE_HOME/crafterse, or ~/.cache/crafterse."},
    {.name = "CACHE_LIMIT",
     .type = CONFIG_BYTES,
     .offset = AT(cache_limit),
     .default_text = "32GiB",
     .min = 0,
     .max = INT64_MAX,
     .help = "All files of that folder may take so much; those longest unused are removed. 0 = "
             "nothing is kept."},
    {.name = "THREADS",
     .type = CONFIG_INT,
     .offset = AT(threads),
     .default_text = "0",
     .min = 0,
     .max = 1024,
     .help = "Threads that compute; 0 = as many as the processors that the process may use."},
    {.name = "JOB_ATTEMPTS_MAX",
     .type = CONFIG_INT,
     .offset = AT(attempts_max),
     .default_text = "3",
     .min = 1,
     .max = 100,
     .help = "A job that was started this often without coming to an end fails."},
    {.name = "JOB_RETRY_FIRST",
     .type = CONFIG_DURATION,
     .offset = AT(retry_first_ms),
     .default_text = "2s",
     .min = 1,
     .max = 3600000,
     .help = "Wait before the second attempt of a job that failed for a reason that may pass; it "
             "doubles with each further one, with jitter. Other jobs go on meanwhile."},
    {.name = "JOB_RETRY_MAX",
     .type = CONFIG_DURATION,
     .offset = AT(retry_max_ms),
     .default_text = "5m",
     .min = 1,
     .max = 3600000,
     .help = "Longest wait between two attempts."},
    {.name = "JOB_TIME_LIMIT",
     .type = CONFIG_DURATION,
     .offset = AT(time_limit_ms),
     .default_text = "20m",
     .min = 1000,
     .max = 24LL * 3600 * 1000,
     .help = "A job that runs longer than this, all its pictures together, expires, or with "
             "on_deadline=partial ends with what there is."},
    {.name = "DRAIN_TIMEOUT",
     .type = CONFIG_DURATION,
     .offset = AT(drain_timeout_ms),
     .default_text = "21m",
     .min = 0,
     .max = 24LL * 3600 * 1000,
     .help = "After SIGTERM the running job may go on for this long; then it is left to another "
             "worker."},
    {.name = "PRICE_PER_HOUR",
     .type = CONFIG_STRING,
     .offset = AT(price_per_hour),
     .help = "What this worker's machine costs in dollars an hour, for example 0.05, so that "
             "metrics tell the cost of a picture; empty = nothing."},
    {.name = NULL},
};

int worker_config_check(const void *config, struct error *err)
{
    const struct worker_config *settings = config;
    char **pools = NULL;
    size_t count = 0;
    int status = topics_parse_pools(settings->pool, &pools, &count, err);
    if (status < 0) {
        return error_wrap(err, "CRAFTERSE_POOL");
    }
    if (count != 1) {
        status = ERROR(err, STATUS_INVALID,
                       "CRAFTERSE_POOL names %zu pools (\"%s\"); a worker belongs to one", count,
                       settings->pool);
    }
    for (size_t i = 0; i < count; i++) {
        xfree(pools[i]);
    }
    xfree(pools);
    double price;
    if (status == 0) {
        status = worker_metrics_parse_price(settings->price_per_hour, &price, err);
    }
    return status;
}
