/* The folder store: objects appear whole, once, and stay as they were first written. */
#include "uploader/folder_store.h"

#include <dirent.h>
#include <errno.h>
#include <stdbool.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "tests/harness/test.h"
#include "tests/support/scratch.h"

#define KEY "pictures/ab/abcdef.png"

static bool no_folder_syncs;

/* In place of the C library's. */
int fsync(int fd)
{
    struct stat info;
    if (no_folder_syncs && fstat(fd, &info) == 0 && S_ISDIR(info.st_mode)) {
        errno = EIO;
        return -1;
    }
    return (int)syscall(SYS_fsync, fd);
}

struct fixture {
    struct scratch scratch;
    struct store *store;
    struct store_result result;
    struct error err;
};

static void setup(struct fixture *f)
{
    memset(f, 0, sizeof(*f));
    scratch_create(&f->scratch);
    f->store = folder_store_create(f->scratch.dir, true);
}

static void teardown(struct fixture *f)
{
    store_destroy(f->store);
    scratch_remove(&f->scratch);
}

static int put_text(struct fixture *f, const char *key, const char *text)
{
    return store_put(f->store, key, text, strlen(text), &f->result, &f->err);
}

static void check_content(struct fixture *f, const char *key, const char *expected)
{
    char path[256], content[256] = "";
    snprintf(path, sizeof(path), "%s/%s", f->scratch.dir, key);
    FILE *file = fopen(path, "r");
    CHECK(file != NULL);
    if (file != NULL) {
        content[fread(content, 1, sizeof(content) - 1, file)] = '\0';
        fclose(file);
    }
    CHECK_STR(content, expected);
}

static int files_in(struct fixture *f, const char *name)
{
    char path[256];
    snprintf(path, sizeof(path), "%s/%s", f->scratch.dir, name);
    DIR *folder = opendir(path);
    int count = 0;
    while (folder != NULL && readdir(folder) != NULL) {
        count++;
    }
    if (folder != NULL) {
        closedir(folder);
    }
    return count - 2;
}

TEST(an_object_is_a_file_under_its_key)
{
    struct fixture f;
    setup(&f);
    CHECK_INT(put_text(&f, KEY, "picture"), 0);
    CHECK_INT(f.result.outcome, STORE_CREATED);
    CHECK_INT(f.result.size, 7);
    check_content(&f, KEY, "picture");
    CHECK_INT(files_in(&f, ".incoming"), 0);
    teardown(&f);
}

TEST(the_same_object_again_exists)
{
    struct fixture f;
    setup(&f);
    CHECK_INT(put_text(&f, KEY, "picture"), 0);
    CHECK_INT(put_text(&f, KEY, "picture"), 0);
    CHECK_INT(f.result.outcome, STORE_EXISTS);
    CHECK_INT(f.result.size, 7);
    teardown(&f);
}

TEST(a_name_that_is_not_synced_is_no_success)
{
    struct fixture f;
    setup(&f);
    CHECK_INT(put_text(&f, "pictures/ab/other.png", "picture"), 0);
    no_folder_syncs = true;
    CHECK_INT(put_text(&f, KEY, "picture"), STATUS_IO);
    CHECK_INT(put_text(&f, KEY, "picture"), STATUS_IO); /* it has its name, for now */
    no_folder_syncs = false;
    CHECK_INT(put_text(&f, KEY, "picture"), 0);
    CHECK_INT(f.result.outcome, STORE_EXISTS);
    teardown(&f);
}

TEST(other_bytes_under_a_taken_key_change_nothing)
{
    struct fixture f;
    setup(&f);
    CHECK_INT(put_text(&f, KEY, "picture"), 0);
    CHECK_INT(put_text(&f, KEY, "pictures, longer"), 0);
    CHECK_INT(f.result.outcome, STORE_DIFFERS);
    CHECK_INT(f.result.size, 7);
    CHECK_INT(put_text(&f, KEY, "PICTURE"), 0);
    CHECK_INT(f.result.outcome, STORE_DIFFERS);
    check_content(&f, KEY, "picture");
    teardown(&f);
}

TEST(the_size_of_an_object_is_known_and_a_missing_one_is_not_found)
{
    struct fixture f;
    uint64_t size = 0;
    setup(&f);
    CHECK_INT(store_size(f.store, KEY, &size, &f.err), STATUS_NOT_FOUND);
    CHECK_INT(put_text(&f, KEY, "12345"), 0);
    CHECK_INT(store_size(f.store, KEY, &size, &f.err), 0);
    CHECK_INT(size, 5);
    teardown(&f);
}

TEST(check_makes_the_folder)
{
    struct fixture f;
    setup(&f);
    char path[128];
    snprintf(path, sizeof(path), "%s/new/objects", f.scratch.dir);
    struct store *store = folder_store_create(path, false);
    CHECK_INT(store_check(store, &f.err), 0);
    CHECK_INT(access(path, F_OK), 0);
    store_destroy(store);
    teardown(&f);
}

TEST(a_file_in_the_way_is_an_error_that_names_it)
{
    struct fixture f;
    setup(&f);
    CHECK_INT(put_text(&f, "pictures", "a file, not a folder"), 0);
    CHECK(put_text(&f, KEY, "picture") < 0);
    CHECK_CONTAINS(f.err.text, "pictures");
    CHECK_INT(files_in(&f, ".incoming"), 0);
    teardown(&f);
}

TEST(a_folder_that_may_not_be_written_wants_an_operator)
{
    struct fixture f;
    if (geteuid() == 0) {
        SKIP("root may write everywhere");
    }
    setup(&f);
    chmod(f.scratch.dir, 0555);
    CHECK_INT(store_check(f.store, &f.err), STATUS_DENIED);
    CHECK(!f.err.retriable);
    chmod(f.scratch.dir, 0755);
    teardown(&f);
}

TEST(an_empty_object_is_an_object)
{
    struct fixture f;
    setup(&f);
    CHECK_INT(put_text(&f, KEY, ""), 0);
    CHECK_INT(put_text(&f, KEY, ""), 0);
    CHECK_INT(f.result.outcome, STORE_EXISTS);
    teardown(&f);
}

TEST_MAIN()
