#include "worker/engine/schedulers/sampler_names.h"

#include <string.h>
#include <strings.h>

struct pair {
    const char *ours, *theirs;
};

static const struct pair samplers[] = {
    {"ddim", "DDIM"},
    {"ddpm", "DDPM"},
    {"pndm", "PLMS"},
    {"euler", "Euler"},
    {"euler_ancestral", "Euler a"},
    {"heun", "Heun"},
    {"dpm2", "DPM2"},
    {"dpm2_ancestral", "DPM2 a"},
    {"dpmpp_2m", "DPM++ 2M"},
    {"dpmpp_2m_sde", "DPM++ 2M SDE"},
    {"dpmpp_sde", "DPM++ SDE"},
    {"unipc", "UniPC"},
    {"lcm", "LCM"},
    {"tcd", "TCD"},
    {"lms", "LMS"},
    {"deis", "DEIS"},
};

static const struct pair spacings[] = {
    {"uniform", "Uniform"}, {"karras", "Karras"},           {"exponential", "Exponential"},
    {"beta", "Beta"},       {"sgm_uniform", "SGM Uniform"}, {"lu_lambdas", "Lu"},
};

#define SAMPLER_COUNT (sizeof(samplers) / sizeof(samplers[0]))
#define SPACING_COUNT (sizeof(spacings) / sizeof(spacings[0]))

static const char *find(const struct pair *pairs, size_t count, const char *text, size_t length)
{
    for (size_t i = 0; i < count; i++) {
        const char *both[] = {pairs[i].ours, pairs[i].theirs};
        for (int k = 0; k < 2; k++) {
            if (strlen(both[k]) == length && strncasecmp(both[k], text, length) == 0) {
                return pairs[i].ours;
            }
        }
    }
    return NULL;
}

bool sampler_names_parse(const char *text, const char **name, const char **sigmas)
{
    const char *whole = find(samplers, SAMPLER_COUNT, text, strlen(text));
    if (whole != NULL) {
        *name = whole;
        *sigmas = "";
        return true;
    }
    for (const char *space = strchr(text, ' '); space != NULL; space = strchr(space + 1, ' ')) {
        const char *sampler = find(samplers, SAMPLER_COUNT, text, (size_t)(space - text));
        const char *spacing = find(spacings, SPACING_COUNT, space + 1, strlen(space + 1));
        if (sampler != NULL && spacing != NULL) {
            *name = sampler;
            *sigmas = spacing;
            return true;
        }
    }
    return false;
}

static const char *title(const struct pair *pairs, size_t count, const char *text)
{
    for (size_t i = 0; i < count; i++) {
        if (strcmp(pairs[i].ours, text) == 0) {
            return pairs[i].theirs;
        }
    }
    return text;
}

const char *sampler_names_title(const char *text)
{
    return title(samplers, SAMPLER_COUNT, text);
}

const char *sampler_names_sigmas_title(const char *text)
{
    return title(spacings, SPACING_COUNT, text);
}
