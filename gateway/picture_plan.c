/* See picture_plan.h. */
#include "gateway/picture_plan.h"

#include <stdio.h>
#include <string.h>

#include "common/base/panic.h"
#include "gateway/content_hash.h"
#include "gateway/generation_request.h"

#define ANY_SEED CRAFTERSE__V1__CACHE_MODE__CACHE_MODE_ANY_SEED
#define BYPASS CRAFTERSE__V1__CACHE_MODE__CACHE_MODE_BYPASS

static void set_seed(struct picture_plan *plan, uint64_t seed)
{
    Crafterse__V1__Generation *generation = plan->generation;
    generation->seed = seed;
    for (uint32_t i = 0; i < generation->n; i++) {
        plan->pictures[i] = (struct picture){
            .seed = seed + i, .width = generation->width, .height = generation->height};
        content_hash(generation, plan->key_id, seed + i, plan->pictures[i].content_hash);
    }
}

static void name_order(struct picture_plan *plan)
{
    uint32_t n = plan->generation->n;
    const char **hashes = xcalloc(n, sizeof(*hashes));
    for (uint32_t i = 0; i < n; i++) {
        hashes[i] = plan->pictures[i].content_hash;
    }
    content_hash_of_order(hashes, n, plan->cache_key);
    xfree(hashes);
}

void picture_plan_init(struct picture_plan *plan, Crafterse__V1__Generation *generation,
                       const char *key_id, bool has_seed, Crafterse__V1__CacheMode cache)
{
    *plan = (struct picture_plan){
        .generation = generation, .key_id = key_id, .has_seed = has_seed, .cache = cache};
    plan->pictures = xcalloc(generation->n, sizeof(*plan->pictures));
    set_seed(plan, generation->seed);
    if (cache == BYPASS) {
        return;
    }
    if (has_seed) {
        name_order(plan);
    } else {
        content_hash_of_look(generation, key_id, plan->cache_key);
    }
}

void picture_plan_deinit(struct picture_plan *plan)
{
    xfree(plan->pictures);
    plan->pictures = NULL;
}

static bool may_have_any_seed(const struct picture_plan *plan)
{
    return plan->cache == ANY_SEED && !plan->has_seed;
}

bool picture_plan_wants_pictures(const struct picture_plan *plan)
{
    return plan->cache != BYPASS && (plan->has_seed || plan->cache == ANY_SEED);
}

bool picture_plan_find(struct picture_plan *plan, struct picture_cache *cache,
                       struct picture_cache *looks)
{
    struct picture earlier;
    uint32_t n = plan->generation->n;
    if (may_have_any_seed(plan) && picture_cache_get(looks, plan->cache_key, &earlier)) {
        set_seed(plan, earlier.seed);
    }
    struct picture *found = xcalloc(n, sizeof(*found));
    bool all_found = true;
    for (uint32_t i = 0; i < n && all_found; i++) {
        all_found = picture_cache_get(cache, plan->pictures[i].content_hash, &found[i]);
    }
    if (all_found) {
        memcpy(plan->pictures, found, n * sizeof(*found));
    }
    xfree(found);
    return all_found;
}

bool picture_plan_accept(struct picture_plan *plan, const struct picture *pictures)
{
    uint32_t n = plan->generation->n;
    uint64_t own_seed = plan->generation->seed;
    if (may_have_any_seed(plan) && pictures[0].seed <= GENERATION_SEED_MAX - n) {
        set_seed(plan, pictures[0].seed);
    }
    bool is_it = true;
    for (uint32_t i = 0; i < n; i++) {
        is_it = is_it && strcmp(plan->pictures[i].content_hash, pictures[i].content_hash) == 0;
    }
    if (is_it) {
        memcpy(plan->pictures, pictures, n * sizeof(*pictures));
    } else if (plan->generation->seed != own_seed) {
        set_seed(plan, own_seed);
    }
    return is_it;
}

bool picture_plan_matches(const struct picture_plan *plan, uint32_t index,
                          const struct picture *picture)
{
    char hash[DIGEST_HEX_SIZE];
    if (strcmp(plan->pictures[index].content_hash, picture->content_hash) == 0) {
        return true;
    }
    if (!may_have_any_seed(plan)) {
        return false;
    }
    content_hash(plan->generation, plan->key_id, picture->seed, hash);
    return strcmp(hash, picture->content_hash) == 0;
}

void picture_plan_learn(struct picture_cache *looks, const Crafterse__V1__Job *job)
{
    if (job->generation == NULL || job->n_images == 0 ||
        strcmp(job->cache_key, job->images[0]->content_hash) == 0) {
        return; /* the order had a seed of its own */
    }
    struct picture picture = {.object_key = "-", .seed = job->generation->seed};
    snprintf(picture.content_hash, sizeof(picture.content_hash), "%.64s", job->cache_key);
    picture_cache_put(looks, &picture);
}
