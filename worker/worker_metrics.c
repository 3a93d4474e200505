#include "worker/worker_metrics.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/panic.h"
#include "common/obs/metrics.h"

#define PRICE_MAX 10000.0 /* dollars an hour: more is a slip of the pen */

enum stage { STAGE_LOAD, STAGE_TEXT, STAGE_DENOISE, STAGE_DECODE, STAGE_ENCODE, STAGE_COUNT };
static const char *const stage_names[STAGE_COUNT] = {"model_load", "text", "denoise", "decode",
                                                     "encode"};
enum letter { LETTER_UNDECODABLE, LETTER_ATTEMPTS, LETTER_COUNT };
static const char *const letter_names[LETTER_COUNT] = {"undecodable", "attempts_exhausted"};

METRIC_DEFINE_COUNTER(metric_retries, "crafterse_worker_retries_total", "",
                      "Attempts at a job that were not its first.");
METRIC_DEFINE_GAUGE(metric_loaded, "crafterse_worker_model_loaded", "",
                    "1 once the model is open.");
METRIC_DEFINE_GAUGE(metric_price, "crafterse_worker_price_dollars_per_hour", "",
                    "What this worker's machine costs, as it was configured.");

static struct metric *metric_stages[STAGE_COUNT];
static struct metric *metric_letters[LETTER_COUNT];
static struct metric *metric_cost;

int worker_metrics_parse_price(const char *price_per_hour, double *out, struct error *err)
{
    char *end = NULL;
    *out = 0;
    if (price_per_hour[0] == '\0') {
        return 0;
    }
    double value = strtod(price_per_hour, &end);
    if (*end != '\0' || !isfinite(value) || value < 0 || value > PRICE_MAX) {
        return ERROR(err, STATUS_INVALID,
                     "CRAFTERSE_PRICE_PER_HOUR is \"%s\": write dollars an hour, such as 0.05",
                     price_per_hour);
    }
    *out = value;
    return 0;
}

void worker_metrics_register(double price_per_hour)
{
    char labels[64];
    for (int i = 0; i < STAGE_COUNT; i++) {
        snprintf(labels, sizeof(labels), "stage=\"%s\"", stage_names[i]);
        metric_stages[i] = metric_create(METRIC_HISTOGRAM, "crafterse_worker_stage_seconds", labels,
                                         "Time of each stage of a picture, and of opening the "
                                         "model.");
    }
    for (int i = 0; i < LETTER_COUNT; i++) {
        snprintf(labels, sizeof(labels), "reason=\"%s\"", letter_names[i]);
        metric_letters[i] = metric_create(METRIC_COUNTER, "crafterse_worker_dead_letters_total",
                                          labels, "Jobs sent to deadletter, by reason.");
    }
    /* A hosted provider would be another value. */
    metric_cost =
        metric_create(METRIC_COUNTER, "crafterse_worker_cost_dollars_total", "provider=\"own\"",
                      "What drawing has cost: PRICE_PER_HOUR for as long as this worker "
                      "runs.");
    metric_register(&metric_retries);
    metric_register(&metric_loaded);
    metric_register(&metric_price);
    metric_set(&metric_price, price_per_hour);
}

void worker_metrics_loaded(const struct drawer_model *model, double seconds)
{
    char labels[METRIC_LABEL_MAX], name[METRIC_LABEL_MAX - 64];
    snprintf(labels, sizeof(labels), "model=\"%s\",digest=\"%.12s\"",
             metric_label_value(model->name, name, sizeof(name)), model->digest);
    metric_set(metric_create(METRIC_GAUGE, "crafterse_worker_model_info", labels,
                             "1; the labels tell which model this worker draws with."),
               1);
    metric_observe(metric_stages[STAGE_LOAD], seconds);
    metric_set(&metric_loaded, 1);
}

void worker_metrics_drawn(const struct drawing *drawing)
{
    metric_observe(metric_stages[STAGE_TEXT], drawing->text_seconds);
    metric_observe(metric_stages[STAGE_DENOISE], drawing->denoise_seconds);
    metric_observe(metric_stages[STAGE_DECODE], drawing->decode_seconds);
    metric_observe(metric_stages[STAGE_ENCODE], drawing->encode_seconds);
}

void worker_metrics_retried(void)
{
    metric_increment(&metric_retries);
}

void worker_metrics_dead_letter(const char *reason)
{
    for (int i = 0; i < LETTER_COUNT; i++) {
        if (strcmp(letter_names[i], reason) == 0) {
            metric_increment(metric_letters[i]);
            return;
        }
    }
    PANIC("\"%s\" is no reason for a dead letter", reason);
}

void worker_metrics_tick(double seconds)
{
    double more = metric_value(&metric_price) * seconds / 3600.0 - metric_value(metric_cost);
    if (more > 0) { /* the clock may be set back; a counter may not */
        metric_add(metric_cost, more);
    }
}
