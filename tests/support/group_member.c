/* A member of a consumer group that does nothing but take records, count an attempt, wait, and end
 * them, and says each step on stdout: "start PARTITION OFFSET ATTEMPT", "effect PARTITION OFFSET",
 * "done PARTITION OFFSET STATUS". For tests/integration/test_consumer_group.py, which kills it. */
#include <stdio.h>

#include "common/base/clock.h"
#include "common/base/id.h"
#include "common/base/log.h"
#include "common/base/shutdown.h"
#include "common/bus/consumer.h"
#include "common/service/service.h"

#define IN_HAND_MAX 64

struct member_config {
    const char *topic;
    const char *group;
    int64_t work_ms;
    int64_t in_hand;
};

static const struct config_option member_options[] = {
    {.name = "MEMBER_TOPIC",
     .type = CONFIG_STRING,
     .offset = offsetof(struct member_config, topic),
     .flags = CONFIG_REQUIRED,
     .help = "What it reads."},
    {.name = "MEMBER_GROUP",
     .type = CONFIG_STRING,
     .offset = offsetof(struct member_config, group),
     .flags = CONFIG_REQUIRED,
     .help = "Its group."},
    {.name = "MEMBER_WORK",
     .type = CONFIG_DURATION,
     .offset = offsetof(struct member_config, work_ms),
     .default_text = "40ms",
     .help = "How long a record takes on average."},
    {.name = "MEMBER_IN_HAND",
     .type = CONFIG_INT,
     .offset = offsetof(struct member_config, in_hand),
     .default_text = "6",
     .min = 1,
     .max = IN_HAND_MAX,
     .help = "How many records are worked on at once."},
    {.name = NULL},
};

struct work {
    struct record record;
    uint64_t end_ms;
};

struct member {
    const struct member_config *config;
    struct consumer *consumer;
    struct work works[IN_HAND_MAX];
    int count;
};

static void start_work(struct member *m, struct record *r)
{
    struct error err = {0};
    uint32_t attempt = 0;
    uint64_t work_ms = (uint64_t)m->config->work_ms;
    if (consumer_count_attempt(m->consumer, r, &attempt, &err) < 0) {
        log_info("attempt not counted", "reason=%s", LOG_QUOTED(err.text));
        consumer_drop(m->consumer, r);
        clock_sleep_ms(20);
        return;
    }
    printf("start %d %lld %u\n", (int)r->partition, (long long)r->offset, attempt);
    m->works[m->count++] = (struct work){
        .record = *r, .end_ms = clock_monotonic_ms() + work_ms / 2 + id_random() % (work_ms + 1)};
}

static void end_works(struct member *m)
{
    for (int i = 0; i < m->count;) {
        struct work *work = &m->works[i];
        if (clock_monotonic_ms() < work->end_ms) {
            i++;
            continue;
        }
        int partition = (int)work->record.partition;
        long long offset = work->record.offset;
        printf("effect %d %lld\n", partition, offset);
        int status = consumer_done(m->consumer, &work->record, NULL);
        printf("done %d %lld %d\n", partition, offset, status);
        *work = m->works[--m->count];
    }
}

static int run(const struct service_context *context, struct error *err)
{
    struct member m = {.config = context->config};
    const struct consumer_options options = {.group = m.config->group,
                                             .topics = &m.config->topic,
                                             .topic_count = 1,
                                             .counts_attempts = true};
    int result = consumer_create(&m.consumer, context->kafka, &options, err);
    setvbuf(stdout, NULL, _IOLBF, 0);
    while (result == 0 && (!shutdown_requested() || m.count > 0)) {
        struct record r;
        while (m.count < m.config->in_hand && !shutdown_requested() &&
               consumer_take(m.consumer, NULL, 3, &r)) {
            start_work(&m, &r);
        }
        consumer_poll(m.consumer, m.count > 0 ? 5 : 200);
        end_works(&m);
    }
    consumer_destroy(m.consumer, 10000);
    return result;
}

static const struct service member_service = {
    .name = "group_member",
    .summary = "Takes records and says so: for tests.",
    .options = member_options,
    .config_size = sizeof(struct member_config),
    .run = run,
};

int main(int argc, char **argv)
{
    return service_main(&member_service, argc, argv);
}
