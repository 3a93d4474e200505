#include "uploader/store_pair.h"

#include <pthread.h>
#include <semaphore.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/panic.h"
#include "tests/harness/test.h"

#define OBJECTS_MAX 8
#define PATIENCE_MS 80
#define PAUSE_MS 20

/* A store in memory that fails as it is told. */
struct memory_store {
    struct store store;
    int fails; /* a status, or 0 */
    bool retriable;
    bool hangs; /* a put, until it is told otherwise */
    sem_t hung, released;
    int calls;
    size_t count;
    char keys[OBJECTS_MAX][32];
    char bodies[OBJECTS_MAX][32];
};

static struct memory_store *from_store(struct store *s)
{
    return (struct memory_store *)(void *)s;
}

static int fail(struct memory_store *m, struct error *err)
{
    m->calls++;
    return m->fails == 0 ? 0
                         : error_set(err, (enum status)m->fails, m->retriable, __FILE__, __LINE__,
                                     "told to fail");
}

static size_t find(const struct memory_store *m, const char *key)
{
    size_t i = 0;
    while (i < m->count && strcmp(m->keys[i], key) != 0) {
        i++;
    }
    return i;
}

static int put(struct store *s, const char *key, const void *data, size_t size,
               struct store_result *result, struct error *err)
{
    struct memory_store *m = from_store(s);
    size_t i = find(m, key);
    if (m->hangs) {
        sem_post(&m->hung);
        sem_wait(&m->released);
    }
    int rc = fail(m, err);
    if (rc != 0) {
        return rc;
    }
    *result =
        (struct store_result){.outcome = i < m->count ? STORE_EXISTS : STORE_CREATED, .size = size};
    if (i == m->count) {
        snprintf(m->keys[i], sizeof(m->keys[i]), "%s", key);
        memcpy(m->bodies[m->count++], data, size);
    }
    return 0;
}

static int size_of(struct store *s, const char *key, uint64_t *size, struct error *err)
{
    struct memory_store *m = from_store(s);
    size_t i = find(m, key);
    int rc = fail(m, err);
    if (rc == 0 && i == m->count) {
        return ERROR(err, STATUS_NOT_FOUND, "no %s", key);
    }
    *size = rc == 0 ? strlen(m->bodies[i]) : 0;
    return rc;
}

static int get(struct store *s, const char *key, void **data, size_t *size, struct error *err)
{
    struct memory_store *m = from_store(s);
    uint64_t bytes = 0;
    int rc = size_of(s, key, &bytes, err);
    if (rc == 0) {
        *data = xstrdup(m->bodies[find(m, key)]);
        *size = (size_t)bytes;
    }
    return rc;
}

static int check(struct store *s, struct error *err)
{
    return fail(from_store(s), err);
}

static void destroy(struct store *s)
{
    (void)s;
}

static const struct store_operations operations = {
    .put = put, .size = size_of, .get = get, .check = check, .destroy = destroy};

struct fixture {
    struct memory_store first, second;
    struct store_pair pair;
};

/* Metrics are made once a process, so there is one health; each test begins with well stores. */
static void set_up(struct fixture *f)
{
    static struct store_health *health;
    struct error err;
    if (health == NULL) {
        health = store_health_create(2, PATIENCE_MS, PAUSE_MS);
    }
    memset(f, 0, sizeof(*f));
    f->first.store.operations = f->second.store.operations = &operations;
    f->pair = (struct store_pair){.stores = {&f->first.store, &f->second.store}, .health = health};
    CHECK_INT(store_pair_check(&f->pair, &err), 0);
    f->first.calls = f->second.calls = 0;
}

static int put_one(struct fixture *f, const char *key, struct store_pair_result *result)
{
    struct error err;
    const struct store_object object = {.key = key, .data = "body", .size = 5};
    return store_pair_put(&f->pair, &object, result, &err);
}

static void fail_with(struct memory_store *m, int status, bool retriable)
{
    m->fails = status;
    m->retriable = retriable;
}

TEST(what_is_stored_is_stored_twice)
{
    struct fixture f;
    struct store_pair_result result;
    set_up(&f);
    CHECK_INT(put_one(&f, "a", &result), 0);
    CHECK_INT(result.lacks, STORE_PAIR_NEITHER);
    CHECK_INT(result.stored.outcome, STORE_CREATED);
    CHECK_INT(f.first.count, 1);
    CHECK_INT(f.second.count, 1);
}

TEST(the_second_is_not_waited_for)
{
    struct fixture f;
    struct store_pair_result result;
    set_up(&f);
    fail_with(&f.second, STATUS_UNAVAILABLE, true);
    CHECK_INT(put_one(&f, "a", &result), 0);
    CHECK_INT(result.lacks, STORE_PAIR_SECOND);
    CHECK_INT(put_one(&f, "b", &result), 0); /* at once: the second is left alone */
    CHECK_INT(result.lacks, STORE_PAIR_SECOND);
    CHECK_INT(f.second.calls, 1);
    clock_sleep_ms(PAUSE_MS + 5);
    fail_with(&f.second, 0, true);
    CHECK_INT(put_one(&f, "c", &result), 0);
    CHECK_INT(result.lacks, STORE_PAIR_NEITHER);
}

TEST(the_first_is_waited_for_with_patience_and_then_the_second_is_enough)
{
    struct fixture f;
    struct store_pair_result result;
    set_up(&f);
    fail_with(&f.first, STATUS_DENIED, false);
    CHECK_INT(put_one(&f, "a", &result), STATUS_DENIED);
    CHECK_INT(f.second.count, 1); /* it is there already */
    clock_sleep_ms(PATIENCE_MS + 5);
    CHECK_INT(put_one(&f, "a", &result), 0);
    CHECK_INT(result.lacks, STORE_PAIR_FIRST);
    CHECK_INT(result.stored.outcome, STORE_EXISTS);
    int calls = f.first.calls;
    CHECK_INT(put_one(&f, "b", &result), 0); /* it costs no more time */
    CHECK_INT(f.first.calls, calls);
    clock_sleep_ms(PAUSE_MS + 5);
    fail_with(&f.first, 0, true);
    CHECK_INT(put_one(&f, "c", &result), 0);
    CHECK_INT(result.lacks, STORE_PAIR_NEITHER);
    CHECK_INT(f.first.count, 1);
}

TEST(an_object_that_the_first_fails_with_alone_is_not_tried_for_ever)
{
    struct fixture f;
    struct store_pair_result result;
    struct error err;
    set_up(&f);
    struct store_object object = {.key = "a", .data = "body", .size = 5};
    object.failing_since_ms = clock_monotonic_ms();
    CHECK_INT(put_one(&f, "b", &result), 0); /* the store is well */
    fail_with(&f.first, STATUS_UNAVAILABLE, true);
    CHECK_INT(store_pair_put(&f.pair, &object, &result, &err), STATUS_UNAVAILABLE);
    fail_with(&f.first, 0, true);
    clock_sleep_ms(PATIENCE_MS + 5);
    CHECK_INT(put_one(&f, "c", &result), 0);
    fail_with(&f.first, STATUS_UNAVAILABLE, true);
    CHECK_INT(store_pair_put(&f.pair, &object, &result, &err), 0);
    CHECK_INT(result.lacks, STORE_PAIR_FIRST);
}

TEST(with_both_away_nothing_is_stored_and_the_first_says_why)
{
    struct fixture f;
    struct store_pair_result result;
    set_up(&f);
    fail_with(&f.first, STATUS_TIMEOUT, true);
    fail_with(&f.second, STATUS_UNAVAILABLE, true);
    CHECK_INT(put_one(&f, "a", &result), STATUS_TIMEOUT);
    clock_sleep_ms(PATIENCE_MS + 5);
    CHECK_INT(put_one(&f, "a", &result), STATUS_TIMEOUT);
}

TEST(an_object_that_is_too_large_is_nobodys_fault)
{
    struct fixture f;
    struct store_pair_result result;
    set_up(&f);
    fail_with(&f.first, STATUS_TOO_LARGE, false);
    CHECK_INT(put_one(&f, "a", &result), STATUS_TOO_LARGE);
    fail_with(&f.first, 0, false);
    CHECK_INT(put_one(&f, "b", &result), 0);
    CHECK_INT(result.lacks, STORE_PAIR_NEITHER);
}

TEST(what_only_the_second_has_is_found_and_copied_back)
{
    struct fixture f;
    struct store_pair_result result;
    struct error err;
    uint64_t size = 0;
    int lacks = STORE_PAIR_NEITHER;
    set_up(&f);
    fail_with(&f.first, STATUS_UNAVAILABLE, true);
    CHECK_INT(put_one(&f, "a", &result), STATUS_UNAVAILABLE);
    CHECK_INT(store_pair_size(&f.pair, "a", &size, &lacks, &err), 0);
    CHECK_INT(lacks, STORE_PAIR_FIRST);
    CHECK_INT(store_pair_repair(&f.pair, "a", STORE_PAIR_FIRST, &err), STATUS_UNAVAILABLE);
    clock_sleep_ms(PAUSE_MS + 5);
    fail_with(&f.first, 0, true);
    CHECK_INT(store_pair_repair(&f.pair, "a", STORE_PAIR_FIRST, &err), 0);
    CHECK_INT(store_pair_size(&f.pair, "a", &size, &lacks, &err), 0);
    CHECK_INT(lacks, STORE_PAIR_NEITHER);
    CHECK_STR(f.first.bodies[0], "body");
    CHECK_INT(store_pair_size(&f.pair, "b", &size, &lacks, &err), STATUS_NOT_FOUND);
    CHECK_INT(store_pair_repair(&f.pair, "b", STORE_PAIR_FIRST, &err), STATUS_NOT_FOUND);
}

TEST(a_store_that_says_not_found_is_not_healed_by_that)
{
    struct fixture f;
    struct store_pair_result result;
    struct error err;
    uint64_t size = 0;
    int lacks = STORE_PAIR_NEITHER;
    set_up(&f);
    fail_with(&f.first, STATUS_DENIED, false); /* its bucket is missing */
    CHECK_INT(put_one(&f, "a", &result), STATUS_DENIED);
    clock_sleep_ms(PATIENCE_MS + 5);
    fail_with(&f.first, 0, false);
    CHECK_INT(store_pair_size(&f.pair, "b", &size, &lacks, &err), STATUS_NOT_FOUND);
    fail_with(&f.first, STATUS_DENIED, false);
    CHECK_INT(put_one(&f, "a", &result), 0); /* the second is still enough */
    CHECK_INT(result.lacks, STORE_PAIR_FIRST);
}

static void *put_in_thread(void *user)
{
    struct store_pair_result result;
    CHECK_INT(put_one(user, "b", &result), 0);
    return NULL;
}

TEST(a_failing_second_that_hangs_keeps_one_thread)
{
    struct fixture f, other; /* two threads' stores */
    struct store_pair_result result;
    pthread_t thread;
    set_up(&other);
    set_up(&f);
    sem_init(&other.second.hung, 0, 0);
    sem_init(&other.second.released, 0, 0);
    fail_with(&f.second, STATUS_TIMEOUT, true);
    CHECK_INT(put_one(&f, "a", &result), 0);
    clock_sleep_ms(PAUSE_MS + 5);
    other.second.hangs = true;
    CHECK_INT(pthread_create(&thread, NULL, put_in_thread, &other), 0);
    sem_wait(&other.second.hung);
    fail_with(&f.second, 0, false);
    CHECK_INT(put_one(&f, "c", &result), 0); /* at once, past the second */
    CHECK_INT(result.lacks, STORE_PAIR_SECOND);
    CHECK_INT(f.second.calls, 1);
    sem_post(&other.second.released);
    pthread_join(thread, NULL);
    CHECK_INT(put_one(&f, "d", &result), 0);
    CHECK_INT(result.lacks, STORE_PAIR_NEITHER);
    sem_destroy(&other.second.hung);
    sem_destroy(&other.second.released);
}

TEST_MAIN()
