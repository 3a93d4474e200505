/* The router binary: its name, its settings and its run (router.h). */
#include "common/service/service.h"
#include "router/router.h"
#include "router/router_config.h"

static const struct service router_service = {
    .name = "router",
    .summary = "Admits jobs into a pool's queue and dispatches them to workers by credit.",
    .options = router_config_options,
    .config_size = sizeof(struct router_config),
    .check = router_config_check,
    .run = router_run,
};

int main(int argc, char **argv)
{
    return service_main(&router_service, argc, argv);
}
