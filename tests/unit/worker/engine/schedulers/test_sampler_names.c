/* Samplers are known by our names and by A1111's. */
#include "worker/engine/schedulers/sampler_names.h"

#include "tests/harness/test.h"
#include "worker/engine/schedulers/scheduler.h"

static void expect(const char *text, const char *name, const char *sigmas)
{
    const char *got_name = "none", *got_sigmas = "none";
    CHECK(sampler_names_parse(text, &got_name, &got_sigmas) == (strcmp(name, "none") != 0));
    CHECK_STR(got_name, name);
    CHECK_STR(got_sigmas, sigmas);
}

TEST(a1111_names_are_our_samplers_with_their_spacing)
{
    expect("dpmpp_2m", "dpmpp_2m", "");
    expect("DPM++ 2M", "dpmpp_2m", "");
    expect("DPM++ 2M Karras", "dpmpp_2m", "karras");
    expect("dpm++ 2m sde exponential", "dpmpp_2m_sde", "exponential");
    expect("DPM++ SDE Karras", "dpmpp_sde", "karras");
    expect("Euler a", "euler_ancestral", "");
    expect("Euler a SGM Uniform", "euler_ancestral", "sgm_uniform");
    expect("Euler SGM Uniform", "euler", "sgm_uniform");
    expect("PLMS", "pndm", "");
    expect("DPM2 a Karras", "dpm2_ancestral", "karras");
}

TEST(other_names_are_nobodys)
{
    expect("", "none", "none");
    expect(" ", "none", "none");
    expect("Euler ", "none", "none");
    expect("Euler b", "none", "none");
    expect("Karras", "none", "none");
    expect("Euler  Karras", "none", "none");
    expect("DPM++ 2M Karras Karras", "none", "none");
}

TEST(every_sampler_has_a_title_that_leads_back_to_it)
{
    for (const char *const *name = scheduler_names(); *name != NULL; name++) {
        CHECK(strcmp(sampler_names_title(*name), *name) != 0);
        expect(sampler_names_title(*name), *name, "");
    }
    CHECK_STR(sampler_names_title("other"), "other");
    CHECK_STR(sampler_names_sigmas_title("sgm_uniform"), "SGM Uniform");
    CHECK_STR(sampler_names_sigmas_title("other"), "other");
}

TEST_MAIN()
