/* txt2img's command line: one table says name, meaning and limits of every option, and where in
 * struct options its value goes. */
#ifndef WORKER_CLI_OPTIONS_H
#define WORKER_CLI_OPTIONS_H

#include <limits.h>

#include "worker/cli/lora_options.h"
#include "worker/cli/picture_options.h"
#include "worker/engine/engine.h"

#define OPTIONS_SEEDS_MAX 256
#define OPTIONS_EMBEDDINGS_MAX 64

/* Points into itself and into argv: not to be copied. */
struct options {
    struct engine_options engine;
    struct generation
        generation; /* size and steps of 0, guidance below 0, scheduler NULL: unsaid */
    struct picture_options pictures;
    struct lora_options loras;
    const char *latents, *dump, *output;
    int batch;                         /* 0: unsaid */
    uint64_t seeds[OPTIONS_SEEDS_MAX]; /* of --seeds, one a picture; 0 of them: counted up */
    int seed_count;
    bool has_seed;           /* --seed was given */
    double deadline_seconds; /* of each picture; 0: none */
    bool estimate, timings;

    const char *embeddings[OPTIONS_EMBEDDINGS_MAX]; /* what engine points to */
    char cache_folder[PATH_MAX];
};

/* Fills *options. Returns -1 to go on, or the process's exit code when all is said: after --help
 * and --version, and after wrong usage, which is told on stderr. options_deinit in any case. */
int options_parse(struct options *options, int argc, char **argv);
void options_deinit(struct options *options);

/* How many pictures to make. */
int options_pictures(const struct options *options);

#endif
