/* The worker binary: the worker service (worker.h) with the diffusion engine as its drawer. */
#include "worker/engine_drawer.h"
#include "worker/worker.h"
#include "worker/worker_config.h"

static int run(const struct service_context *context, struct error *err)
{
    return worker_run(context, &engine_drawer_operations, err);
}

int main(int argc, char **argv)
{
    static const struct service service = {.name = "worker",
                                           .summary = "Draws one pool's jobs with the engine.",
                                           .options = worker_config_options,
                                           .config_size = sizeof(struct worker_config),
                                           .check = worker_config_check,
                                           .run = run};
    return service_main(&service, argc, argv);
}
