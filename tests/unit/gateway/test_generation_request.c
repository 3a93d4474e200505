#include "gateway/generation_request.h"

#include "gateway/json_body.h"
#include "tests/harness/test.h"

#define NOW_MS 1795197909000ULL

static struct model_table *models;
static struct problem_list problems;
static struct generation_request request;

static void announce(const char *worker, const char *name, const char *digest)
{
    char names[4][64];
    snprintf(names[0], 64, "%s", worker);
    snprintf(names[1], 64, "%s", name);
    snprintf(names[2], 64, "%s", digest);
    static char ddim[] = "ddim", euler[] = "euler", pool[] = "default";
    char *schedulers[] = {ddim, euler};
    Crafterse__V1__Envelope envelope;
    Crafterse__V1__Model model, *list = &model;
    Crafterse__V1__WorkerAnnouncement announcement;
    crafterse__v1__envelope__init(&envelope);
    crafterse__v1__model__init(&model);
    crafterse__v1__worker_announcement__init(&announcement);
    model.name = names[1];
    model.digest = names[2];
    model.width_default = model.height_default = 128;
    model.width_max = model.height_max = 1024;
    model.size_multiple = 8;
    model.steps_default = 20;
    model.steps_max = 150;
    model.guidance_default = 7;
    model.scheduler_default = ddim;
    model.n_schedulers = 2;
    model.schedulers = schedulers;
    static char karras[] = "karras", exponential[] = "exponential";
    char *sigmas[] = {karras, exponential};
    model.n_sigmas = 2;
    model.sigmas = sigmas;
    static char pixel_art[] = "pixel-art", lora_digest[] = "1a";
    Crafterse__V1__AnnouncedLora lora = CRAFTERSE__V1__ANNOUNCED_LORA__INIT, *loras = &lora;
    lora.name = pixel_art;
    lora.digest = lora_digest;
    model.n_loras = strcmp(name, "demo") == 0 ? 1 : 0;
    model.loras = &loras;
    announcement.envelope = &envelope;
    announcement.worker_id = names[0];
    announcement.pool = pool;
    announcement.n_models = 1;
    announcement.models = &list;
    announcement.last_seen_ms = NOW_MS;
    model_table_fold(models, &announcement, NOW_MS, NOW_MS);
}

/* Reads a body under the limits of a small gateway with the models "demo" and "pixel". */
static int read_with(const char *body, bool embedded)
{
    struct error err;
    models = model_table_create(600000);
    announce("w1", "demo", "d1");
    announce("w2", "pixel", "d2");
    cJSON *root = json_body_parse(body, strlen(body), &err);
    if (root == NULL) {
        printf("# %s\n", err.text);
        exit(1);
    }
    const struct generation_limits limits = {.models = models,
                                             .model_default = "",
                                             .prompt_characters_max = 100,
                                             .pictures_max = 4,
                                             .embedded = embedded,
                                             .now_ms = NOW_MS,
                                             .steady_ms = NOW_MS};
    memset(&problems, 0, sizeof(problems));
    int result = generation_request_read(&request, root, &limits, &problems);
    cJSON_Delete(root);
    model_table_destroy(models);
    return result;
}

static int read_body(const char *body)
{
    return read_with(body, false);
}

static void check_problem(const char *body, const char *field, const char *part)
{
    CHECK_INT(read_body(body), STATUS_INVALID);
    CHECK_INT(problems.count, 1);
    CHECK_STR(problems.details[0].field, field);
    CHECK_CONTAINS(problems.details[0].problem, part);
    CHECK(problems.details[0].allowed[0] != '\0');
    generation_request_deinit(&request);
}

TEST(a_prompt_alone_is_enough_and_the_model_gives_the_rest)
{
    CHECK_INT(read_body("{\"prompt\":\"a sword\"}"), 0);
    CHECK_STR(request.generation.prompt, "a sword");
    CHECK_STR(request.generation.negative_prompt, "");
    CHECK_STR(request.generation.model, "demo");
    CHECK_STR(request.generation.model_digest, "d1");
    CHECK_STR(request.generation.scheduler, "ddim");
    CHECK_INT(request.generation.width, 128);
    CHECK_INT(request.generation.height, 128);
    CHECK_INT(request.generation.steps, 20);
    CHECK_NEAR(request.generation.guidance_scale, 7, 0);
    CHECK_INT(request.generation.n, 1);
    CHECK(!request.has_seed);
    CHECK_INT(request.deadline_ms, 0);
    generation_request_deinit(&request);
}

TEST(every_field_is_taken)
{
    CHECK_INT(read_body("{\"prompt\":\"a\\tsword\\n\",\"negative_prompt\":\"x\",\"width\":64,"
                        "\"height\":1024,\"steps\":150,\"guidance_scale\":0,\"seed\":0,"
                        "\"model\":\"pixel\",\"scheduler\":\"euler\",\"n\":4,"
                        "\"priority\":\"batch\",\"deadline\":60,\"cache\":\"bypass\"}"),
              0);
    CHECK_STR(request.generation.model_digest, "d2");
    CHECK_STR(request.generation.scheduler, "euler");
    CHECK_INT(request.generation.height, 1024);
    CHECK_INT(request.generation.n, 4);
    CHECK(request.has_seed);
    CHECK_INT(request.job_class, CRAFTERSE__V1__JOB_CLASS__JOB_CLASS_BATCH);
    CHECK_INT(request.cache, CRAFTERSE__V1__CACHE_MODE__CACHE_MODE_BYPASS);
    CHECK_INT(request.deadline_ms, NOW_MS + 60000);
    generation_request_deinit(&request);
}

TEST(null_asks_for_the_default)
{
    CHECK_INT(read_body("{\"prompt\":\"a\",\"seed\":null,\"width\":null,\"model\":null}"), 0);
    CHECK(!request.has_seed);
    CHECK_INT(request.generation.width, 128);
    generation_request_deinit(&request);
}

TEST(each_mistake_is_named_with_what_is_allowed)
{
    check_problem("{}", "prompt", "missing");
    check_problem("{\"prompt\":null}", "prompt", "missing");
    check_problem("{\"prompt\":\" \\n\"}", "prompt", "empty");
    check_problem("{\"prompt\":7}", "prompt", "a number");
    check_problem("{\"prompt\":\"a\\u0007b\"}", "prompt", "U+0007");
    check_problem("{\"prompt\":\"a\",\"width\":513}", "width", "not a multiple of 8");
    check_problem("{\"prompt\":\"a\",\"height\":2048}", "height", "out of range");
    check_problem("{\"prompt\":\"a\",\"height\":0}", "height", "out of range");
    check_problem("{\"prompt\":\"a\",\"width\":-8}", "width", "out of range");
    check_problem("{\"prompt\":\"a\",\"width\":\"64\"}", "width", "a text");
    check_problem("{\"prompt\":\"a\",\"steps\":1.5}", "steps", "not a whole number");
    check_problem("{\"prompt\":\"a\",\"steps\":151}", "steps", "out of range");
    check_problem("{\"prompt\":\"a\",\"steps\":1e999}", "steps", "whole number");
    check_problem("{\"prompt\":\"a\",\"guidance_scale\":-1}", "guidance_scale", "out of range");
    check_problem("{\"prompt\":\"a\",\"guidance_scale\":true}", "guidance_scale", "a boolean");
    check_problem("{\"prompt\":\"a\",\"seed\":-1}", "seed", "out of range");
    check_problem("{\"prompt\":\"a\",\"seed\":9007199254740992}", "seed", "out of range");
    check_problem("{\"prompt\":\"a\",\"seed\":9007199254740991,\"n\":2}", "seed", "no seeds");
    check_problem("{\"prompt\":\"a\",\"n\":5}", "n", "out of range");
    check_problem("{\"prompt\":\"a\",\"model\":\"other\"}", "model", "\"other\"");
    check_problem("{\"prompt\":\"a\",\"model\":3}", "model", "a number");
    check_problem("{\"prompt\":\"a\",\"scheduler\":\"magic\"}", "scheduler", "\"magic\"");
    check_problem("{\"prompt\":\"a\",\"priority\":\"now\"}", "priority", "\"now\"");
    check_problem("{\"prompt\":\"a\",\"cache\":[]}", "cache", "a list");
    check_problem("{\"prompt\":\"a\",\"deadline\":\"soon\"}", "deadline", "RFC 3339");
    check_problem("{\"prompt\":\"a\",\"deadline\":0}", "deadline", "out of range");
    check_problem("{\"prompt\":\"a\",\"deadline\":\"2020-01-01T00:00:00Z\"}", "deadline", "passed");
    check_problem("{\"prompt\":\"a\",\"deadline\":\"2099-01-01T00:00:00Z\"}", "deadline", "far");
    check_problem("{\"prompt\":\"a\",\"stpes\":20}", "stpes", "not a field");
    check_problem("{\"prompt\":\"a\",\"Prompt\":\"b\"}", "Prompt", "not a field");
}

#define INPUT_ID \
    "input-0-7-200x333-0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

TEST(every_control_is_taken)
{
    CHECK_INT(read_body("{\"prompt\":\"a\",\"sigmas\":\"karras\",\"timestep_spacing\":\"trailing\","
                        "\"eta\":0.5,\"guidance_rescale\":0.7,\"guidance_start\":0.1,"
                        "\"cache_interval\":3,\"cache_branch_id\":1,\"tome_ratio\":0.5,"
                        "\"guidance_end\":0.9,\"clip_skip\":1,\"tile\":\"xy\",\"preview\":true,"
                        "\"loras\":[{\"name\":\"pixel-art\",\"weight\":-0.5},"
                        "{\"name\":\"pixel-art\"}],\"init_image\":\"" INPUT_ID "\","
                        "\"strength\":0.5,\"mask_image\":\"" INPUT_ID "\",\"mask_blur\":4}"),
              0);
    const Crafterse__V1__Generation *g = &request.generation;
    CHECK_STR(g->sigmas, "karras");
    CHECK_STR(g->timestep_spacing, "trailing");
    CHECK_NEAR(g->eta, 0.5, 0);
    CHECK_NEAR(g->guidance_rescale, 0.7, 0);
    CHECK_NEAR(g->guidance_start, 0.1, 0);
    CHECK_NEAR(g->guidance_end, 0.9, 0);
    CHECK_INT(g->cache_interval, 3);
    CHECK_INT(g->cache_branch_id, 1);
    CHECK_NEAR(g->tome_ratio, 0.5, 0);
    CHECK_INT(g->clip_skip, 1);
    CHECK(g->tile_x && g->tile_y && g->preview);
    REQUIRE(g->n_loras == 2);
    CHECK_STR(g->loras[0]->digest, "1a");
    CHECK_NEAR(g->loras[0]->weight, -0.5, 0);
    CHECK_NEAR(g->loras[1]->weight, 1, 0);
    CHECK_INT(g->init_image->offset, 7);
    CHECK_NEAR(g->strength, 0.5, 0);
    CHECK_NEAR(g->mask_blur, 4, 0);
    generation_request_deinit(&request);
}

TEST(a_cache_interval_of_one_is_the_order_without)
{
    CHECK_INT(read_body("{\"prompt\":\"a\",\"cache_interval\":1,\"cache_branch_id\":2}"), 0);
    CHECK_INT(request.generation.cache_interval, 0);
    CHECK_INT(request.generation.cache_branch_id, 0);
    generation_request_deinit(&request);
}

TEST(a_lora_of_the_prompt_is_part_of_the_order)
{
    CHECK_INT(read_body("{\"prompt\":\"a <lora:pixel-art:0.7> cat <lora:pixel-art:0.1>\"}"), 0);
    REQUIRE(request.generation.n_loras == 1);
    CHECK_STR(request.generation.loras[0]->name, "pixel-art");
    CHECK_STR(request.generation.loras[0]->digest, "1a");
    CHECK_NEAR(request.generation.loras[0]->weight, 0, 0);
    generation_request_deinit(&request);
    CHECK_INT(read_body("{\"prompt\":\"<lora:pixel-art>\",\"loras\":[{\"name\":\"pixel-art\"}]}"),
              0);
    CHECK_INT(request.generation.n_loras, 1);
    CHECK_NEAR(request.generation.loras[0]->weight, 1, 0);
    generation_request_deinit(&request);
    check_problem("{\"prompt\":\"a <lora:gone:1>\"}", "prompt", "have no LoRA \"gone\"");
}

TEST(a_picture_to_start_from_gives_the_size_and_a_strength)
{
    CHECK_INT(read_body("{\"prompt\":\"a\",\"init_image\":\"" INPUT_ID "\"}"), 0);
    CHECK_INT(request.generation.width, 200);
    CHECK_INT(request.generation.height, 328); /* a multiple of 8 */
    CHECK_NEAR(request.generation.strength, 0.75, 0);
    generation_request_deinit(&request);
    CHECK_INT(read_body("{\"prompt\":\"a\",\"height\":64,\"init_image\":\"" INPUT_ID "\"}"), 0);
    CHECK_INT(request.generation.width, 128);
    CHECK_INT(request.generation.height, 64);
    generation_request_deinit(&request);
}

TEST(each_mistake_in_a_control_is_named)
{
    check_problem("{\"prompt\":\"a\",\"sigmas\":\"magic\"}", "sigmas", "\"magic\"");
    check_problem("{\"prompt\":\"a\",\"timestep_spacing\":1}", "timestep_spacing", "a number");
    check_problem("{\"prompt\":\"a\",\"eta\":1.1}", "eta", "out of range");
    check_problem("{\"prompt\":\"a\",\"guidance_rescale\":\"x\"}", "guidance_rescale", "a text");
    check_problem("{\"prompt\":\"a\",\"guidance_start\":0.5,\"guidance_end\":0.5}", "guidance_end",
                  "not more than");
    check_problem("{\"prompt\":\"a\",\"cache_interval\":1001}", "cache_interval", "out of range");
    check_problem("{\"prompt\":\"a\",\"cache_branch_id\":1}", "cache_branch_id",
                  "needs cache_interval");
    check_problem("{\"prompt\":\"a\",\"tome_ratio\":0.76}", "tome_ratio", "out of range");
    check_problem("{\"prompt\":\"a\",\"clip_skip\":13}", "clip_skip", "out of range");
    check_problem("{\"prompt\":\"a\",\"tile\":\"z\"}", "tile", "\"z\"");
    check_problem("{\"prompt\":\"a\",\"preview\":1}", "preview", "a number");
    check_problem("{\"prompt\":\"a\",\"loras\":{}}", "loras", "not a list");
    check_problem("{\"prompt\":\"a\",\"loras\":[1]}", "loras[0]", "not an object");
    check_problem("{\"prompt\":\"a\",\"loras\":[{\"name\":\"pixel-art\",\"x\":1}]}", "loras[0]",
                  "not an object");
    check_problem("{\"prompt\":\"a\",\"loras\":[{\"name\":\"none\"}]}", "loras[0].name",
                  "\"none\"");
    check_problem("{\"prompt\":\"a\",\"loras\":[{\"name\":\"pixel-art\",\"weight\":5}]}",
                  "loras[0].weight", "out of range");
    check_problem("{\"prompt\":\"a\",\"model\":\"pixel\",\"loras\":[{\"name\":\"pixel-art\"}]}",
                  "loras[0].name", "have none");
    check_problem("{\"prompt\":\"a\",\"init_image\":\"http://example/x.png\"}", "init_image",
                  "not such an id");
    check_problem("{\"prompt\":\"a\",\"strength\":0.5}", "strength", "init_image");
    check_problem("{\"prompt\":\"a\",\"mask_image\":\"" INPUT_ID "\"}", "mask_image", "init_image");
    check_problem("{\"prompt\":\"a\",\"init_image\":\"" INPUT_ID "\",\"strength\":0}", "strength",
                  "changes nothing");
    check_problem("{\"prompt\":\"a\",\"init_image\":\"" INPUT_ID "\",\"mask_blur\":4}", "mask_blur",
                  "mask_image");
}

TEST(all_mistakes_are_named_at_once)
{
    CHECK_INT(read_body("{\"width\":7,\"height\":\"x\",\"color\":1,\"n\":0,\"model\":\"none\"}"),
              STATUS_INVALID);
    CHECK_INT(problems.count, 6); /* and the prompt is missing */
    generation_request_deinit(&request);
}

TEST(a_hundred_unknown_fields_are_counted_and_not_all_kept)
{
    static char body[4096] = "{\"prompt\":\"a\"";
    for (int i = 0; i < 100; i++) {
        size_t used = strlen(body);
        snprintf(body + used, sizeof(body) - used, ",\"f%d\":1", i);
    }
    strncat(body, "}", 2);
    CHECK_INT(read_body(body), STATUS_INVALID);
    CHECK_INT(problems.count, 100);
    generation_request_deinit(&request);
}

TEST(the_limit_of_a_prompt_counts_characters)
{
    static char body[1024] = "{\"prompt\":\"";
    for (int i = 0; i < 100; i++) {
        strncat(body, "\xe5\x89\xa3", 4);
    }
    size_t used = strlen(body);
    snprintf(body + used, sizeof(body) - used, "\"}");
    CHECK_INT(read_body(body), 0);
    generation_request_deinit(&request);
    snprintf(body + used, sizeof(body) - used, "x\"}");
    check_problem(body, "prompt", "101 characters");
}

TEST(the_embedded_broker_refuses_pictures_past_one_mebibyte)
{
    const char *at_limit = "{\"prompt\":\"a\",\"width\":512,\"height\":680}"; /* 1,044,480 bytes */
    const char *past = "{\"prompt\":\"a\",\"width\":512,\"height\":688}";     /* 1,056,768 */
    CHECK_INT(read_with(at_limit, true), 0);
    generation_request_deinit(&request);
    CHECK_INT(read_with(past, true), STATUS_INVALID);
    CHECK_CONTAINS(problems.details[0].problem, "KAFKA=apache");
    generation_request_deinit(&request);
    CHECK_INT(read_with(past, false), 0);
    generation_request_deinit(&request);
}

TEST(without_any_worker_nothing_can_be_resolved)
{
    struct error err;
    cJSON *root = json_body_parse("{\"prompt\":\"a\"}", 14, &err);
    models = model_table_create(600000);
    const struct generation_limits limits = {.models = models,
                                             .model_default = "",
                                             .prompt_characters_max = 100,
                                             .pictures_max = 4,
                                             .now_ms = NOW_MS,
                                             .steady_ms = NOW_MS};
    memset(&problems, 0, sizeof(problems));
    CHECK_INT(generation_request_read(&request, root, &limits, &problems), STATUS_UNAVAILABLE);
    generation_request_deinit(&request);
    cJSON_Delete(root);
    model_table_destroy(models);
}

/* Not a search for bugs at length, but each build sees some thousand broken bodies. */
TEST(bodies_with_random_damage_are_judged_without_harm)
{
    static const char whole[] =
        "{\"prompt\":\"a \\u00e9 \xe5\x89\xa3\",\"width\":64,\"steps\":1e1,\"seed\":42,"
        "\"deadline\":\"2026-11-21T18:05:09Z\",\"model\":\"demo\",\"cache\":\"exact\"}";
    uint32_t state = 12345;
    struct error err;
    models = model_table_create(600000);
    announce("w1", "demo", "d1");
    const struct generation_limits limits = {.models = models,
                                             .model_default = "",
                                             .prompt_characters_max = 100,
                                             .pictures_max = 4,
                                             .now_ms = NOW_MS,
                                             .steady_ms = NOW_MS};
    int judged = 0;
    for (int round = 0; round < 5000; round++) {
        char body[sizeof(whole)];
        memcpy(body, whole, sizeof(whole));
        for (int i = 0; i <= round % 4; i++) {
            state = state * 1664525 + 1013904223;
            body[state % (sizeof(whole) - 1)] = (char)(state >> 24);
        }
        cJSON *root = json_body_parse(body, sizeof(whole) - 1, &err);
        if (root == NULL) {
            continue;
        }
        memset(&problems, 0, sizeof(problems));
        int result = generation_request_read(&request, root, &limits, &problems);
        CHECK(result == 0 || problems.count > 0);
        generation_request_deinit(&request);
        cJSON_Delete(root);
        judged++;
    }
    CHECK(judged > 500);
    model_table_destroy(models);
}

TEST_MAIN()
