/* Checking POST /v1/generations: see generation_request.h. One table of fields, one reader a
 * field; a reader that finds a problem adds it and leaves the default. */
#include "gateway/generation_request.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "common/base/panic.h"
#include "gateway/field_reader.h"
#include "gateway/generation_controls.h"
#include "gateway/text.h"

/* ---- Fields --------------------------------------------------------------------------------- */

static void read_prompt(struct field_reader *r, const char *name, const cJSON *value)
{
    if (field_text(r, name, value, &r->out->generation.prompt) &&
        strspn(r->out->generation.prompt, " \n\t") == strlen(r->out->generation.prompt)) {
        problem_add(r->problems, name, "a description of the picture", "is empty");
    }
}

static void read_negative_prompt(struct field_reader *r, const char *name, const cJSON *value)
{
    (void)field_text(r, name, value, &r->out->generation.negative_prompt);
}

static void read_size(struct field_reader *r, const char *name, const cJSON *value, uint32_t most,
                      uint32_t *out)
{
    uint64_t multiple =
        r->model != NULL && r->model->size_multiple > 0 ? r->model->size_multiple : 8;
    uint64_t limit = r->model != NULL && most > 0 ? most : 4096, size;
    if (!field_integer(r, name, value, multiple, limit, &size)) {
        return;
    }
    if (r->model != NULL && size % multiple != 0) {
        char allowed[128];
        snprintf(allowed, sizeof(allowed), "a multiple of %" PRIu64 " from %" PRIu64 " to %" PRIu64,
                 multiple, multiple, limit);
        problem_add(r->problems, name, allowed, "%" PRIu64 " is not a multiple of %" PRIu64, size,
                    multiple);
        return;
    }
    *out = (uint32_t)size;
}

static void read_width(struct field_reader *r, const char *name, const cJSON *value)
{
    read_size(r, name, value, r->model != NULL ? r->model->width_max : 0,
              &r->out->generation.width);
}

static void read_height(struct field_reader *r, const char *name, const cJSON *value)
{
    read_size(r, name, value, r->model != NULL ? r->model->height_max : 0,
              &r->out->generation.height);
}

static void read_steps(struct field_reader *r, const char *name, const cJSON *value)
{
    uint64_t steps, most = r->model != NULL && r->model->steps_max > 0 ? r->model->steps_max : 1000;
    if (field_integer(r, name, value, 1, most, &steps)) {
        r->out->generation.steps = (uint32_t)steps;
    }
}

static void read_guidance(struct field_reader *r, const char *name, const cJSON *value)
{
    (void)field_number(r, name, value, 0, GENERATION_GUIDANCE_MAX,
                       &r->out->generation.guidance_scale);
}

static void read_seed(struct field_reader *r, const char *name, const cJSON *value)
{
    r->out->has_seed =
        field_integer(r, name, value, 0, GENERATION_SEED_MAX, &r->out->generation.seed);
}

static void read_scheduler(struct field_reader *r, const char *name, const cJSON *value)
{
    if (r->model == NULL) {
        return; /* the problem is the model */
    }
    int index = field_choice(r, name, value, (const char *const *)r->model->schedulers,
                             r->model->n_schedulers);
    if (index >= 0) {
        xfree(r->out->generation.scheduler);
        r->out->generation.scheduler = xstrdup(r->model->schedulers[index]);
    }
}

static void read_n(struct field_reader *r, const char *name, const cJSON *value)
{
    uint64_t n;
    if (field_integer(r, name, value, 1, (uint64_t)r->limits->pictures_max, &n)) {
        r->out->generation.n = (uint32_t)n;
    }
}

static void read_priority(struct field_reader *r, const char *name, const cJSON *value)
{
    static const char *const choices[] = {"interactive", "batch"};
    if (field_choice(r, name, value, choices, 2) == 1) {
        r->out->job_class = CRAFTERSE__V1__JOB_CLASS__JOB_CLASS_BATCH;
    }
}

static void read_cache(struct field_reader *r, const char *name, const cJSON *value)
{
    static const char *const choices[] = {"exact", "any-seed", "bypass"};
    static const Crafterse__V1__CacheMode modes[] = {CRAFTERSE__V1__CACHE_MODE__CACHE_MODE_EXACT,
                                                     CRAFTERSE__V1__CACHE_MODE__CACHE_MODE_ANY_SEED,
                                                     CRAFTERSE__V1__CACHE_MODE__CACHE_MODE_BYPASS};
    int index = field_choice(r, name, value, choices, 3);
    if (index >= 0) {
        r->out->cache = modes[index];
    }
}

static void read_on_deadline(struct field_reader *r, const char *name, const cJSON *value)
{
    static const char *const choices[] = {"expire", "partial"};
    if (field_choice(r, name, value, choices, 2) == 1) {
        r->out->on_deadline = CRAFTERSE__V1__ON_DEADLINE__ON_DEADLINE_PARTIAL;
    }
}

static void read_deadline(struct field_reader *r, const char *name, const cJSON *value)
{
    static const char allowed[] =
        "seconds from now, or a time like \"2026-11-20T18:05:00Z\", at most 7 days ahead";
    uint64_t at_ms = 0;
    if (cJSON_IsNumber(value) && value->valuedouble > 0 &&
        value->valuedouble <= GENERATION_DEADLINE_S_MAX) {
        at_ms = r->limits->now_ms + (uint64_t)(value->valuedouble * 1000);
    } else if (cJSON_IsNumber(value)) {
        problem_add(r->problems, name, allowed, "%g seconds is out of range", value->valuedouble);
    } else if (!cJSON_IsString(value)) {
        problem_add(r->problems, name, allowed, "is %s", field_kind(value));
    } else if (!text_parse_time(value->valuestring, &at_ms)) {
        char quote[PROBLEM_QUOTE_SIZE];
        problem_add(r->problems, name, allowed, "\"%s\" is not an RFC 3339 time",
                    problem_printable(value->valuestring, strlen(value->valuestring), quote));
    } else if (at_ms <= r->limits->now_ms) {
        problem_add(r->problems, name, allowed, "has passed already");
        at_ms = 0;
    } else if (at_ms > r->limits->now_ms + GENERATION_DEADLINE_S_MAX * 1000ULL) {
        problem_add(r->problems, name, allowed, "is too far ahead");
        at_ms = 0;
    }
    r->out->deadline_ms = at_ms;
}

static void read_model(struct field_reader *r, const char *name, const cJSON *value)
{
    (void)r; /* read before all others: resolve_model */
    (void)name;
    (void)value;
}

static const struct field fields[] = {
    {"prompt", read_prompt},       {"negative_prompt", read_negative_prompt},
    {"width", read_width},         {"height", read_height},
    {"steps", read_steps},         {"guidance_scale", read_guidance},
    {"seed", read_seed},           {"model", read_model},
    {"scheduler", read_scheduler}, {"n", read_n},
    {"priority", read_priority},   {"deadline", read_deadline},
    {"cache", read_cache},         {"on_deadline", read_on_deadline},
};
#define FIELD_COUNT (sizeof(fields) / sizeof(fields[0]))

/* ---- The whole ------------------------------------------------------------------------------ */

#define MODELS_SHOWN_MAX 16

static void add_model_problem(struct field_reader *r, const cJSON *value)
{
    struct model_view views[MODELS_SHOWN_MAX];
    size_t count =
        model_table_list(r->limits->models, r->limits->steady_ms, views, MODELS_SHOWN_MAX);
    const char *names[MODELS_SHOWN_MAX];
    for (size_t i = 0; i < count; i++) {
        names[i] = views[i].model->name;
    }
    (void)field_choice(r, "model", value, names, count);
}

static int resolve_model(struct field_reader *r, const cJSON *value)
{
    const struct generation_limits *limits = r->limits;
    bool is_named = value != NULL && !cJSON_IsNull(value);
    const char *name = is_named && cJSON_IsString(value) ? value->valuestring : NULL;
    struct model_view view;
    if (!model_table_find(limits->models, NULL, limits->model_default, limits->steady_ms, &view)) {
        return STATUS_UNAVAILABLE;
    }
    if (is_named &&
        (name == NULL || !model_table_find(limits->models, name, NULL, limits->steady_ms, &view) ||
         strcmp(view.model->name, name) != 0)) {
        add_model_problem(r, value);
        return 0;
    }
    r->model = view.model;
    return 0;
}

static uint32_t size_default(uint32_t size, uint32_t most)
{
    return size > 0 ? size : most > 0 && most < 512 ? most : 512;
}

static void set_defaults(struct field_reader *r)
{
    struct generation_request *out = r->out;
    const Crafterse__V1__Model *model = r->model;
    memset(out, 0, sizeof(*out));
    crafterse__v1__generation__init(&out->generation);
    out->generation.prompt = xstrdup("");
    out->generation.negative_prompt = xstrdup("");
    out->generation.model = xstrdup(model != NULL ? model->name : "");
    out->generation.model_digest = xstrdup(model != NULL ? model->digest : "");
    out->generation.scheduler = xstrdup(model != NULL ? model->scheduler_default : "");
    out->generation.sigmas = xstrdup("");
    out->generation.timestep_spacing = xstrdup("");
    out->generation.n = 1;
    out->job_class = CRAFTERSE__V1__JOB_CLASS__JOB_CLASS_INTERACTIVE;
    out->cache = CRAFTERSE__V1__CACHE_MODE__CACHE_MODE_EXACT;
    if (model != NULL) {
        out->generation.width = size_default(model->width_default, model->width_max);
        out->generation.height = size_default(model->height_default, model->height_max);
        out->generation.steps = model->steps_default > 0 ? model->steps_default : 20;
        out->generation.guidance_scale = model->guidance_default;
    }
}

static const struct field *find_field(const char *name)
{
    for (size_t i = 0; i < FIELD_COUNT; i++) {
        if (strcmp(fields[i].name, name) == 0) {
            return &fields[i];
        }
    }
    for (size_t i = 0; i < generation_controls_field_count; i++) {
        if (strcmp(generation_controls_fields[i].name, name) == 0) {
            return &generation_controls_fields[i];
        }
    }
    return NULL;
}

#define FIELD_NAMES_SIZE 512

static void list_fields(char names[FIELD_NAMES_SIZE])
{
    size_t used = 0;
    for (size_t i = 0; i < FIELD_COUNT + generation_controls_field_count; i++) {
        const char *name =
            i < FIELD_COUNT ? fields[i].name : generation_controls_fields[i - FIELD_COUNT].name;
        used += (size_t)snprintf(names + used, FIELD_NAMES_SIZE - used, "%s%s", i > 0 ? ", " : "",
                                 name);
        ASSERT(used < FIELD_NAMES_SIZE);
    }
}

static void read_fields(struct field_reader *r, const cJSON *root)
{
    char names[FIELD_NAMES_SIZE] = "", quote[PROBLEM_QUOTE_SIZE];
    for (const cJSON *item = root->child; item != NULL; item = item->next) {
        const struct field *field = find_field(item->string);
        if (field == NULL) {
            if (names[0] == '\0') {
                list_fields(names);
            }
            problem_add(r->problems, problem_printable(item->string, strlen(item->string), quote),
                        names, "is not a field of this request");
        } else if (!cJSON_IsNull(item)) { /* null asks for the default */
            field->read(r, field->name, item);
        }
    }
}

static void check_together(struct field_reader *r, const cJSON *root)
{
    const Crafterse__V1__Generation *generation = &r->out->generation;
    const cJSON *prompt = cJSON_GetObjectItemCaseSensitive(root, "prompt");
    if (prompt == NULL || cJSON_IsNull(prompt)) {
        problem_add(r->problems, "prompt", "a description of the picture", "is missing");
    }
    uint64_t bytes = (uint64_t)generation->width * generation->height * 3;
    if (r->limits->embedded && bytes > GENERATION_EMBEDDED_BYTES_MAX) {
        problem_add(r->problems, "width", "width x height x 3 of at most 1048576 bytes",
                    "embedded_picture_too_large: %" PRIu32 "x%" PRIu32 " has %" PRIu64
                    " bytes of pixels, more than the embedded broker carries; start the stack "
                    "with KAFKA=apache for larger pictures",
                    generation->width, generation->height, bytes);
    }
    if (generation->seed > GENERATION_SEED_MAX - (generation->n - 1)) {
        problem_add(r->problems, "seed", "seed + n - 1 of at most 9007199254740991",
                    "leaves no seeds for the other pictures");
    }
}

int generation_request_read(struct generation_request *out, const cJSON *root,
                            const struct generation_limits *limits, struct problem_list *problems)
{
    struct field_reader r = {.out = out, .limits = limits, .problems = problems};
    int result = resolve_model(&r, cJSON_GetObjectItemCaseSensitive(root, "model"));
    set_defaults(&r);
    if (result != 0) {
        return result;
    }
    read_fields(&r, root);
    generation_controls_finish(&r, root);
    check_together(&r, root);
    return problems->count > 0 ? STATUS_INVALID : 0;
}

void generation_request_deinit(struct generation_request *r)
{
    xfree(r->generation.prompt);
    xfree(r->generation.negative_prompt);
    xfree(r->generation.model);
    xfree(r->generation.model_digest);
    xfree(r->generation.scheduler);
    generation_controls_deinit(&r->generation);
    memset(r, 0, sizeof(*r));
}
