/* Every kind of model against diffusers, with every sampler and every control: the list of
 * docs/PARITY.md, made by make_fixtures.py.
 *
 *     test_parity                 TAP, a test for each kind: for `make test`
 *     test_parity --plain         the same of each kind's plain case alone: where it is emulated
 *     test_parity --list [WORD]   a line for each case (whose line holds WORD): for `make parity`
 *
 * A kind must meet every sampler, schedule and control of the list; a pair that no case has fails.
 * Its case without a control is also run in f16, bf16 and int8, with bounds of their own.
 */
#include "tests/golden/checkpoint_file.h"
#include "tests/parity/parity_case.h"
#include "tests/parity/parity_compare.h"
#include "tests/parity/parity_folder.h"

#define NAMES_MAX 64

/* What a precision must keep to. In float32 that is the error of every stage; in the coarser ones,
 * whose error grows with guidance and from step to step, that of one forward of the UNet against
 * ours in float32. Int8's are what these narrow random models, on which rounding is at its worst,
 * were measured to need: who refuses them asks for another precision. A model that magnifies what
 * is added anywhere in it may pass bf16's: then diffusers' own UNet in torch.bfloat16 is what ours
 * must not be worse than, and the line says so. */
static const struct bounds {
    const char *name;
    enum engine_precision precision;
    double error, decibel;
} f32 = {"f32", ENGINE_PRECISION_F32, 1e-4, 45.0}, coarser[] = {
                                                       {"f16", ENGINE_PRECISION_F16, 1e-2, 45.0},
                                                       {"bf16", ENGINE_PRECISION_BF16, 2e-2, 30.0},
                                                       {"int8", ENGINE_PRECISION_INT8, 8e-2, 25.0},
};

struct names {
    const char *items[NAMES_MAX];
    bool met[NAMES_MAX];
    int count;
};

/* A run over the list. */
struct parity {
    struct json *list;
    struct names samplers, schedules, controls;
    const char *word;  /* only cases whose line holds it, or NULL */
    struct json *bf16; /* kind -> error of diffusers' own UNet in bfloat16: bfloat16.py */
    bool tap;
    bool plain;                 /* only the case without a control, and no coarser precisions */
    struct safetensors *inputs; /* the pictures that cases start from */
    int passed, failed;
    /* Of the kind that is looked at: */
    char adapters[PATH_MAX];   /* the folder of its LoRAs */
    const char *kind, *source; /* whose cases it has: its own or another kind's */
    const char *file;          /* the list of the checkpoint that it is, or NULL */
    struct parity_expected expected;
    struct engine *engine; /* opened when first needed */
    struct scratch scratch;
    int folders;     /* made in it */
    bool is_rounded; /* a case was run in the coarser precisions */
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

/* The kind's single file, written when it is first asked for. */
static int find_file(struct parity *parity, const struct parity_case *test, char *model,
                     size_t size, struct error *err)
{
    char list_path[PATH_MAX], plain[PATH_MAX];
    snprintf(plain, sizeof(plain), "%s/%s.safetensors", parity->scratch.dir, test->kind);
    if (access(plain, F_OK) != 0) {
        struct json *list = NULL;
        snprintf(list_path, sizeof(list_path), "tests/golden/checkpoints/%s.json", parity->file);
        int result = json_open(&list, list_path, err);
        if (result < 0) {
            return result;
        }
        struct checkpoint_file *file = checkpoint_file_create(list);
        checkpoint_file_write(file, plain, NULL);
        checkpoint_file_destroy(file);
        json_close(list);
    }
    snprintf(model, size, "%s", plain);
    if (test->bf16) {
        snprintf(model, size, "%s/%s.bf16.safetensors", parity->scratch.dir, test->kind);
        return parity_write_bf16(plain, model, err);
    }
    return STATUS_OK;
}

/* The folder of the case's model: the kind's, or one that differs as the case says. */
static int find_model(struct parity *parity, const struct parity_case *test, char *model,
                      size_t size, struct error *err)
{
    char own[PATH_MAX], config[PATH_MAX + 128], name[128];
    struct parity_changes changes = {.bf16 = test->bf16};
    if (parity->file != NULL) {
        return find_file(parity, test, model, size, err);
    }
    if (realpath(PARITY_FOLDER, own) == NULL) {
        return ERROR(err, STATUS_NOT_FOUND, PARITY_FOLDER ": run it at the top of the tree");
    }
    if (strcmp(test->schedule, "zero_snr") == 0) {
        snprintf(config, sizeof(config), "%s/cases/%s.zero_snr.json", own, parity->source);
        changes.scheduler_config = config;
    }
    snprintf(own + strlen(own), sizeof(own) - strlen(own), "/models/%s", test->kind);
    if (!changes.bf16 && changes.scheduler_config == NULL) {
        snprintf(model, size, "%s", own);
        return STATUS_OK;
    }
    snprintf(name, sizeof(name), "%s-%d", test->kind, parity->folders++);
    snprintf(model, size, "%s/%s", parity->scratch.dir, name);
    return parity_folder_make(own, &parity->scratch, name, &changes, err);
}

static int open_engine(struct parity *parity, const struct parity_case *test,
                       const struct bounds *bounds, struct engine **engine, struct error *err)
{
    char model[PATH_MAX], embeddings[PATH_MAX + 16];
    snprintf(embeddings, sizeof(embeddings), "%s/embeddings", parity->adapters);
    *engine = NULL;
    int result = find_model(parity, test, model, sizeof(model), err);
    if (result < 0) {
        return result;
    }
    struct engine_options options = {
        .model_path = model,
        .threads = 1,
        .storage = test->storage,
        .precision = bounds->precision,
        .precision_is_forced = true,
        .band_rows = test->band_rows,
        .lora_folder = parity->adapters,
        .embedding_folder = embeddings,
    };
    return engine_open(engine, &options, err);
}

/* Whether the case needs an engine of its own. */
static bool is_special(const struct parity_case *test)
{
    return strcmp(test->schedule, "zero_snr") == 0 || json_first(test->engine) != NULL;
}

/* ---- Cases ----------------------------------------------------------------------------------- */

/* The pictures that requests start from. */
struct inputs {
    struct engine_picture init_image;
    struct engine_mask mask_image;
};

/* The case's request; inputs must live as long. */
static struct generation request_of(const struct parity *parity, const struct parity_case *test,
                                    struct inputs *inputs)
{
    struct generation generation = test->generation;
    generation.loras = test->loras;
    const struct safetensors_entry *init = safetensors_find(parity->inputs, "init_image");
    const struct safetensors_entry *mask = safetensors_find(parity->inputs, "mask_image");
    ASSERT(init != NULL && mask != NULL);
    inputs->init_image =
        (struct engine_picture){(int)init->shape[1], (int)init->shape[0], init->data};
    inputs->mask_image = (struct engine_mask){(int)mask->shape[1], (int)mask->shape[0], mask->data};
    generation.init_image = test->has_init_image ? &inputs->init_image : NULL;
    generation.mask_image = test->has_mask_image ? &inputs->mask_image : NULL;
    return generation;
}

static void run_pictures(struct parity *parity, struct engine *engine,
                         const struct parity_case *test, struct parity_result *result)
{
    struct inputs inputs;
    struct generation generation = request_of(parity, test, &inputs);
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
    if (open_engine(parity, test, &f32, &engine, &err) < 0) {
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
            bool within = result->errors[i] >= 0 && result->errors[i] <= f32.error;
            good &= within;
            length += (size_t)snprintf(text + length, sizeof(text) - length, " %s %.1e%s",
                                       parity_stage_names[i], result->errors[i], within ? "" : "!");
        }
        good &= result->decibel >= f32.decibel;
        snprintf(text + length, sizeof(text) - length, " %.1f dB%s", result->decibel,
                 result->decibel >= f32.decibel ? "" : "!");
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

/* ---- Coarser precisions ---------------------------------------------------------------------- */

/* The case's first picture, its stages, and how it compares with the reference; NULL and a problem
 * on failure. */
static struct engine_dump *run_rounded(struct parity *parity, const struct parity_case *test,
                                       const struct bounds *bounds, struct parity_result *result)
{
    struct error err;
    struct engine *engine = NULL;
    struct picture picture = {0};
    struct engine_dump *dump = engine_dump_create();
    int status = open_engine(parity, test, bounds, &engine, &err);
    if (status == STATUS_OK) {
        struct inputs inputs;
        struct generation generation = request_of(parity, test, &inputs);
        status = engine_generate(engine, &generation, NULL, NULL, dump, &picture, &err);
    }
    if (status == STATUS_OK) {
        parity_compare(&parity->expected, json_first(test->pictures), dump, &picture, result);
    } else {
        snprintf(result->problem, sizeof(result->problem), "%.250s", err.text);
        engine_dump_destroy(dump);
        dump = NULL;
    }
    picture_free(&picture);
    engine_close(engine);
    return dump;
}

static double tensor_error(const struct engine_dump *ours, const struct engine_dump *exact,
                           const char *name)
{
    int rank = 0;
    int64_t shape[4] = {0}, count = 1;
    double error = 0, size = 0;
    const float *a = engine_dump_find(ours, name, &rank, shape);
    const float *b = engine_dump_find(exact, name, &rank, shape);
    for (int i = 0; i < rank; i++) {
        count *= shape[i];
    }
    for (int64_t i = 0; a != NULL && b != NULL && i < count; i++) {
        error += pow((double)a[i] - (double)b[i], 2);
        size += pow((double)b[i], 2);
    }
    return size > 0 ? sqrt(error / size) : 0;
}

/* Of the first forward, before guidance. */
static double forward_error(const struct engine_dump *ours, const struct engine_dump *exact)
{
    double with = tensor_error(ours, exact, "noise_pred_text.0");
    double without = tensor_error(ours, exact, "noise_pred_uncond.0");
    double only = with + without > 0 ? 0 : tensor_error(ours, exact, "noise_pred.0");
    return fmax(fmax(with, without), only);
}

static void look_at_precision(struct parity *parity, const struct parity_case *test,
                              const struct engine_dump *exact, const struct bounds *bounds)
{
    char name[128];
    struct parity_result result = {.errors = {-1, -1, -1, -1}, .decibel = HUGE_VAL};
    snprintf(name, sizeof(name), "%-20s %-15s %-11s %-12s", test->kind, test->sampler,
             test->schedule, bounds->name);
    if (parity->word != NULL && strstr(name, parity->word) == NULL) {
        return;
    }
    struct engine_dump *ours = run_rounded(parity, test, bounds, &result);
    double error = ours != NULL ? forward_error(ours, exact) : HUGE_VAL;
    engine_dump_destroy(ours);
    if (strstr(result.problem, "no instructions") != NULL) {
        printf("%s %s  not run: %s\n", parity->tap ? "#" : "    ", name, result.problem);
        return;
    }
    char theirs[64] = "";
    double most = bounds->error;
    bool is_over = error > most;
    if (bounds->precision == ENGINE_PRECISION_BF16) {
        double torch = json_number(parity->bf16, parity->source, 0);
        most = fmax(most, torch);
        snprintf(theirs, sizeof(theirs), "%s, torch's own bf16 %.1e",
                 is_over ? " OVER THE BOUND" : "", torch);
    }
    /* An error of nothing is of an engine that rounded nothing. */
    bool good = error > 1e-6 && error <= most && result.decibel >= bounds->decibel;
    good ? parity->passed++ : parity->failed++;
    if (!parity->tap || !good || is_over) {
        printf("%s%s %s  forward %.1e%s  %.1f dB %s\n", parity->tap ? "# " : "",
               good ? "ok  " : "FAIL", name, error, theirs, result.decibel, result.problem);
    }
}

static void look_at_precisions(struct parity *parity, const struct parity_case *test)
{
    struct parity_result result = {.errors = {-1, -1, -1, -1}, .decibel = HUGE_VAL};
    struct engine_dump *exact = run_rounded(parity, test, &f32, &result);
    for (size_t i = 0; exact != NULL && i < sizeof(coarser) / sizeof(coarser[0]); i++) {
        look_at_precision(parity, test, exact, &coarser[i]);
    }
    engine_dump_destroy(exact); /* without it the case itself fails */
    parity->is_rounded = true;
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
    bool is_plain = strcmp(test.control, "none") == 0 && !is_special(&test);
    if (parity->plain && (!is_plain || parity->engine != NULL)) {
        return;
    }
    if (is_plain && !parity->is_rounded && !parity->plain) {
        look_at_precisions(parity, &test);
    }
    if (parity->word != NULL && strstr(name, parity->word) == NULL) {
        return;
    }
    struct parity_result result = {.errors = {-1, -1, -1, -1}, .decibel = HUGE_VAL};
    run_case(parity, &test, &result);
    report(parity, name, &result);
}

static void report_missing(struct parity *parity, struct names *names, const char *what)
{
    if (parity->plain) {
        return;
    }
    const struct json_value *exempt =
        json_member(json_member(json_root(parity->list), "exempt"), parity->kind);
    for (const struct json_value *at = json_first(exempt); at != NULL; at = json_next(at)) {
        names_meet(names, json_text(at));
    }
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
    const char *same =
        json_text(json_member(json_member(json_root(parity->list), "same_as"), kind));
    parity->kind = kind;
    parity->is_rounded = false;
    parity->source = same != NULL ? same : kind;
    parity->file = json_text(json_member(json_member(json_root(parity->list), "files"), kind));
    snprintf(path, sizeof(path), PARITY_FOLDER "cases/%s.json", parity->source);
    names_read(&parity->samplers, parity->list, "samplers");
    names_read(&parity->schedules, parity->list, "schedules");
    names_read(&parity->controls, parity->list, "controls");
    struct safetensors *own = open_tensors(parity->source), *texts = open_tensors("texts");
    if (own == NULL || texts == NULL || json_open(&json, path, &err) < 0) {
        printf("%s %s: no cases: run tests/parity/make_fixtures.py\n",
               parity->tap ? "# FAIL" : "FAIL", kind);
        parity->failed++;
    } else {
        snprintf(parity->adapters, sizeof(parity->adapters), PARITY_FOLDER "adapters/%s",
                 json_string(json, "adapters", ""));
        parity->expected.own = own;
        parity->expected.texts = texts;
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
    struct parity parity = {.tap = count < 2 || strcmp(arguments[1], "--list") != 0};
    parity.plain = count > 1 && strcmp(arguments[1], "--plain") == 0;
    parity.word = count > 2 ? arguments[2] : NULL;
    if (json_open(&parity.list, PARITY_FOLDER "cases/list.json", &err) < 0 ||
        json_open(&parity.bf16, PARITY_FOLDER "cases/bf16.json", &err) < 0 ||
        safetensors_open(&parity.inputs, PARITY_FOLDER "cases/inputs.safetensors", &err) < 0) {
        fprintf(stderr, "%s\n", err.text);
        return 1;
    }
    parity_read_strides(&parity.expected, json_member(json_root(parity.list), "strides"));
    scratch_create(&parity.scratch);
    int status = look_at_all(&parity);
    scratch_remove(&parity.scratch);
    safetensors_close(parity.inputs);
    json_close(parity.bf16);
    json_close(parity.list);
    return status;
}
