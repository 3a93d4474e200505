/* The gateway's program: see gateway.h. */
#include <string.h>

#include "gateway/gateway.h"
#include "gateway/make_key.h"

int main(int argc, char **argv)
{
    if (argc == 3 && strcmp(argv[1], "--make-key") == 0) {
        return make_key(argv[2]);
    }
    return service_main(&gateway_service, argc, argv);
}
