#include "worker/engine/models/vae_progress.h"

#include <stddef.h>

bool vae_progress_go_on(struct vae_progress *progress)
{
    return progress->go_on == NULL ||
           progress->go_on(progress->user, progress->step++, progress->steps);
}
