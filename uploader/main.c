/* The uploader's entry point; uploader.h says what it does. */
#include "common/service/service.h"
#include "uploader/uploader.h"
#include "uploader/uploader_config.h"

static const struct service uploader_service = {
    .name = "uploader",
    .summary = "Stores finished pictures, fills the cache and ends their jobs.",
    .options = uploader_config_options,
    .config_size = sizeof(struct uploader_config),
    .check = uploader_config_check,
    .run = uploader_run,
};

int main(int argc, char **argv)
{
    return service_main(&uploader_service, argc, argv);
}
