#include "gateway/content_hash.h"

#include "tests/harness/test.h"

static Crafterse__V1__Generation sample(void)
{
    static char prompt[] = "a flaming obsidian sword";
    static char negative[] = "blurry";
    static char model[] = "demo", digest[] = "0123abcd", scheduler[] = "ddim";
    Crafterse__V1__Generation generation;
    crafterse__v1__generation__init(&generation);
    generation.prompt = prompt;
    generation.negative_prompt = negative;
    generation.width = 128;
    generation.height = 64;
    generation.steps = 20;
    generation.guidance_scale = 7.5;
    generation.model = model;
    generation.model_digest = digest;
    generation.scheduler = scheduler;
    generation.n = 1;
    return generation;
}

TEST(the_canonical_form_is_as_documented)
{
    Crafterse__V1__Generation generation = sample();
    struct buf out;
    struct error err;
    buf_init(&out, 4096);
    REQUIRE(content_hash_canonical(&generation, "studio", 42, &out, &err) == 0);
    CHECK_STR(out.data, "crafterse picture 1\n"
                        "model 0123abcd\n"
                        "size 128x64\n"
                        "steps 20\n"
                        "guidance 7.5\n"
                        "scheduler ddim\n"
                        "seed 42\n"
                        "format png\n"
                        "prompt 24\n"
                        "a flaming obsidian sword\n"
                        "negative 6\n"
                        "blurry\n");
    buf_deinit(&out);
}

/* printf '<the form above>' | sha256sum */
TEST(test_vectors)
{
    Crafterse__V1__Generation generation = sample();
    char hex[DIGEST_HEX_SIZE];
    content_hash(&generation, "studio", 42, hex);
    CHECK_STR(hex, "3f302451b85511658d55d58897b0c415f4c7fd05d5c3e4748450d5a450e4f2c1");
    generation.guidance_scale = 0.1;
    generation.negative_prompt[0] = '\0';
    content_hash(&generation, "studio", 9007199254740991ULL, hex);
    CHECK_STR(hex, "7e3a82d8245a74d6987dfcbf994174435e80810d4650276fd04ad82334688daa");
    generation.negative_prompt[0] = 'b';
}

TEST(everything_that_decides_the_picture_changes_the_hash)
{
    static char other[] = "other";
    Crafterse__V1__Generation generations[9];
    char hashes[10][DIGEST_HEX_SIZE];
    for (int i = 0; i < 9; i++) {
        generations[i] = sample();
    }
    generations[1].prompt = other;
    generations[2].negative_prompt = other;
    generations[3].width = 64;
    generations[4].height = 128;
    generations[5].steps = 21;
    generations[6].guidance_scale = 7.5000001;
    generations[7].model_digest = other;
    generations[8].scheduler = other;
    for (int i = 0; i < 9; i++) {
        content_hash(&generations[i], "studio", 1, hashes[i]);
    }
    content_hash(&generations[0], "studio", 2, hashes[9]);
    for (int i = 0; i < 10; i++) {
        for (int j = 0; j < i; j++) {
            CHECK(strcmp(hashes[i], hashes[j]) != 0);
        }
    }
}

TEST(every_control_changes_the_hash_and_is_written_when_set)
{
    static char karras[] = "karras", trailing[] = "trailing", digest[] = "d1", sha256[] = "5ha";
    Crafterse__V1__Generation g = sample(), generations[18];
    Crafterse__V1__Lora lora = CRAFTERSE__V1__LORA__INIT, *loras = &lora;
    Crafterse__V1__Input input = CRAFTERSE__V1__INPUT__INIT;
    lora.digest = digest;
    lora.weight = 0.5;
    input.sha256 = sha256;
    for (int i = 0; i < 18; i++) {
        generations[i] = g;
    }
    generations[1].sigmas = karras;
    generations[2].timestep_spacing = trailing;
    generations[3].eta = 1;
    generations[4].guidance_rescale = 0.7;
    generations[5].guidance_start = 0.2;
    generations[6].guidance_end = 0.2;
    generations[7].clip_skip = 1;
    generations[8].tile_x = true;
    generations[9].tile_y = true;
    generations[10].n_loras = 1;
    generations[10].loras = &loras;
    generations[11].init_image = &input;
    generations[12].mask_image = &input;
    generations[13].strength = 0.5;
    generations[14].mask_blur = 4;
    generations[15].cache_interval = 3;
    generations[16].cache_interval = 3;
    generations[16].cache_branch_id = 1;
    generations[17].tome_ratio = 0.5;
    char hashes[18][DIGEST_HEX_SIZE];
    for (int i = 0; i < 18; i++) {
        content_hash(&generations[i], "studio", 1, hashes[i]);
        for (int j = 0; j < i; j++) {
            CHECK(strcmp(hashes[i], hashes[j]) != 0);
        }
    }
    generations[0].preview = true; /* looks on, decides nothing */
    char with_preview[DIGEST_HEX_SIZE];
    content_hash(&generations[0], "studio", 1, with_preview);
    CHECK_STR(with_preview, hashes[0]);

    struct buf out;
    struct error err;
    buf_init(&out, 4096);
    generations[10].init_image = &input;
    generations[10].strength = 0.75;
    REQUIRE(content_hash_canonical(&generations[10], "studio", 42, &out, &err) == 0);
    CHECK_CONTAINS(out.data, "crafterse picture 2\n");
    CHECK_CONTAINS(out.data, "format png\nstrength 0.75\nowner studio\ninit-image 5ha\n"
                             "lora d1 0.5\nprompt 24\n");
    buf_deinit(&out);
}

TEST(what_is_drawn_from_a_keys_own_pictures_is_its_own)
{
    static char sha256[] = "5ha";
    Crafterse__V1__Generation plain = sample(), from_input = sample(), masked = sample();
    Crafterse__V1__Input input = CRAFTERSE__V1__INPUT__INIT;
    char own[DIGEST_HEX_SIZE], others[DIGEST_HEX_SIZE];
    input.sha256 = sha256;
    from_input.init_image = &input;
    masked.mask_image = &input;
    content_hash(&plain, "studio", 1, own);
    content_hash(&plain, "other", 1, others);
    CHECK_STR(own, others);
    content_hash(&from_input, "studio", 1, own);
    content_hash(&from_input, "other", 1, others);
    CHECK(strcmp(own, others) != 0);
    content_hash(&masked, "studio", 1, own);
    content_hash(&masked, "other", 1, others);
    CHECK(strcmp(own, others) != 0);
    content_hash_of_look(&from_input, "studio", own);
    content_hash_of_look(&from_input, "other", others);
    CHECK(strcmp(own, others) != 0);
}

TEST(how_many_pictures_are_ordered_does_not)
{
    Crafterse__V1__Generation one = sample(), four = sample();
    char a[DIGEST_HEX_SIZE], b[DIGEST_HEX_SIZE];
    four.n = 4;
    four.seed = 99;
    content_hash(&one, "studio", 7, a);
    content_hash(&four, "studio", 7, b);
    CHECK_STR(a, b);
}

TEST(a_text_cannot_imitate_another_line)
{
    static char trick[] = "a\nnegative 1\nb", plain[] = "a", b[] = "b";
    Crafterse__V1__Generation first = sample(), second = sample();
    char a[DIGEST_HEX_SIZE], c[DIGEST_HEX_SIZE];
    first.prompt = trick;
    second.prompt = plain;
    second.negative_prompt = b;
    content_hash(&first, "studio", 7, a);
    content_hash(&second, "studio", 7, c);
    CHECK(strcmp(a, c) != 0);
}

TEST_MAIN()
