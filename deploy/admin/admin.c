#include "deploy/admin/admin.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/config.h"
#include "common/base/log.h"

#ifndef CRAFTERSE_VERSION
#define CRAFTERSE_VERSION "unknown"
#endif

#define EXIT_USAGE 2

struct admin_config {
    const char *pools;
    int64_t lanes;
};

static const struct config_option admin_options[] = {
    {.name = "POOLS",
     .type = CONFIG_STRING,
     .offset = offsetof(struct admin_config, pools),
     .default_text = "default",
     .help = "The pools whose queues are looked at, separated by commas."},
    {.name = "LANES",
     .type = CONFIG_INT,
     .offset = offsetof(struct admin_config, lanes),
     .default_text = "8",
     .min = 1,
     .max = 1024,
     .help = "As in the router: partitions of jobs.<pool> that topics tells."},
    {.name = NULL},
};

static const struct command {
    const char *words[2];                           /* the second may be NULL */
    const char *arguments[ADMIN_ARGUMENTS_MAX + 1]; /* what it is about; NULL ends them */
    int (*run)(const struct admin *admin, struct error *err);
    const char *help;
} commands[] = {
    {{"queues", NULL},
     {NULL},
     admin_queues,
     "what waits in each topic, and how old the oldest job is"},
    {{"topics", NULL}, {NULL}, admin_topics, "the topics that must be there, with their policies"},
    {{"workers", NULL}, {NULL}, admin_workers, "who announced himself, and what he does"},
    {{"drain", NULL}, {"WORKER"}, admin_drain, "the worker finishes its job and ends"},
    {{"pause", NULL}, {"POOL"}, admin_pause, "start none of the pool's jobs; they wait"},
    {{"resume", NULL}, {"POOL"}, admin_resume, "start them again"},
    {{"cancel", NULL}, {"JOB"}, admin_cancel, "cancel a job"},
    {{"replay", NULL},
     {"FROM", "UNTIL", "POOL"},
     admin_replay,
     "draw what was ordered from one time to another once more, for a test"},
    {{"letters", NULL}, {NULL}, admin_letters, "list the dead letters"},
    {{"letters", "show"}, {"LETTER"}, admin_letter_show, "where one came from and what it holds"},
    {{"letters", "replay"}, {"LETTER"}, admin_letter_replay, "order its job again, under a new id"},
    {{"letters", "drop"}, {"LETTER"}, admin_letter_drop, "list it no more"},
};
#define COMMAND_COUNT (sizeof(commands) / sizeof(commands[0]))

int admin_check_pool(const struct admin *admin, const char *pool, struct error *err)
{
    for (size_t i = 0; i < admin->pool_count; i++) {
        if (strcmp(admin->pools[i], pool) == 0) {
            return STATUS_OK;
        }
    }
    return ERROR(err, STATUS_INVALID, "pool \"%s\" is none of CRAFTERSE_POOLS", pool);
}

static int count_arguments(const struct command *command)
{
    int count = 0;
    while (command->arguments[count] != NULL) {
        count++;
    }
    return count;
}

static void print_command(FILE *out, const struct command *command)
{
    char text[64];
    int used = snprintf(text, sizeof(text), "%s%s%s", command->words[0],
                        command->words[1] != NULL ? " " : "",
                        command->words[1] != NULL ? command->words[1] : "");
    for (int k = 0; k < count_arguments(command); k++) {
        used += snprintf(text + used, sizeof(text) - (size_t)used, " %s", command->arguments[k]);
    }
    fprintf(out, "  %-24s %s\n", text, command->help);
}

static void print_help(FILE *out)
{
    fprintf(out, "Usage: crafterse-admin COMMAND\n\n");
    for (size_t i = 0; i < COMMAND_COUNT; i++) {
        print_command(out, &commands[i]);
    }
    fprintf(out, "\nTimes are 2026-11-20T18:05:00Z (UTC) or seconds since 1970.\n");
    fprintf(out, "\nIt speaks to Kafka alone, as the services' own environment says:\n\n");
    config_print_help(out, admin_options);
    config_print_help(out, kafka_config_options);
}

/* For words that are no command: those that begin with the same one. */
static void print_usage(const char *word)
{
    bool is_known = false;
    for (size_t i = 0; i < COMMAND_COUNT; i++) {
        if (strcmp(word, commands[i].words[0]) == 0) {
            fprintf(stderr, "%s", is_known ? "" : "crafterse-admin: usage:\n");
            print_command(stderr, &commands[i]);
            is_known = true;
        }
    }
    if (!is_known) {
        fprintf(stderr, "crafterse-admin: there is no command %s; see --help\n", word);
    }
}

/* The command whose words these are, or NULL; *own is how many of them name it. */
static const struct command *find(int count, char **words, int *own)
{
    for (size_t i = 0; i < COMMAND_COUNT; i++) {
        const struct command *command = &commands[i];
        *own = command->words[1] != NULL ? 2 : 1;
        if (count == *own + count_arguments(command) && strcmp(words[0], command->words[0]) == 0 &&
            (*own == 1 || strcmp(words[1], command->words[1]) == 0)) {
            return command;
        }
    }
    return NULL;
}

static int run(const struct command *command, char **arguments, struct error *err)
{
    const struct config_option *const tables[] = {admin_options, kafka_config_options};
    struct admin_config config = {.pools = NULL};
    struct kafka_config kafka;
    void *const structs[] = {&config, &kafka};
    struct admin admin = {.kafka = &kafka, .argument = ""};
    memset(&kafka, 0, sizeof(kafka));
    for (int i = 0; i < count_arguments(command); i++) {
        admin.arguments[i] = arguments[i];
        admin.argument = admin.arguments[0];
    }
    int result = config_load(tables, 2, structs, err);
    if (result < 0) {
        return result;
    }
    admin.lanes = (int)config.lanes;
    result = topics_parse_pools(config.pools, &admin.pools, &admin.pool_count, err);
    if (result == STATUS_OK) {
        result = command->run(&admin, err);
        topics_free_pools(admin.pools, admin.pool_count);
    }
    config_unload(tables, 2, structs);
    return result;
}

int main(int argc, char **argv)
{
    int own = 0;
    struct error err;
    log_init("admin", "crafterse-admin", LOG_ERROR);
    if (argc == 2 && strcmp(argv[1], "--version") == 0) {
        printf("crafterse-admin %s\n", CRAFTERSE_VERSION);
        return EXIT_SUCCESS;
    }
    if (argc == 2 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)) {
        print_help(stdout);
        return EXIT_SUCCESS;
    }
    if (argc == 1) {
        print_help(stderr);
        return EXIT_USAGE;
    }
    const struct command *command = find(argc - 1, argv + 1, &own);
    if (command == NULL) {
        print_usage(argv[1]);
        return EXIT_USAGE;
    }
    if (run(command, argv + 1 + own, &err) < 0) {
        fprintf(stderr, "crafterse-admin: %s\n", err.text);
        return EXIT_FAILURE;
    }
    return EXIT_SUCCESS;
}
