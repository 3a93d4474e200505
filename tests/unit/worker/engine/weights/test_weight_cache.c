#include "worker/engine/weights/weight_cache.h"

#include <dirent.h>
#include <sys/wait.h>

#include "common/base/panic.h"
#include "tests/harness/test.h"
#include "tests/support/scratch.h"
#include "worker/engine/weights/weight_cache_file.h"

#define BLOBS 5

static const size_t sizes[BLOBS] = {1, 64, 4097, 100000, 3};

static void name_of(int i, char name[32])
{
    snprintf(name, 32, "unet.layer.%d", i);
}

static unsigned char byte_of(int i, size_t at)
{
    return (unsigned char)(at * 7 + (size_t)i * 31 + 1);
}

/* Ask for all blobs as a model does, filling what is not there. Returns how many were. */
static int pack(struct weight_cache *cache)
{
    int made = 0;
    for (int i = 0; i < BLOBS; i++) {
        char name[32];
        bool is_made;
        name_of(i, name);
        unsigned char *blob = weight_cache_room(cache, name, sizes[i], &is_made);
        CHECK(blob != NULL && (uintptr_t)blob % 64 == 0);
        for (size_t at = 0; !is_made && at < sizes[i]; at++) {
            blob[at] = byte_of(i, at);
        }
        for (size_t at = 0; at < sizes[i]; at++) {
            if (blob[at] != byte_of(i, at)) {
                CHECK(false);
                break;
            }
        }
        made += is_made;
    }
    weight_cache_finish(cache);
    return made;
}

/* One start. Returns how many blobs were there. */
static int start(const char *folder, const char *identity, uint64_t limit)
{
    struct weight_cache *cache = weight_cache_open(folder, identity, limit);
    int made = pack(cache);
    weight_cache_close(cache);
    return made;
}

/* The number of files with that ending; the path of one. */
static int find(const char *folder, const char *ending, char path[PATH_MAX])
{
    int count = 0;
    DIR *opened = opendir(folder);
    for (struct dirent *entry; opened != NULL && (entry = readdir(opened)) != NULL;) {
        size_t length = strlen(entry->d_name), tail = strlen(ending);
        if (length > tail && strcmp(entry->d_name + length - tail, ending) == 0) {
            snprintf(path, PATH_MAX, "%s/%s", folder, entry->d_name);
            count++;
        }
    }
    if (opened != NULL) {
        closedir(opened);
    }
    return count;
}

TEST(what_one_start_packed_the_next_one_maps)
{
    struct scratch scratch;
    char path[PATH_MAX], folder[PATH_MAX];
    size_t mapped, anonymous;
    scratch_create(&scratch);
    snprintf(folder, sizeof(folder), "%s/made/on/the/way", scratch.dir);
    struct weight_cache *cache = weight_cache_open(folder, "model a", 0);
    CHECK_INT(pack(cache), 0);
    CHECK(!weight_cache_is_amiss(cache));
    CHECK_CONTAINS(weight_cache_note(cache), "being written to");
    weight_cache_close(cache);
    CHECK_INT(find(folder, ".packed", path), 1);
    CHECK_INT(find(folder, ".part", path), 0);

    cache = weight_cache_open(folder, "model a", 0);
    CHECK_INT(pack(cache), BLOBS);
    CHECK_CONTAINS(weight_cache_note(cache), "read from");
    weight_cache_bytes(cache, &mapped, &anonymous);
    CHECK_INT(mapped, 1 + 64 + 4097 + 100000 + 3);
    CHECK_INT(anonymous, 0);
    weight_cache_close(cache);

    CHECK_INT(start(folder, "model b", 0), 0);
    CHECK_INT(start(folder, "model a", 0), BLOBS);
    CHECK_INT(start(folder, "model b", 0), BLOBS);
    scratch_remove(&scratch);
}

TEST(without_a_folder_everything_is_packed_into_memory)
{
    size_t mapped, anonymous;
    const char *const nowhere[] = {NULL, "", "/dev/null/folder"};
    for (size_t i = 0; i < 3; i++) {
        struct weight_cache *cache = weight_cache_open(nowhere[i], "model", 0);
        CHECK_INT(pack(cache), 0);
        CHECK(weight_cache_is_amiss(cache) == (i == 2));
        CHECK_CONTAINS(weight_cache_note(cache),
                       i == 2 ? "/dev/null/folder: Not a directory" : "no folder");
        weight_cache_bytes(cache, &mapped, &anonymous);
        CHECK_INT(mapped, 0);
        CHECK_INT(anonymous, 104165);
        weight_cache_close(cache);
    }
}

/* What may have happened to a file: cut to size, when that is not 0; one byte flipped. */
static void damage(const char *path, off_t size, off_t flip)
{
    if (size > 0) {
        CHECK_INT(truncate(path, size), 0);
        return;
    }
    FILE *file = fopen(path, "r+b");
    REQUIRE(file != NULL);
    fseek(file, flip, SEEK_SET);
    int byte = fgetc(file);
    fseek(file, flip, SEEK_SET);
    fputc(byte ^ 0x40, file);
    fclose(file);
}

TEST(a_damaged_file_is_made_anew)
{
    struct scratch scratch;
    char path[PATH_MAX];
    struct stat info;
    scratch_create(&scratch);
    CHECK_INT(start(scratch.dir, "model", 0), 0);
    CHECK_INT(find(scratch.dir, ".packed", path), 1);
    CHECK_INT(stat(path, &info), 0);
    const off_t page = 4096, large = 5 * page, last = large + 25 * page; /* where blobs begin */
    const struct {
        off_t size, flip;
    } cases[] = {{1, 0},
                 {WEIGHT_CACHE_HEADER_BYTES, 0},
                 {info.st_size - 1, 0},
                 {0, 0},                                                  /* magic */
                 {0, offsetof(struct weight_cache_header, identity)},     /* identity */
                 {0, offsetof(struct weight_cache_header, table_offset)}, /* table_offset */
                 {0, info.st_size - 10},                                  /* table */
                 {0, page},
                 {0, large},
                 {0, large + 99999},
                 {0, last + 2}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        damage(path, cases[i].size, cases[i].flip);
        CHECK_INT(start(scratch.dir, "model", 0), 0);
        CHECK_INT(start(scratch.dir, "model", 0), BLOBS);
    }
    CHECK_INT(unlink(path), 0);
    CHECK_INT(symlink("/etc/passwd", path), 0); /* somebody's, not followed */
    CHECK_INT(start(scratch.dir, "model", 0), 0);
    CHECK_INT(start(scratch.dir, "model", 0), BLOBS);
    CHECK_INT(unlink(path), 0);
    CHECK_INT(mkfifo(path, 0600), 0); /* which nobody writes: not waited for */
    CHECK_INT(start(scratch.dir, "model", 0), 0);
    CHECK_INT(start(scratch.dir, "model", 0), BLOBS);
    scratch_remove(&scratch);
}

TEST(a_file_that_lacks_a_blob_is_removed_and_the_blob_packed)
{
    struct scratch scratch;
    char path[PATH_MAX];
    bool is_made;
    scratch_create(&scratch);
    CHECK_INT(start(scratch.dir, "model", 0), 0);
    struct weight_cache *cache = weight_cache_open(scratch.dir, "model", 0);
    CHECK(weight_cache_room(cache, "unet.layer.0", 1, &is_made) != NULL && is_made);
    unsigned char *other = weight_cache_room(cache, "unet.layer.1", 65, &is_made);
    CHECK(!is_made);
    memset(other, 1, 65);
    CHECK(weight_cache_room(cache, "unet.layer.2", sizes[2], &is_made) != NULL && is_made);
    weight_cache_finish(cache);
    CHECK(weight_cache_is_amiss(cache));
    CHECK_CONTAINS(weight_cache_note(cache), "lacks unet.layer.1 of 65 bytes");
    weight_cache_close(cache);
    CHECK_INT(find(scratch.dir, ".packed", path), 0);
    scratch_remove(&scratch);
}

TEST(a_start_that_fails_leaves_nothing)
{
    struct scratch scratch;
    char path[PATH_MAX];
    bool is_made;
    scratch_create(&scratch);
    struct weight_cache *cache = weight_cache_open(scratch.dir, "model", 0);
    CHECK(weight_cache_room(cache, "unet.layer.0", 1, &is_made) != NULL);
    weight_cache_close(cache);
    CHECK_INT(find(scratch.dir, ".packed", path), 0);
    CHECK_INT(find(scratch.dir, ".part", path), 0);
    CHECK_INT(start(scratch.dir, "model", 0), 0);
    scratch_remove(&scratch);
}

TEST(what_is_too_large_goes_on_in_memory)
{
    struct scratch scratch;
    char path[PATH_MAX];
    size_t mapped, anonymous;
    scratch_create(&scratch);
    struct weight_cache *cache = weight_cache_open(scratch.dir, "model", 50000);
    CHECK_INT(pack(cache), 0); /* with the right bytes in each blob, those of the file too */
    CHECK(weight_cache_is_amiss(cache));
    CHECK_CONTAINS(weight_cache_note(cache), "take more than the cache may");
    weight_cache_bytes(cache, &mapped, &anonymous);
    CHECK_INT(mapped, 1 + 64 + 4097);
    CHECK_INT(anonymous, 100003);
    weight_cache_close(cache);
    CHECK_INT(find(scratch.dir, ".packed", path), 0);
    CHECK_INT(find(scratch.dir, ".part", path), 0);
    scratch_remove(&scratch);
}

TEST(the_longest_unused_files_go_when_there_are_too_many)
{
    struct scratch scratch;
    char path[PATH_MAX], identity[16];
    scratch_create(&scratch);
    for (int i = 0; i < 4; i++) {
        snprintf(identity, sizeof(identity), "model %d", i);
        CHECK_INT(start(scratch.dir, identity, 300000), 0);
        usleep(20000); /* the age is a file's time */
        CHECK_INT(start(scratch.dir, "model 0", 300000), BLOBS);
        usleep(20000);
    }
    CHECK_INT(find(scratch.dir, ".packed", path), 2);
    CHECK_INT(start(scratch.dir, "model 3", 300000), BLOBS);
    CHECK_INT(start(scratch.dir, "model 2", 300000), 0);
    scratch_remove(&scratch);
}

TEST(two_processes_that_start_together_share_one_file)
{
    struct scratch scratch;
    int pipes[2];
    char byte;
    scratch_create(&scratch);
    REQUIRE(pipe(pipes) == 0);
    pid_t child = fork();
    if (child == 0) {
        struct weight_cache *cache = weight_cache_open(scratch.dir, "model", 0);
        ASSERT(write(pipes[1], "x", 1) == 1); /* it holds the lock */
        usleep(200000);
        (void)pack(cache);
        weight_cache_close(cache);
        _exit(0);
    }
    REQUIRE(read(pipes[0], &byte, 1) == 1);
    CHECK_INT(start(scratch.dir, "model", 0), BLOBS);
    waitpid(child, NULL, 0);
    close(pipes[0]), close(pipes[1]);
    scratch_remove(&scratch);
}

TEST(the_default_place_is_where_the_system_keeps_such_things)
{
    char path[PATH_MAX], small[8];
    setenv("HOME", "/people/x", 1);
    unsetenv("XDG_CACHE_HOME");
    unsetenv("CRAFTERSE_CACHE_FOLDER");
    weight_cache_default_folder(path, sizeof(path));
    CHECK_STR(path, "/people/x/.cache/crafterse");
    setenv("XDG_CACHE_HOME", "/var/cache", 1);
    weight_cache_default_folder(path, sizeof(path));
    CHECK_STR(path, "/var/cache/crafterse");
    setenv("CRAFTERSE_CACHE_FOLDER", "/data", 1);
    weight_cache_default_folder(path, sizeof(path));
    CHECK_STR(path, "/data");
    setenv("CRAFTERSE_CACHE_FOLDER", "/data/longer", 1);
    weight_cache_default_folder(small, sizeof(small));
    CHECK_STR(small, "");
}

TEST_MAIN()
