/* Every kind of model against diffusers, with every sampler and every control: the list of
 * docs/PARITY.md, made by make_fixtures.py.
 *
 *     test_parity                 TAP, a test for each kind: for `make test`
 *     test_parity --list [WORD]   a line for each case (whose line holds WORD): for `make parity`
 *
 * A kind must meet every sampler, schedule and control of the list; a pair that no case has fails.
 */
#include <dirent.h>
#include <unistd.h>

#include "tests/parity/parity_case.h"
#include "tests/parity/parity_compare.h"
#include "tests/support/scratch.h"

#define STAGE_TOLERANCE 1e-4
#define PICTURE_DECIBEL 45.0
#define NAMES_MAX 64

struct names {
    const char *items[NAMES_MAX];
    bool met[NAMES_MAX];
    int count;
};

/* A run over the list. */
struct parity {
    struct json *list;
    struct names samplers, schedules, controls;
    const char *word; /* only cases whose line holds it, or NULL */
    bool tap;
    size_t stride;
    struct safetensors *inputs; /* the pictures that cases start from */
    int passed, failed;
    /* Of the kind that is looked at: */
    const char *kind;
    const char *adapters; /* the folder of LoRAs that fit it */
    struct parity_expected expected;
    struct engine *engine; /* opened when first needed */
    struct scratch scratch;
    struct error open_error;
};

/* ---- Names ----------------------------------------------------------------------------------- */

static void names_read(struct names *names, const struct json *list, const char *key)
{
    names->count = 0;
    for (const struct json_value *at = json_first(json_member(json_root(list), key)); at != NULL;
         at = json_next(at)) {
        ASSERT(names->count < NAMES_MAX);
        names->met[names->count] = false;
        names->items[names->count++] = json_text(at);
    }
}

static void names_meet(struct names *names, const char *name)
{
    for (int i = 0; i < names->count; i++) {
        names->met[i] |= strcmp(names->items[i], name) == 0;
    }
}

/* ---- Engines --------------------------------------------------------------------------------- */

/* A folder like the kind's, with another scheduler_config.json. */
static const char *other_schedule(struct parity *parity, const char *kind, const char *schedule)
{
    char model[PATH_MAX], target[PATH_MAX + 256], name[512];
    if (realpath(PARITY_FOLDER "models", model) == NULL) {
        return NULL;
    }
    size_t length = strlen(model);
    snprintf(model + length, sizeof(model) - length, "/%s", kind);
    DIR *folder = opendir(model);
    for (struct dirent *at; folder != NULL && (at = readdir(folder)) != NULL;) {
        if (at->d_name[0] != '.' && strcmp(at->d_name, "scheduler") != 0) {
            snprintf(target, sizeof(target), "%s/%s", model, at->d_name);
            snprintf(name, sizeof(name), "%s.%s/%s", kind, schedule, at->d_name);
            if (symlink(target, scratch_path(&parity->scratch, name)) != 0) {
                perror(name);
            }
        }
    }
    if (folder != NULL) {
        closedir(folder);
    }
    snprintf(target, sizeof(target), "%.*s/cases/%s.%s.json", (int)(length - strlen("/models")),
             model, kind, schedule);
    snprintf(name, sizeof(name), "%s.%s/scheduler/scheduler_config.json", kind, schedule);
    if (symlink(target, scratch_path(&parity->scratch, name)) != 0) {
        perror(name);
    }
    snprintf(name, sizeof(name), "%s.%s", kind, schedule);
    return scratch_path(&parity->scratch, name);
}

static int open_engine(struct parity *parity, const struct parity_case *test,
                       struct engine **engine, struct error *err)
{
    char model[PATH_MAX], loras[PATH_MAX];
    snprintf(model, sizeof(model), PARITY_FOLDER "models/%s", test->kind);
    snprintf(loras, sizeof(loras), PARITY_FOLDER "adapters/%s", parity->adapters);
    struct engine_options options = {.model_path = model, .threads = 1, .lora_folder = loras};
    if (strcmp(test->schedule, "zero_snr") == 0) {
        options.model_path = other_schedule(parity, test->kind, test->schedule);
    }
    return engine_open(engine, &options, err);
}

/* Whether the case needs an engine of its own. */
static bool is_special(const struct parity_case *test)
{
    return strcmp(test->schedule, "zero_snr") == 0 || json_first(test->engine) != NULL;
}

/* ---- Cases ----------------------------------------------------------------------------------- */

static void run_pictures(struct parity *parity, struct engine *engine,
                         const struct parity_case *test, struct parity_result *result)
{
    struct generation generation = test->generation;
    generation.loras = test->loras;
    const struct safetensors_entry *init = safetensors_find(parity->inputs, "init_image");
    const struct safetensors_entry *mask = safetensors_find(parity->inputs, "mask_image");
    ASSERT(init != NULL && mask != NULL);
    const struct engine_picture init_image = {(int)init->shape[1], (int)init->shape[0], init->data};
    const struct engine_mask mask_image = {(int)mask->shape[1], (int)mask->shape[0], mask->data};
    generation.init_image = test->has_init_image ? &init_image : NULL;
    generation.mask_image = test->has_mask_image ? &mask_image : NULL;
    for (const struct json_value *at = json_first(test->pictures); at != NULL; at = json_next(at)) {
        struct error err;
        struct picture picture = {0};
        struct engine_dump *dump = engine_dump_create();
        if (engine_generate(engine, &generation, NULL, NULL, dump, &picture, &err) < 0) {
            snprintf(result->problem, sizeof(result->problem), "%.250s", err.text);
        } else {
            parity_compare(&parity->expected, at, dump, &picture, result);
        }
        picture_free(&picture);
        engine_dump_destroy(dump);
        generation.seed++;
    }
}

static void run_case(struct parity *parity, const struct parity_case *test,
                     struct parity_result *result)
{
    struct error err;
    struct engine *engine = NULL;
    if (test->problem[0] != '\0') {
        snprintf(result->problem, sizeof(result->problem), "%.255s", test->problem);
        return;
    }
    if (!is_special(test) && parity->engine != NULL) {
        run_pictures(parity, parity->engine, test, result);
        return;
    }
    if (open_engine(parity, test, &engine, &err) < 0) {
        snprintf(result->problem, sizeof(result->problem), "%.250s", err.text);
        return;
    }
    run_pictures(parity, engine, test, result);
    if (is_special(test)) {
        engine_close(engine);
    } else {
        parity->engine = engine;
    }
}

/* The case's line; why it fails comes after it. */
static void report(struct parity *parity, const char *name, struct parity_result *result)
{
    char text[512];
    size_t length = 0;
    bool good = result->problem[0] == '\0';
    if (good) {
        length = (size_t)snprintf(text, sizeof(text), "%s ", name);
        for (int i = 0; i < PARITY_STAGES; i++) {
            good &= result->errors[i] <= STAGE_TOLERANCE;
            length += (size_t)snprintf(text + length, sizeof(text) - length, " %s %.1e%s",
                                       parity_stage_names[i], result->errors[i],
                                       result->errors[i] <= STAGE_TOLERANCE ? "" : "!");
        }
        good &= result->decibel >= PICTURE_DECIBEL;
        snprintf(text + length, sizeof(text) - length, " %.1f dB%s", result->decibel,
                 result->decibel >= PICTURE_DECIBEL ? "" : "!");
    } else {
        snprintf(text, sizeof(text), "%s  %s", name, result->problem);
    }
    good ? parity->passed++ : parity->failed++;
    if (!parity->tap) {
        printf("%s %s\n", good ? "ok  " : "FAIL", text);
        fflush(stdout);
    } else if (!good) {
        printf("# FAIL %s\n", text);
    }
}

static void look_at_case(struct parity *parity, const struct json_value *value)
{
    char name[128];
    struct parity_case test = parity_case_read(parity->kind, value);
    snprintf(name, sizeof(name), "%-20s %-15s %-11s %-12s", test.kind, test.sampler, test.schedule,
             test.control);
    names_meet(&parity->samplers, test.sampler);
    names_meet(&parity->schedules, test.schedule);
    names_meet(&parity->controls, test.control);
    if (parity->word != NULL && strstr(name, parity->word) == NULL) {
        return;
    }
    struct parity_result result = {.decibel = HUGE_VAL};
    run_case(parity, &test, &result);
    report(parity, name, &result);
}

static void report_missing(struct parity *parity, const struct names *names, const char *what)
{
    for (int i = 0; i < names->count; i++) {
        if (!names->met[i]) {
            printf("%s %s never meets the %s %s\n", parity->tap ? "# FAIL" : "FAIL", parity->kind,
                   what, names->items[i]);
            parity->failed++;
        }
    }
}

/* ---- Kinds ----------------------------------------------------------------------------------- */

static struct safetensors *open_tensors(const char *name)
{
    char path[PATH_MAX];
    snprintf(path, sizeof(path), PARITY_FOLDER "cases/%s.safetensors", name);
    return golden_open(path);
}

static void look_at_kind(struct parity *parity, const char *kind)
{
    char path[PATH_MAX];
    struct json *json = NULL;
    struct error err;
    /* A kind that is another in other clothes has its cases. */
    const char *same =
        json_text(json_member(json_member(json_root(parity->list), "same_as"), kind));
    const char *source = same != NULL ? same : kind;
    snprintf(path, sizeof(path), PARITY_FOLDER "cases/%s.json", source);
    parity->kind = kind;
    names_read(&parity->samplers, parity->list, "samplers");
    names_read(&parity->schedules, parity->list, "schedules");
    names_read(&parity->controls, parity->list, "controls");
    struct safetensors *own = open_tensors(source), *texts = open_tensors("texts");
    if (own == NULL || texts == NULL || json_open(&json, path, &err) < 0) {
        printf("%s %s: no cases: run tests/parity/make_fixtures.py\n",
               parity->tap ? "# FAIL" : "FAIL", kind);
        parity->failed++;
    } else {
        parity->expected = (struct parity_expected){own, texts, parity->stride};
        parity->adapters = json_text(json_member(json_root(json), "adapters"));
        for (const struct json_value *at = json_first(json_member(json_root(json), "cases"));
             at != NULL; at = json_next(at)) {
            look_at_case(parity, at);
        }
        report_missing(parity, &parity->samplers, "sampler");
        report_missing(parity, &parity->schedules, "schedule");
        report_missing(parity, &parity->controls, "control");
    }
    engine_close(parity->engine);
    parity->engine = NULL;
    json_close(json);
    safetensors_close(own);
    safetensors_close(texts);
}

static int look_at_all(struct parity *parity)
{
    int number = 0;
    for (const struct json_value *at = json_first(json_member(json_root(parity->list), "kinds"));
         at != NULL; at = json_next(at)) {
        int failed = parity->failed;
        look_at_kind(parity, json_text(at));
        if (parity->tap) {
            printf("%sok %d - %s\n", parity->failed > failed ? "not " : "", ++number,
                   json_text(at));
            fflush(stdout);
        }
    }
    if (parity->tap) {
        printf("1..%d\n", number);
    } else {
        printf("%d passed, %d failed\n", parity->passed, parity->failed);
    }
    return parity->failed == 0 && parity->passed > 0 ? 0 : 1;
}

int main(int count, char **arguments)
{
    struct error err;
    int64_t stride = 0;
    struct parity parity = {.tap = count < 2 || strcmp(arguments[1], "--list") != 0};
    parity.word = count > 2 ? arguments[2] : NULL;
    if (json_open(&parity.list, PARITY_FOLDER "cases/list.json", &err) < 0 ||
        safetensors_open(&parity.inputs, PARITY_FOLDER "cases/inputs.safetensors", &err) < 0) {
        fprintf(stderr, "%s\n", err.text);
        return 1;
    }
    ASSERT(json_whole(json_member(json_root(parity.list), "stride"), 1, 1000, &stride));
    parity.stride = (size_t)stride;
    scratch_create(&parity.scratch);
    int status = look_at_all(&parity);
    scratch_remove(&parity.scratch);
    safetensors_close(parity.inputs);
    json_close(parity.list);
    return status;
}
