#include "gateway/picture_plan.h"

#include "common/base/panic.h"
#include "gateway/content_hash.h"
#include "tests/harness/test.h"

#define MODE(name) CRAFTERSE__V1__CACHE_MODE__CACHE_MODE_##name

static Crafterse__V1__Generation sample(uint64_t seed, uint32_t n)
{
    static char prompt[] = "a sword", model[] = "demo", scheduler[] = "ddim";
    Crafterse__V1__Generation generation;
    crafterse__v1__generation__init(&generation);
    generation.prompt = prompt;
    generation.model = model;
    generation.scheduler = scheduler;
    generation.width = generation.height = 64;
    generation.steps = 20;
    generation.seed = seed;
    generation.n = n;
    return generation;
}

/* The pictures of the order lie in the cache, as after its end. */
static void remember(struct picture_cache *cache, Crafterse__V1__Generation *generation)
{
    struct picture_plan plan;
    picture_plan_init(&plan, generation, "studio", true, MODE(EXACT));
    for (uint32_t i = 0; i < generation->n; i++) {
        snprintf(plan.pictures[i].object_key, sizeof(plan.pictures[i].object_key), "aa/%u.png", i);
        picture_cache_put(cache, &plan.pictures[i]);
    }
    picture_plan_deinit(&plan);
}

/* What `requests` tells of an order without a seed. */
static void learn(struct picture_cache *looks, Crafterse__V1__Generation *generation)
{
    struct picture_plan plan;
    Crafterse__V1__Job job = CRAFTERSE__V1__JOB__INIT;
    Crafterse__V1__Image image = CRAFTERSE__V1__IMAGE__INIT, *images = &image;
    picture_plan_init(&plan, generation, "studio", false, MODE(EXACT));
    image.content_hash = plan.pictures[0].content_hash;
    job.generation = generation;
    job.images = &images;
    job.n_images = 1;
    job.cache_key = plan.cache_key;
    picture_plan_learn(looks, &job);
    picture_plan_deinit(&plan);
}

struct fixture {
    struct picture_cache *cache, *looks;
};

static struct fixture open_caches(void)
{
    return (struct fixture){picture_cache_create(16), picture_cache_create(16)};
}

static void close_caches(struct fixture f)
{
    picture_cache_destroy(f.cache);
    picture_cache_destroy(f.looks);
}

TEST(the_same_order_with_the_same_seed_is_found)
{
    struct fixture f = open_caches();
    struct picture_plan plan;
    Crafterse__V1__Generation earlier = sample(7, 2), same = sample(7, 2), other = sample(8, 2);
    remember(f.cache, &earlier);
    picture_plan_init(&plan, &same, "studio", true, MODE(EXACT));
    CHECK(picture_plan_wants_pictures(&plan));
    REQUIRE(picture_plan_find(&plan, f.cache, f.looks));
    CHECK_STR(plan.pictures[1].object_key, "aa/1.png");
    picture_plan_deinit(&plan);
    picture_plan_init(&plan, &other, "studio", true, MODE(EXACT)); /* has one of the two pictures */
    CHECK(!picture_plan_find(&plan, f.cache, f.looks));
    CHECK_STR(plan.pictures[0].object_key, "");
    picture_plan_deinit(&plan);
    close_caches(f);
}

TEST(without_a_seed_only_any_seed_gets_an_earlier_picture)
{
    struct fixture f = open_caches();
    struct picture_plan plan;
    Crafterse__V1__Generation earlier = sample(1234, 1), exact = sample(7, 1), any = sample(8, 1);
    remember(f.cache, &earlier);
    learn(f.looks, &earlier);
    picture_plan_init(&plan, &exact, "studio", false, MODE(EXACT));
    CHECK(!picture_plan_wants_pictures(&plan));
    CHECK(plan.cache_key[0] != '\0'); /* later orders may find it */
    picture_plan_deinit(&plan);
    picture_plan_init(&plan, &any, "studio", false, MODE(ANY_SEED));
    CHECK(picture_plan_wants_pictures(&plan));
    REQUIRE(picture_plan_find(&plan, f.cache, f.looks));
    CHECK_INT(any.seed, 1234);
    CHECK_STR(plan.pictures[0].object_key, "aa/0.png");
    picture_plan_deinit(&plan);
    close_caches(f);
}

TEST(an_earlier_seed_is_taken_before_its_picture_is_there_so_that_both_share_a_run)
{
    struct fixture f = open_caches();
    struct picture_plan plan;
    Crafterse__V1__Generation earlier = sample(1234, 1), any = sample(8, 1);
    char hash[DIGEST_HEX_SIZE];
    learn(f.looks, &earlier);
    picture_plan_init(&plan, &any, "studio", false, MODE(ANY_SEED));
    CHECK(!picture_plan_find(&plan, f.cache, f.looks));
    content_hash(&earlier, "studio", 1234, hash);
    CHECK_STR(plan.pictures[0].content_hash, hash);
    picture_plan_deinit(&plan);
    close_caches(f);
}

TEST(a_given_seed_is_kept_whatever_the_mode)
{
    struct fixture f = open_caches();
    struct picture_plan plan;
    Crafterse__V1__Generation earlier = sample(1234, 1), given = sample(8, 1);
    remember(f.cache, &earlier);
    learn(f.looks, &earlier);
    picture_plan_init(&plan, &given, "studio", true, MODE(ANY_SEED));
    CHECK(!picture_plan_find(&plan, f.cache, f.looks));
    CHECK_INT(given.seed, 8);
    CHECK_STR(plan.cache_key, plan.pictures[0].content_hash);
    picture_plan_deinit(&plan);
    close_caches(f);
}

TEST(who_bypasses_is_neither_served_nor_remembered)
{
    struct picture_plan plan;
    Crafterse__V1__Generation generation = sample(7, 1);
    picture_plan_init(&plan, &generation, "studio", true, MODE(BYPASS));
    CHECK(!picture_plan_wants_pictures(&plan));
    CHECK_STR(plan.cache_key, "");
    picture_plan_deinit(&plan);
}

TEST(what_redis_says_is_taken_only_when_it_is_what_was_ordered)
{
    struct picture_plan plan, earlier;
    Crafterse__V1__Generation first = sample(1234, 2), any = sample(8, 2);
    picture_plan_init(&earlier, &first, "studio", true, MODE(EXACT));
    for (int i = 0; i < 2; i++) {
        snprintf(earlier.pictures[i].object_key, 16, "aa/%d.png", i);
    }
    picture_plan_init(&plan, &any, "studio", false, MODE(ANY_SEED));
    REQUIRE(picture_plan_accept(&plan, earlier.pictures));
    CHECK_INT(any.seed, 1234);
    CHECK_STR(plan.pictures[1].object_key, "aa/1.png");
    picture_plan_deinit(&plan);

    any.seed = 8;
    picture_plan_init(&plan, &any, "studio", false, MODE(ANY_SEED));
    earlier.pictures[1].content_hash[0] ^= 1; /* of something else */
    CHECK(!picture_plan_accept(&plan, earlier.pictures));
    CHECK_INT(any.seed, 8);
    earlier.pictures[1].content_hash[0] ^= 1;
    earlier.pictures[0].seed = UINT64_MAX;
    CHECK(!picture_plan_accept(&plan, earlier.pictures));
    CHECK_INT(any.seed, 8);
    picture_plan_deinit(&plan);

    picture_plan_init(&plan, &any, "studio", true, MODE(EXACT));
    CHECK(!picture_plan_accept(&plan, earlier.pictures));
    picture_plan_deinit(&plan);
    picture_plan_deinit(&earlier);
}

TEST(the_same_order_again_is_known_by_the_seed_that_it_got)
{
    struct picture_plan plan, got;
    Crafterse__V1__Generation again = sample(8, 1), drawn = sample(1234, 1);
    picture_plan_init(&got, &drawn, "studio", true, MODE(EXACT));
    picture_plan_init(&plan, &again, "studio", false, MODE(ANY_SEED));
    CHECK(picture_plan_matches(&plan, 0, &got.pictures[0]));
    got.pictures[0].content_hash[5] ^= 1;
    CHECK(!picture_plan_matches(&plan, 0, &got.pictures[0]));
    picture_plan_deinit(&plan);
    got.pictures[0].content_hash[5] ^= 1;
    picture_plan_init(&plan, &again, "studio", false, MODE(EXACT));
    CHECK(!picture_plan_matches(&plan, 0, &got.pictures[0]));
    picture_plan_deinit(&plan);
    picture_plan_deinit(&got);
}

TEST(looks_differ_by_everything_but_the_seed)
{
    char one[DIGEST_HEX_SIZE], two[DIGEST_HEX_SIZE];
    Crafterse__V1__Generation a = sample(1, 1), b = sample(2, 1);
    content_hash_of_look(&a, "studio", one);
    content_hash_of_look(&b, "studio", two);
    CHECK_STR(one, two);
    b.n = 2;
    content_hash_of_look(&b, "studio", two);
    CHECK(strcmp(one, two) != 0);
    b.n = 1;
    b.steps = 21;
    content_hash_of_look(&b, "studio", two);
    CHECK(strcmp(one, two) != 0);
}

TEST_MAIN()
