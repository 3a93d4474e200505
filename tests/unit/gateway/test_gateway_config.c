#include "gateway/gateway_config.h"

#include <stdlib.h>
#include <unistd.h>

#include "tests/harness/test.h"

static struct gateway_config config;

static int load(struct error *err)
{
    const struct config_option *const tables[] = {gateway_config_options};
    void *const structs[] = {&config};
    return config_load(tables, 1, structs, err);
}

static void unload(void)
{
    const struct config_option *const tables[] = {gateway_config_options};
    void *const structs[] = {&config};
    config_unload(tables, 1, structs);
}

/* The check's result with these settings; NULL leaves one unset. */
static int check_with(const char *auth, const char *embedded, const char *listen, struct error *err)
{
    const char *const names[] = {"CRAFTERSE_AUTH", "CRAFTERSE_EMBEDDED", "CRAFTERSE_HTTP_LISTEN"};
    const char *const values[] = {auth, embedded, listen};
    for (int i = 0; i < 3; i++) {
        if (values[i] != NULL) {
            setenv(names[i], values[i], 1);
        } else {
            unsetenv(names[i]);
        }
    }
    int result = load(err);
    if (result == 0) {
        result = gateway_config_check(&config, err);
        unload();
    }
    return result;
}

TEST(without_keys_only_an_embedded_gateway_on_loopback_starts)
{
    struct error err;
    CHECK_INT(check_with("off", "true", "127.0.0.1:0", &err), 0);
    CHECK_INT(check_with("off", "true", "127.8.9.1:80", &err), 0);
    CHECK_INT(check_with("off", "true", "[::1]:80", &err), 0);
    CHECK_INT(check_with("off", "true", "localhost:80", &err), 0);
    CHECK_INT(check_with("off", "false", "127.0.0.1:0", &err), STATUS_INVALID);
    CHECK_CONTAINS(err.text, "CRAFTERSE_EMBEDDED");
    CHECK_INT(check_with("off", NULL, NULL, &err), STATUS_INVALID);
    CHECK_INT(check_with("off", "true", ":8080", &err), STATUS_INVALID);
    CHECK_INT(check_with("off", "true", "0.0.0.0:8080", &err), STATUS_INVALID);
    CHECK_INT(check_with("off", "true", "10.0.0.1:8080", &err), STATUS_INVALID);
    CHECK_INT(check_with("off", "true", "example.org:8080", &err), STATUS_INVALID);
}

TEST(with_keys_the_file_must_be_there_and_right)
{
    struct error err;
    char path[] = "/tmp/crafterse_test_config_XXXXXX";
    CHECK_INT(check_with("keys", NULL, NULL, &err), STATUS_INVALID);
    CHECK_CONTAINS(err.text, "CRAFTERSE_API_KEYS_FILE");
    setenv("CRAFTERSE_API_KEYS_FILE", "/nowhere/api.keys", 1);
    CHECK_INT(check_with("keys", NULL, NULL, &err), STATUS_IO);
    int fd = mkstemp(path);
    REQUIRE(fd >= 0);
    setenv("CRAFTERSE_API_KEYS_FILE", path, 1);
    CHECK_INT(check_with("keys", NULL, NULL, &err), STATUS_INVALID);
    dprintf(fd, "a:%064d\n", 0);
    CHECK_INT(check_with("keys", NULL, ":8080", &err), 0);
    close(fd);
    unlink(path);
    unsetenv("CRAFTERSE_API_KEYS_FILE");
}

TEST(urls_and_limits_that_cannot_be_are_refused)
{
    struct error err;
    setenv("CRAFTERSE_PUBLIC_URL", "api.example", 1);
    CHECK_INT(check_with("off", "true", NULL, &err), STATUS_INVALID);
    CHECK_CONTAINS(err.text, "CRAFTERSE_PUBLIC_URL=api.example");
    setenv("CRAFTERSE_PUBLIC_URL", "https://api.example", 1);
    CHECK_INT(check_with("off", "true", NULL, &err), 0);
    setenv("CRAFTERSE_CDN_BASE_URL", "https://cdn.example/", 1);
    CHECK_INT(check_with("off", "true", NULL, &err), STATUS_INVALID);
    unsetenv("CRAFTERSE_CDN_BASE_URL");
    setenv("CRAFTERSE_JOBS_MAX", "100", 1);
    CHECK_INT(check_with("off", "true", NULL, &err), STATUS_INVALID);
    CHECK_CONTAINS(err.text, "JOBS_IN_FLIGHT_MAX");
    unsetenv("CRAFTERSE_JOBS_MAX");
    setenv("CRAFTERSE_HTTP_BODIES_MAX", "15MiB", 1); /* an input may have 8 */
    CHECK_INT(check_with("off", "true", NULL, &err), STATUS_INVALID);
    CHECK_CONTAINS(err.text, "HTTP_BODIES_MAX");
    unsetenv("CRAFTERSE_HTTP_BODIES_MAX");
    unsetenv("CRAFTERSE_PUBLIC_URL");
    CHECK_INT(check_with("off", "true", "nonsense", &err), STATUS_INVALID);
}

TEST_MAIN()
