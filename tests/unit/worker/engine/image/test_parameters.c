#include "worker/engine/image/parameters.h"

#include "common/base/panic.h"
#include "tests/harness/test.h"

TEST(the_text_holds_everything_that_decides_the_picture)
{
    const struct picture_parameters p = {.prompt = "a red sword, glowing",
                                         .negative_prompt = "blurry",
                                         .steps = 20,
                                         .scheduler = "ddim",
                                         .guidance = 5.5,
                                         .seed = 18446744073709551615u,
                                         .width = 128,
                                         .height = 64,
                                         .model_name = "tiny, new",
                                         .model_digest = "abcd"};
    char *text = parameters_text(&p);
    CHECK_STR(text, "a red sword, glowing\n"
                    "Negative prompt: blurry\n"
                    "Steps: 20, Sampler: DDIM, CFG scale: 5.5, Seed: 18446744073709551615, "
                    "Size: 128x64, Model: \"tiny, new\", Weights digest: abcd, RNG: CPU");
    xfree(text);
}

TEST(without_a_negative_prompt_there_is_no_line_for_it)
{
    const struct picture_parameters p = {.prompt = "",
                                         .negative_prompt = NULL,
                                         .scheduler = "euler",
                                         .model_name = "m",
                                         .model_digest = "d"};
    char *text = parameters_text(&p);
    CHECK(strstr(text, "Negative") == NULL);
    CHECK(strncmp(text, "\nSteps: 0, Sampler: Euler", 24) == 0);
    xfree(text);
}

TEST(a_vae_that_is_not_the_models_is_named)
{
    const struct picture_parameters p = {.prompt = "",
                                         .scheduler = "euler",
                                         .model_name = "m",
                                         .model_digest = "d",
                                         .vae_name = "taesd, new"};
    char *text = parameters_text(&p);
    CHECK_STR(strstr(text, "Model: "),
              "Model: m, Weights digest: d, RNG: CPU, VAE: \"taesd, new\"");
    xfree(text);
}

TEST(controls_follow_the_model_only_when_they_are_used)
{
    struct picture_parameters p = {
        .prompt = "", .scheduler = "euler", .model_name = "m", .model_digest = "d"};
    const struct {
        bool tile_x, tile_y;
        const char *end;
    } cases[] = {{false, false, "Model: m, Weights digest: d, RNG: CPU"},
                 {true, true, "Model: m, Weights digest: d, RNG: CPU, Tiling: True"},
                 {true, false, "Model: m, Weights digest: d, RNG: CPU, Tile X: True"},
                 {false, true, "Model: m, Weights digest: d, RNG: CPU, Tile Y: True"}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        p.tile_x = cases[i].tile_x, p.tile_y = cases[i].tile_y;
        char *text = parameters_text(&p);
        CHECK_STR(strstr(text, "Model: "), cases[i].end);
        xfree(text);
    }
}

TEST(sampling_and_guidance_are_written_as_a1111_names_them)
{
    struct picture_parameters p = {.prompt = "",
                                   .scheduler = "dpmpp_2m",
                                   .sigmas = "karras",
                                   .guidance = 7,
                                   .model_name = "m",
                                   .model_digest = "d"};
    char *text = parameters_text(&p);
    CHECK_CONTAINS(text, "Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 7, Seed: 0");
    xfree(text);
    p.scheduler = "Euler a SGM Uniform", p.sigmas = NULL, p.timestep_spacing = "trailing";
    p.guidance_rescale = 0.7, p.guidance_start = 0.1, p.guidance_end = 0.8;
    text = parameters_text(&p);
    CHECK_CONTAINS(text,
                   "Sampler: Euler a, Schedule type: SGM Uniform, Timestep spacing: trailing, "
                   "CFG scale: 7, CFG rescale: 0.7, CFG start: 0.1, CFG end: 0.8, Seed: 0");
    xfree(text);
    p.scheduler = "ddim", p.timestep_spacing = "", p.eta = 0.5, p.guidance_rescale = 0;
    p.guidance_start = 0, p.guidance_end = 1;
    text = parameters_text(&p);
    CHECK_CONTAINS(text, "Sampler: DDIM, Eta: 0.5, CFG scale: 7, Seed: 0");
    xfree(text);
}

TEST(shortcuts_are_written_when_they_are_taken)
{
    struct picture_parameters p = {
        .prompt = "", .scheduler = "euler", .model_name = "m", .model_digest = "d"};
    p.cache_interval = 3, p.cache_branch_id = 1, p.tome_ratio = 0.5;
    char *text = parameters_text(&p);
    CHECK_CONTAINS(text, ", Cache interval: 3, Cache branch: 1, Token merging ratio: 0.5");
    xfree(text);
    p.cache_interval = 1, p.tome_ratio = 0;
    text = parameters_text(&p);
    CHECK(strstr(text, "Cache") == NULL && strstr(text, "Token") == NULL);
    xfree(text);
}

TEST(loras_stand_behind_the_prompt_and_their_hashes_at_the_end)
{
    struct picture_parameters p = {.prompt = "a cat",
                                   .scheduler = "euler",
                                   .model_name = "m",
                                   .model_digest = "d",
                                   .lora_tags = "<lora:a:0.8>",
                                   .lora_hashes = "a: 0123, b: 4567"};
    char *text = parameters_text(&p);
    CHECK(strncmp(text, "a cat <lora:a:0.8>\nSteps", 24) == 0);
    CHECK_CONTAINS(text, ", RNG: CPU, Lora hashes: \"a: 0123, b: 4567\"");
    xfree(text);
    p.lora_tags = "";
    p.lora_hashes = "";
    text = parameters_text(&p);
    CHECK(strncmp(text, "a cat\nSteps", 11) == 0);
    CHECK(strstr(text, "Lora") == NULL);
    xfree(text);
}

TEST_MAIN()
