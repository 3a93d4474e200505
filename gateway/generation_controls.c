/* Reading a generation's controls: see generation_controls.h. */
#include "gateway/generation_controls.h"

#include <stdio.h>
#include <string.h>

#include "common/base/panic.h"
#include "gateway/input_id.h"
#include "gateway/prompt_loras.h"

#define LORAS_MAX 8
#define LORA_WEIGHT_MAX 4
#define CLIP_SKIP_MAX 12
#define MASK_BLUR_MAX 64
#define CACHE_INTERVAL_MAX 1000
#define CACHE_BRANCH_MAX 63
#define TOME_RATIO_MAX 0.75
/* A1111's default; a mask says itself what is to change, so the rest can be drawn from nothing. */
#define STRENGTH_DEFAULT 0.75
#define STRENGTH_DEFAULT_MASKED 1.0

/* ---- Noise schedule and guidance ------------------------------------------------------------- */

static void choose(struct field_reader *r, const char *name, const cJSON *value,
                   const char *const *choices, size_t count, char **out)
{
    int index = field_choice(r, name, value, choices, count);
    if (index >= 0) {
        xfree(*out);
        *out = xstrdup(choices[index]);
    }
}

static void read_sigmas(struct field_reader *r, const char *name, const cJSON *value)
{
    if (r->model != NULL) {
        choose(r, name, value, (const char *const *)r->model->sigmas, r->model->n_sigmas,
               &r->out->generation.sigmas);
    }
}

static void read_timestep_spacing(struct field_reader *r, const char *name, const cJSON *value)
{
    static const char *const choices[] = {"leading", "trailing", "linspace"};
    choose(r, name, value, choices, sizeof(choices) / sizeof(choices[0]),
           &r->out->generation.timestep_spacing);
}

static void read_eta(struct field_reader *r, const char *name, const cJSON *value)
{
    (void)field_number(r, name, value, 0, 1, &r->out->generation.eta);
}

static void read_guidance_rescale(struct field_reader *r, const char *name, const cJSON *value)
{
    (void)field_number(r, name, value, 0, 1, &r->out->generation.guidance_rescale);
}

static void read_guidance_start(struct field_reader *r, const char *name, const cJSON *value)
{
    (void)field_number(r, name, value, 0, 1, &r->out->generation.guidance_start);
}

static void read_guidance_end(struct field_reader *r, const char *name, const cJSON *value)
{
    (void)field_number(r, name, value, 0, 1, &r->out->generation.guidance_end);
}

/* ---- Shortcuts ------------------------------------------------------------------------------- */

static void read_cache_interval(struct field_reader *r, const char *name, const cJSON *value)
{
    uint64_t steps;
    if (field_integer(r, name, value, 0, CACHE_INTERVAL_MAX, &steps)) {
        r->out->generation.cache_interval = (uint32_t)steps;
    }
}

/* How many a model has, its worker knows. */
static void read_cache_branch_id(struct field_reader *r, const char *name, const cJSON *value)
{
    uint64_t branch;
    if (field_integer(r, name, value, 0, CACHE_BRANCH_MAX, &branch)) {
        r->out->generation.cache_branch_id = (uint32_t)branch;
    }
}

static void read_tome_ratio(struct field_reader *r, const char *name, const cJSON *value)
{
    (void)field_number(r, name, value, 0, TOME_RATIO_MAX, &r->out->generation.tome_ratio);
}

/* ---- Prompt and tiling ----------------------------------------------------------------------- */

static void read_clip_skip(struct field_reader *r, const char *name, const cJSON *value)
{
    uint64_t layers;
    if (field_integer(r, name, value, 0, CLIP_SKIP_MAX, &layers)) {
        r->out->generation.clip_skip = (uint32_t)layers;
    }
}

static void read_tile(struct field_reader *r, const char *name, const cJSON *value)
{
    static const char *const choices[] = {"none", "x", "y", "xy"};
    int index = field_choice(r, name, value, choices, sizeof(choices) / sizeof(choices[0]));
    r->out->generation.tile_x = index == 1 || index == 3;
    r->out->generation.tile_y = index == 2 || index == 3;
}

static void read_preview(struct field_reader *r, const char *name, const cJSON *value)
{
    bool preview = false;
    if (field_bool(r, name, value, &preview)) {
        r->out->generation.preview = preview;
    }
}

/* ---- LoRAs ----------------------------------------------------------------------------------- */

/* The announced LoRA that an entry names, or NULL and a problem. */
static const Crafterse__V1__AnnouncedLora *find_lora(struct field_reader *r, const char *field,
                                                     const cJSON *name)
{
    const char *names[64];
    size_t count = r->model->n_loras < 64 ? r->model->n_loras : 64;
    for (size_t i = 0; i < r->model->n_loras; i++) {
        if (cJSON_IsString(name) && strcmp(r->model->loras[i]->name, name->valuestring) == 0) {
            return r->model->loras[i];
        }
    }
    for (size_t i = 0; i < count; i++) {
        names[i] = r->model->loras[i]->name;
    }
    if (count == 0) {
        problem_add(r->problems, field, "a LoRA that the model's workers have",
                    "the workers of \"%s\" have none", r->model->name);
    } else {
        (void)field_choice(r, field, name, names, count);
    }
    return NULL;
}

static void add_lora(Crafterse__V1__Generation *generation,
                     const Crafterse__V1__AnnouncedLora *announced, double weight)
{
    Crafterse__V1__Lora *lora = xmalloc(sizeof(*lora));
    crafterse__v1__lora__init(lora);
    lora->name = xstrdup(announced->name);
    lora->digest = xstrdup(announced->digest);
    lora->weight = weight;
    generation->loras =
        xrealloc(generation->loras, (generation->n_loras + 1) * sizeof(Crafterse__V1__Lora *));
    generation->loras[generation->n_loras++] = lora;
}

static void read_lora(struct field_reader *r, const cJSON *entry, size_t index)
{
    char name_field[32], weight_field[32], entry_field[32];
    snprintf(entry_field, sizeof(entry_field), "loras[%zu]", index);
    snprintf(name_field, sizeof(name_field), "loras[%zu].name", index);
    snprintf(weight_field, sizeof(weight_field), "loras[%zu].weight", index);
    const cJSON *name = cJSON_GetObjectItemCaseSensitive(entry, "name");
    const cJSON *weight = cJSON_GetObjectItemCaseSensitive(entry, "weight");
    if (!cJSON_IsObject(entry) || name == NULL ||
        cJSON_GetArraySize(entry) != (weight != NULL ? 2 : 1)) {
        problem_add(r->problems, entry_field, "{\"name\": ..., \"weight\": ...}",
                    "is not an object with a name and perhaps a weight");
        return;
    }
    double factor = 1;
    const Crafterse__V1__AnnouncedLora *found = find_lora(r, name_field, name);
    if (weight != NULL &&
        !field_number(r, weight_field, weight, -LORA_WEIGHT_MAX, LORA_WEIGHT_MAX, &factor)) {
        return;
    }
    if (found != NULL) {
        add_lora(&r->out->generation, found, factor);
    }
}

static void free_loras(Crafterse__V1__Generation *generation)
{
    for (size_t i = 0; i < generation->n_loras; i++) {
        xfree(generation->loras[i]->name);
        xfree(generation->loras[i]->digest);
        xfree(generation->loras[i]);
    }
    xfree(generation->loras);
    generation->loras = NULL;
    generation->n_loras = 0;
}

static void read_loras(struct field_reader *r, const char *name, const cJSON *value)
{
    if (r->model == NULL) {
        return; /* the problem is the model */
    }
    int count = cJSON_IsArray(value) ? cJSON_GetArraySize(value) : -1;
    if (count < 0 || count > LORAS_MAX) {
        problem_add(r->problems, name, "a list of at most 8 LoRAs",
                    count < 0 ? "is not a list" : "has too many entries");
        return;
    }
    free_loras(&r->out->generation);
    size_t index = 0;
    for (const cJSON *entry = value->child; entry != NULL; entry = entry->next) {
        read_lora(r, entry, index++);
    }
}

static bool has_lora(const Crafterse__V1__Generation *generation, const char *name)
{
    for (size_t i = 0; i < generation->n_loras; i++) {
        if (strcmp(generation->loras[i]->name, name) == 0) {
            return true;
        }
    }
    return false;
}

/* The worker reads the weights of "<lora:NAME:0.8>" itself; what the order must say is which file
 * NAME is, as it decides the picture. So it is listed with weight 0, which adds nothing to it. */
static void add_prompt_loras(struct field_reader *r)
{
    Crafterse__V1__Generation *generation = &r->out->generation;
    const char *at = generation->prompt;
    char name[PROMPT_LORAS_NAME_MAX];
    while (r->model != NULL && prompt_loras_next(&at, name)) {
        const Crafterse__V1__AnnouncedLora *found = NULL;
        for (size_t i = 0; i < r->model->n_loras && found == NULL; i++) {
            found = strcmp(r->model->loras[i]->name, name) == 0 ? r->model->loras[i] : NULL;
        }
        if (found == NULL) {
            problem_add(r->problems, "prompt", "LoRAs that the model's workers have",
                        "the workers of \"%s\" have no LoRA \"%s\"", r->model->name, name);
        } else if (generation->n_loras == LORAS_MAX && !has_lora(generation, name)) {
            problem_add(r->problems, "prompt", "at most 8 LoRAs, with those of loras",
                        "\"%s\" is one too many", name);
        } else if (!has_lora(generation, name)) {
            add_lora(generation, found, 0);
        }
    }
}

/* ---- Pictures to start from ------------------------------------------------------------------ */

static void read_input(struct field_reader *r, const char *name, const cJSON *value,
                       Crafterse__V1__Input **out)
{
    Crafterse__V1__Input *input = xmalloc(sizeof(*input));
    crafterse__v1__input__init(input);
    if (!cJSON_IsString(value) || !input_id_parse(value->valuestring, input)) {
        problem_add(r->problems, name, "the id that POST /v1/inputs answered with",
                    "is not such an id");
        xfree(input);
        return;
    }
    input_id_free(*out);
    *out = input;
}

static void read_init_image(struct field_reader *r, const char *name, const cJSON *value)
{
    read_input(r, name, value, &r->out->generation.init_image);
}

static void read_mask_image(struct field_reader *r, const char *name, const cJSON *value)
{
    read_input(r, name, value, &r->out->generation.mask_image);
}

static void read_strength(struct field_reader *r, const char *name, const cJSON *value)
{
    double strength = 0;
    if (!field_number(r, name, value, 0, 1, &strength)) {
        return;
    }
    if (strength == 0) {
        problem_add(r->problems, name, "a number over 0 and up to 1", "0 changes nothing");
        return;
    }
    r->out->generation.strength = strength;
}

static void read_mask_blur(struct field_reader *r, const char *name, const cJSON *value)
{
    (void)field_number(r, name, value, 0, MASK_BLUR_MAX, &r->out->generation.mask_blur);
}

const struct field generation_controls_fields[] = {
    {"sigmas", read_sigmas},
    {"timestep_spacing", read_timestep_spacing},
    {"eta", read_eta},
    {"guidance_rescale", read_guidance_rescale},
    {"guidance_start", read_guidance_start},
    {"guidance_end", read_guidance_end},
    {"cache_interval", read_cache_interval},
    {"cache_branch_id", read_cache_branch_id},
    {"tome_ratio", read_tome_ratio},
    {"clip_skip", read_clip_skip},
    {"tile", read_tile},
    {"loras", read_loras},
    {"init_image", read_init_image},
    {"strength", read_strength},
    {"mask_image", read_mask_image},
    {"mask_blur", read_mask_blur},
    {"preview", read_preview},
};
const size_t generation_controls_field_count =
    sizeof(generation_controls_fields) / sizeof(generation_controls_fields[0]);

/* ---- Together -------------------------------------------------------------------------------- */

static bool is_given(const cJSON *root, const char *name)
{
    const cJSON *value = cJSON_GetObjectItemCaseSensitive(root, name);
    return value != NULL && !cJSON_IsNull(value);
}

/* A side that was not asked for is the input's, cut to what the model can draw. */
static uint32_t side_of(uint32_t side, uint32_t most, uint32_t multiple)
{
    multiple = multiple > 0 ? multiple : 8;
    side = most > 0 && side > most ? most : side;
    return side < multiple ? multiple : side / multiple * multiple;
}

static void take_size(struct field_reader *r, const cJSON *root)
{
    Crafterse__V1__Generation *generation = &r->out->generation;
    const Crafterse__V1__Input *input = generation->init_image;
    if (input == NULL || r->model == NULL || is_given(root, "width") || is_given(root, "height")) {
        return;
    }
    generation->width = side_of(input->width, r->model->width_max, r->model->size_multiple);
    generation->height = side_of(input->height, r->model->height_max, r->model->size_multiple);
}

void generation_controls_finish(struct field_reader *r, const cJSON *root)
{
    static const struct {
        const char *field, *needs;
    } needs[] = {{"strength", "init_image"},
                 {"mask_image", "init_image"},
                 {"mask_blur", "mask_image"},
                 {"cache_branch_id", "cache_interval"}};
    Crafterse__V1__Generation *generation = &r->out->generation;
    for (size_t i = 0; i < sizeof(needs) / sizeof(needs[0]); i++) {
        if (is_given(root, needs[i].field) && !is_given(root, needs[i].needs)) {
            problem_add(r->problems, needs[i].field, "together with what it changes",
                        "needs %s, which is missing", needs[i].needs);
        }
    }
    if (generation->guidance_end > 0 && generation->guidance_start >= generation->guidance_end) {
        problem_add(r->problems, "guidance_end", "more than guidance_start",
                    "%g is not more than guidance_start, %g", generation->guidance_end,
                    generation->guidance_start);
    }
    if (generation->init_image != NULL && !(generation->strength > 0)) {
        generation->strength =
            generation->mask_image != NULL ? STRENGTH_DEFAULT_MASKED : STRENGTH_DEFAULT;
    }
    if (generation->cache_interval <= 1) { /* off: the same picture, so the same order */
        generation->cache_interval = generation->cache_branch_id = 0;
    }
    take_size(r, root);
    add_prompt_loras(r);
}

void generation_controls_deinit(Crafterse__V1__Generation *generation)
{
    free_loras(generation);
    input_id_free(generation->init_image);
    input_id_free(generation->mask_image);
    xfree(generation->sigmas);
    xfree(generation->timestep_spacing);
}
