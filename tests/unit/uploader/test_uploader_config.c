/* Settings that do not fit together are told before anything starts, by name. */
#include "uploader/uploader_config.h"

#include "tests/harness/test.h"

static struct uploader_config folder_settings(void)
{
    return (struct uploader_config){.first = {.kind = "folder", .folder = "/tmp/x"},
                                    .second = {.kind = "none"},
                                    .object_prefix = ""};
}

static struct uploader_config s3_settings(void)
{
    return (struct uploader_config){.second = {.kind = "none"},
                                    .first.kind = "s3",
                                    .first.folder = "",
                                    .first.s3_endpoint = "https://example.com",
                                    .first.s3_region = "auto",
                                    .first.s3_bucket = "art",
                                    .first.s3_access_key_id = "id",
                                    .first.s3_secret_access_key = "secret",
                                    .object_prefix = ""};
}

static void check_refused(const struct uploader_config *config, const char *message)
{
    struct error err;
    CHECK_INT(uploader_config_check(config, &err), STATUS_INVALID);
    CHECK_CONTAINS(err.text, message);
    CHECK(strstr(err.text, "secret") == NULL);
}

TEST(what_fits_together_is_accepted)
{
    struct uploader_config folder = folder_settings(), s3 = s3_settings();
    CHECK_INT(uploader_config_check(&folder, NULL), 0);
    CHECK_INT(uploader_config_check(&s3, NULL), 0);
    s3.object_prefix = "art/v2.1/sprites_";
    CHECK_INT(uploader_config_check(&s3, NULL), 0);
}

TEST(a_folder_store_needs_its_folder)
{
    struct uploader_config config = folder_settings();
    config.first.folder = "";
    check_refused(&config, "CRAFTERSE_STORE_FOLDER");
}

TEST(an_s3_store_names_the_first_setting_that_is_missing)
{
    struct uploader_config config = s3_settings();
    config.first.s3_bucket = "";
    check_refused(&config, "CRAFTERSE_S3_BUCKET");
    config = s3_settings();
    config.first.s3_secret_access_key = "";
    config.first.s3_access_key_id = "";
    check_refused(&config, "CRAFTERSE_S3_ACCESS_KEY_ID");
    config = s3_settings();
    config.first.s3_endpoint = "example.com:bucket/x";
    check_refused(&config, "S3_ENDPOINT");
    config = s3_settings();
    config.first.s3_bucket = "art/sprites";
    check_refused(&config, "CRAFTERSE_OBJECT_PREFIX");
}

TEST(a_prefix_cannot_leave_its_place)
{
    const char *const bad[] = {"/art/",
                               "../art/",
                               "art/../x/",
                               "a//b/",
                               "art/.hidden/",
                               "a b/",
                               "art?",
                               "0123456789012345678901234567890123456789012345678901234567"
                               "890123456789/"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct uploader_config config = folder_settings();
        config.object_prefix = bad[i];
        check_refused(&config, "CRAFTERSE_OBJECT_PREFIX");
    }
}

TEST(a_second_store_is_checked_like_the_first_and_is_another_one)
{
    struct error err;
    struct uploader_config config = folder_settings();
    CHECK(!uploader_config_has_second(&config));
    config.second = (struct uploader_place){.kind = "folder", .folder = ""};
    CHECK(uploader_config_has_second(&config));
    CHECK_INT(uploader_config_check(&config, &err), STATUS_INVALID);
    CHECK(strstr(err.text, "CRAFTERSE_SECOND_STORE_FOLDER") != NULL);
    config.second.folder = "/tmp/x";
    CHECK_INT(uploader_config_check(&config, &err), STATUS_INVALID);
    CHECK(strstr(err.text, "first store once more") != NULL);
    config.second.folder = "/tmp/y";
    CHECK_INT(uploader_config_check(&config, &err), 0);
    config.second = s3_settings().first;
    config.second.s3_bucket = "";
    CHECK_INT(uploader_config_check(&config, &err), STATUS_INVALID);
    CHECK(strstr(err.text, "CRAFTERSE_SECOND_S3_BUCKET") != NULL);
}

TEST_MAIN()
