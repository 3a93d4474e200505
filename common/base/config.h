/* Settings: one table a service says name, type, default, limits and help of every setting; the
 * same table fills the service's struct from the environment, checks it, prints --help, and writes
 * docs/CONFIGURATION.md. Nothing starts before every setting is valid; all problems are reported at
 * once.
 *
 * Every setting is an environment variable CRAFTERSE_<NAME>, or <NAME> alone where others have
 * named it (WHOLE_NAME). A SECRET may instead be read from the file that the variable with _FILE
 * behind it names (trailing newline dropped) and is never printed. A variable that is set but empty
 * counts as unset.
 */
#ifndef COMMON_BASE_CONFIG_H
#define COMMON_BASE_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "common/base/error.h"

enum config_type {
    CONFIG_STRING,   /* const char *; "" when unset without default */
    CONFIG_INT,      /* int64_t within [min, max] */
    CONFIG_BOOL,     /* bool: true/false/1/0/yes/no */
    CONFIG_DURATION, /* int64_t milliseconds: "250ms", "5s", "20m", "1h" */
    CONFIG_BYTES,    /* int64_t: "16777216", "64KiB", "16MiB", "1GiB" */
    CONFIG_CHOICE, /* const char *, one of choices: "folder|s3"; any case is taken as spelt there */
};

enum config_flags { CONFIG_REQUIRED = 1, CONFIG_SECRET = 2, CONFIG_WHOLE_NAME = 4 };

struct config_option {
    const char *name; /* without CRAFTERSE_, unless it is the WHOLE_NAME */
    enum config_type type;
    size_t offset; /* offsetof in the service's struct */
    const char *default_text;
    int64_t min, max; /* for INT, DURATION, BYTES; both 0 = no limit */
    const char *choices;
    unsigned flags;
    const char *help; /* one sentence */
};

/* Tables end with an entry whose name is NULL. A service passes several: its own and the shared
 * ones (kafka_config_options, service_options). Nothing needs freeing after a failure. */
int config_load(const struct config_option *const tables[], size_t table_count,
                void *const structs[], struct error *err) MUST_CHECK;
void config_unload(const struct config_option *const tables[], size_t table_count,
                   void *const structs[]); /* frees strings */

/* "NAME=value (default)" lines; secrets as "***". */
void config_print(FILE *out, const struct config_option *const tables[], size_t table_count,
                  void *const structs[]);
/* A markdown table for docs/CONFIGURATION.md. */
void config_print_markdown(FILE *out, const struct config_option *table);
/* For --help. */
void config_print_help(FILE *out, const struct config_option *table);

#endif
