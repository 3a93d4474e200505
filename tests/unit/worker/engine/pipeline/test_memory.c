#include "worker/engine/pipeline/memory.h"

#include "tests/harness/test.h"
#include "tests/support/scratch.h"

static struct scratch scratch;

static void write_file(const char *name, const char *text)
{
    scratch_write(&scratch, name, text, strlen(text));
}

static uint64_t limit(const char *membership)
{
    char path[1024];
    write_file("cgroup", membership);
    snprintf(path, sizeof(path), "%s/cgroup", scratch.dir);
    return memory_limit_of_groups(path, scratch.dir);
}

TEST(the_lowest_limit_on_the_way_up_counts)
{
    scratch_create(&scratch);
    write_file("memory.max", "max\n");
    write_file("pods/memory.max", "8000000000\n");
    write_file("pods/one/memory.max", "max\n");
    write_file("pods/two/memory.max", "3000000000\n");
    CHECK_INT(limit("0::/pods/one\n"), 8000000000);
    CHECK_INT(limit("0::/pods/two\n"), 3000000000);
    CHECK(limit("0::/\n") == UINT64_MAX);
    scratch_remove(&scratch);
}

TEST(a_group_that_cannot_be_seen_leaves_those_above_it)
{
    scratch_create(&scratch);
    write_file("memory.max", "5000000000\n");
    CHECK_INT(limit("0::/kubepods/not/here\n"), 5000000000);
    scratch_remove(&scratch);
}

TEST(version_1_has_a_folder_of_its_own)
{
    scratch_create(&scratch);
    write_file("memory/memory.limit_in_bytes", "9223372036854771712\n");
    write_file("memory/docker/one/memory.limit_in_bytes", "4000000000\n");
    write_file("docker/one/memory.max", "1000\n");
    CHECK_INT(limit("5:cpu,cpuacct:/\n4:memory:/docker/one\n1:name=systemd:/\n"), 4000000000);
    CHECK_INT(limit("5:cpu,memory:/docker/one\n"), 4000000000);
    CHECK(limit("4:memorial:/docker/one\n") == UINT64_MAX);
    scratch_remove(&scratch);
}

TEST(without_groups_the_machine_is_the_limit)
{
    CHECK(memory_limit_of_groups("/nonexistent", "/nonexistent") == UINT64_MAX);
    CHECK(memory_limit() > 1000000 && memory_limit() < (uint64_t)1 << 60);
}

TEST(what_is_resident_is_told)
{
    uint64_t anonymous, of_files;
    memory_resident(&anonymous, &of_files);
    CHECK(anonymous > 0 && of_files > 0);
}

TEST_MAIN()
