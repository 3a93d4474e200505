/* How far an autoencoder is, and whether it is to go on: a decode of a large picture takes longer
 * than anyone should wait to be heard.
 */
#ifndef WORKER_ENGINE_MODELS_VAE_PROGRESS_H
#define WORKER_ENGINE_MODELS_VAE_PROGRESS_H

#include <stdbool.h>

/* Asked between layers with the part done, from 0; false stops the work. */
typedef bool (*vae_continue)(void *user, int step, int steps);

struct vae_progress {
    vae_continue go_on; /* may be NULL: nobody asks */
    void *user;
    int step, steps;
};

/* Ask, and count a step. */
bool vae_progress_go_on(struct vae_progress *progress);

#endif
