/* The pool that stores deliveries, over a folder store: what it hands back, how it waits for a
 * store that fails, and how it lets go. */
#include "uploader/upload_pool.h"

#include <semaphore.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "common/base/buf.h"
#include "common/base/clock.h"
#include "common/base/panic.h"
#include "common/bus/codec.h"
#include "common/obs/health.h"
#include "tests/harness/test.h"
#include "tests/support/scratch.h"

#define HASH_A "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
#define HASH_B "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"

/* What a process has once. */
static struct cache_writer *cache;
static struct store_health *health;
static struct upload_pool_metrics metrics;

struct fixture {
    struct scratch scratch;
    char objects[128];
    struct uploader_config config;
    struct upload_pool *pool;
    sem_t finished;
};

static void count_finished(void *user)
{
    sem_post(user);
}

static void setup(struct fixture *f)
{
    struct error err;
    memset(f, 0, sizeof(*f));
    scratch_create(&f->scratch);
    snprintf(f->objects, sizeof(f->objects), "%s/objects", f->scratch.dir);
    f->config = (struct uploader_config){.second = {.kind = "none"},
                                         .first.kind = "folder",
                                         .first.folder = f->objects,
                                         .object_prefix = "",
                                         .uploads = 2,
                                         .retry_max_ms = 100,
                                         .redis_url = ""};
    sem_init(&f->finished, 0, 0);
    if (cache == NULL) {
        CHECK_INT(cache_writer_create(&cache, "", 1000, &err), 0);
        metrics = upload_pool_metrics_create();
        health = store_health_create(1, 0, 100);
    }
}

static void start(struct fixture *f)
{
    struct error err;
    const struct upload_pool_options options = {.config = &f->config,
                                                .cache = cache,
                                                .health = health,
                                                .metrics = metrics,
                                                .finished = count_finished,
                                                .user = &f->finished};
    CHECK_INT(upload_pool_create(&f->pool, &options, &err), 0);
}

static void teardown(struct fixture *f)
{
    upload_pool_destroy(f->pool);
    sem_destroy(&f->finished);
    scratch_remove(&f->scratch);
}

/* Picture `index` of a job of two whose hashes these are. */
static struct delivery *make_delivery_of(char *job_id, char hashes[2][65], uint32_t index)
{
    static uint8_t png[] = "\x89PNG\r\n\x1a\n and the rest";
    Crafterse__V1__Envelope envelope = CRAFTERSE__V1__ENVELOPE__INIT;
    Crafterse__V1__Result result = CRAFTERSE__V1__RESULT__INIT;
    Crafterse__V1__Image images[2] = {CRAFTERSE__V1__IMAGE__INIT, CRAFTERSE__V1__IMAGE__INIT};
    Crafterse__V1__Image *pointers[2] = {&images[0], &images[1]};
    for (uint32_t i = 0; i < 2; i++) {
        images[i].index = i;
        images[i].content_hash = hashes[i];
    }
    envelope.job_id = job_id;
    result.envelope = &envelope;
    result.images = pointers;
    result.n_images = 2;
    result.image = &images[index];
    result.png = (ProtobufCBinaryData){.len = sizeof(png), .data = png};

    struct delivery *d = NULL;
    struct error err;
    size_t size = 0;
    uint8_t *bytes = codec_pack(&result.base, &size);
    struct record record = {.topic = "results", .key = job_id, .payload = bytes, .size = size};
    if (delivery_create(&d, &record, "", &err) != 0) {
        PANIC("%s", err.text);
    }
    xfree(bytes);
    return d;
}

static struct delivery *make_delivery(uint32_t index)
{
    static char job_id[] = "0192f3a4-0000-7000-8000-000000000001";
    static char hashes[2][65] = {HASH_A, HASH_B};
    return make_delivery_of(job_id, hashes, index);
}

/* How the delivery ended; -1 when it has not within the time. Destroys it. */
static int collect(struct fixture *f, int seconds, uint64_t sizes[2])
{
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += seconds;
    if (sem_timedwait(&f->finished, &until) != 0) {
        return -1;
    }
    struct delivery *d = upload_pool_collect(f->pool);
    int end = d != NULL ? (int)d->end : -1;
    if (d != NULL) {
        memcpy(sizes, d->sizes, 2 * sizeof(sizes[0]));
        memset(&d->record, 0, sizeof(d->record));
        delivery_destroy(d);
    }
    return end;
}

TEST(a_delivery_comes_back_stored_with_the_sizes_of_all_pictures)
{
    struct fixture f;
    uint64_t sizes[2];
    setup(&f);
    start(&f);
    CHECK(upload_pool_collect(f.pool) == NULL);
    upload_pool_submit(f.pool, make_delivery(0));
    CHECK_INT(collect(&f, 10, sizes), DELIVERY_STORED);
    upload_pool_submit(f.pool, make_delivery(1));
    CHECK_INT(collect(&f, 10, sizes), DELIVERY_STORED);
    CHECK(sizes[0] > 0 && sizes[0] == sizes[1]);
    teardown(&f);
}

TEST(a_job_whose_earlier_picture_is_gone_does_not_succeed)
{
    struct fixture f;
    uint64_t sizes[2];
    setup(&f);
    start(&f);
    upload_pool_submit(f.pool, make_delivery(1));
    CHECK_INT(collect(&f, 10, sizes), DELIVERY_MISSING);
    teardown(&f);
}

/* A file where the store wants a folder: it fails until the file goes. */
static void block(const struct fixture *f)
{
    FILE *file = fopen(f->objects, "w");
    CHECK(file != NULL);
    if (file != NULL) {
        fclose(file);
    }
}

TEST(a_store_that_fails_is_tried_until_it_works_and_readiness_tells)
{
    struct fixture f;
    uint64_t sizes[2];
    struct buf why;
    setup(&f);
    block(&f);
    start(&f);
    upload_pool_submit(f.pool, make_delivery(0));
    CHECK_INT(collect(&f, 1, sizes), -1);
    buf_init(&why, 4096);
    CHECK(!health_is_ready(&why));
    CHECK_CONTAINS(why.data, "store");
    buf_deinit(&why);
    unlink(f.objects);
    CHECK_INT(collect(&f, 10, sizes), DELIVERY_STORED);
    teardown(&f);
}

/* Until so many are held up: while one is tried again it is not. */
static bool holds_up(struct upload_pool *pool, size_t count)
{
    bool does = upload_pool_held_up(pool) == count;
    for (int i = 0; i < 1000 && !does; i++) {
        clock_sleep_ms(10);
        does = upload_pool_held_up(pool) == count;
    }
    return does;
}

/* A file where the folder of the keys in "aa" should be. */
TEST(a_picture_that_the_store_fails_with_holds_up_its_own_job_only)
{
    static char stubborn[] = "0192f3a4-0000-7000-8000-000000000002";
    static char other[] = "0192f3a4-0000-7000-8000-000000000003";
    static char stubborn_hashes[2][65] = {HASH_A, HASH_B}, other_hashes[2][65] = {HASH_B, HASH_A};
    struct fixture f;
    uint64_t sizes[2];
    char path[160];
    setup(&f);
    f.config.uploads = 1;
    mkdir(f.objects, 0777);
    snprintf(path, sizeof(path), "%s/aa", f.objects);
    FILE *file = fopen(path, "w");
    CHECK(file != NULL && fclose(file) == 0);
    start(&f);
    upload_pool_submit(f.pool, make_delivery_of(stubborn, stubborn_hashes, 0));
    upload_pool_submit(f.pool, make_delivery_of(stubborn, stubborn_hashes, 1));
    CHECK_INT(collect(&f, 1, sizes), -1);
    CHECK(holds_up(f.pool, 2));
    upload_pool_submit(f.pool, make_delivery_of(other, other_hashes, 0));
    CHECK_INT(collect(&f, 10, sizes), DELIVERY_STORED);
    CHECK(!health_is_ready(NULL));
    unlink(path);
    CHECK_INT(collect(&f, 10, sizes), DELIVERY_STORED);
    CHECK_INT(collect(&f, 10, sizes), DELIVERY_STORED);
    CHECK(sizes[0] > 0);
    CHECK(health_is_ready(NULL));
    teardown(&f);
}

TEST(in_a_hurry_what_is_not_stored_is_given_back)
{
    struct fixture f;
    uint64_t sizes[2];
    setup(&f);
    block(&f);
    start(&f);
    upload_pool_submit(f.pool, make_delivery(0));
    upload_pool_hurry(f.pool);
    CHECK_INT(collect(&f, 10, sizes), DELIVERY_ABANDONED);
    teardown(&f);
}

/* The first picture is given back, and the store works for the second: that is no end of the job.
 */
TEST(in_a_hurry_no_job_fails_for_a_picture_that_was_given_back)
{
    struct fixture f;
    uint64_t sizes[2];
    char path[160];
    setup(&f);
    mkdir(f.objects, 0777);
    snprintf(path, sizeof(path), "%s/aa", f.objects);
    FILE *file = fopen(path, "w");
    CHECK(file != NULL && fclose(file) == 0);
    start(&f);
    upload_pool_submit(f.pool, make_delivery(0));
    upload_pool_submit(f.pool, make_delivery(1));
    CHECK_INT(collect(&f, 1, sizes), -1);
    unlink(path);
    upload_pool_hurry(f.pool);
    CHECK_INT(collect(&f, 10, sizes), DELIVERY_ABANDONED);
    CHECK_INT(collect(&f, 10, sizes), DELIVERY_ABANDONED);
    teardown(&f);
}

TEST_MAIN()
