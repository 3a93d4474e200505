/* Reading a topic whole is following it until what was there at the start has come. */
#include <stddef.h>

#include "common/base/clock.h"
#include "common/bus/follower.h"
#include "deploy/admin/admin.h"

#define TIMEOUT_MS 15000

int admin_read(const struct admin *admin, enum topic topic, admin_visit visit, void *user,
               struct error *err)
{
    char name[TOPIC_NAME_MAX];
    topic_name(admin->kafka, topic, "", name);
    const struct follower_topic topics[] = {{.topic = name, .from_beginning = true}};
    struct follower *follower = NULL;
    int result =
        follower_create(&follower, admin->kafka, topics, 1, FOLLOWER_AT_ONCE, TIMEOUT_MS, err);
    if (result < 0) {
        return result;
    }
    uint64_t deadline_ms = clock_monotonic_ms() + TIMEOUT_MS;
    while (result == STATUS_OK && !follower_is_caught_up(follower)) {
        struct record record;
        if (follower_next(follower, 100, &record)) {
            result = visit(user, &record, err);
            deadline_ms = clock_monotonic_ms() + TIMEOUT_MS;
        } else if (clock_monotonic_ms() > deadline_ms) {
            result = ERROR(err, STATUS_UNAVAILABLE, "topic %s: nothing came for %d s", name,
                           TIMEOUT_MS / 1000);
        }
    }
    follower_destroy(follower);
    return result;
}
