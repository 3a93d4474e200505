/* Where the time of a picture goes: which part of the model, which kind of arithmetic, which shape.
 *
 * The models name the part that they begin with profile_part, in diffusers' names
 * ("unet.down_blocks.1.attentions.0"): all time until the next name belongs to it. The layers that
 * do the arithmetic time themselves between profile_begin and profile_end and say what they did;
 * what a part takes beside that (activations, copies, sums) is of the kind other. A LoRA's side
 * path is time of the layer that it stands beside, a norm that is made while a convolution reads
 * its input is time of the convolution.
 *
 * Without a profile (NULL in exec.profile) each of these calls is one branch. Times are the wall
 * clock's and the whole process's CPU time, so one profile belongs to one thread that calls
 * forward functions, and other work of the process would be counted.
 */
#ifndef WORKER_ENGINE_LAYERS_PROFILE_H
#define WORKER_ENGINE_LAYERS_PROFILE_H

#include <stdint.h>

struct profile;

enum profile_kind {
    PROFILE_CONV,
    PROFILE_LINEAR,
    PROFILE_ATTENTION, /* softmax(Q K^T) V alone; its projections are linear */
    PROFILE_NORM,
    PROFILE_OTHER,
};

#define PROFILE_KINDS 5

/* What a layer did. sizes: of a linear layer rows, channels out and in; of a convolution pixels of
 * the result, channels out and in; of attention queries, keys and size of a head; of a norm rows
 * and channels. All but attention's are over the whole batch. */
struct profile_work {
    enum profile_kind kind;
    double flop;
    int64_t sizes[3];
};

struct profile_time {
    double seconds, cpu_seconds; /* on the wall; of all threads */
    double flop;                 /* of matrix products; convolutions as plain sums */
    long calls;
};

/* A part of the model, by name and by kind. */
struct profile_entry {
    char name[64];
    struct profile_time total, kinds[PROFILE_KINDS];
};

/* All layers of one kind with the same sizes. */
struct profile_shape {
    struct profile_work work; /* flop is that of one call */
    struct profile_time time;
};

struct profile *profile_create(void);
void profile_destroy(struct profile *profile); /* accepts NULL */

/* From now on time belongs to the part of this name, until the next call; NULL: to none. */
void profile_part(struct profile *profile, const char *name, ...)
    __attribute__((format(printf, 2, 3)));

struct profile_time profile_begin(const struct profile *profile);
void profile_end(struct profile *profile, const struct profile_time *began,
                 const struct profile_work *work);

/* What was recorded, in the order of the first time; the profile's own. */
const struct profile_entry *profile_entries(const struct profile *profile, int *count);
const struct profile_shape *profile_shapes(const struct profile *profile, int *count);

const char *profile_kind_name(enum profile_kind kind);

#endif
