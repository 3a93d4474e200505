/* Making API keys: see make_key.h. 256 random bits; only their hash is ever stored. */
#include "gateway/make_key.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "common/base/digest.h"
#include "common/base/id.h"
#include "gateway/auth.h"

int make_key(const char *key_id)
{
    char key[72], hex[DIGEST_HEX_SIZE];
    if (!auth_is_key_id(key_id)) {
        fprintf(stderr, "gateway: --make-key: \"%s\" is no key id: want 1 to 64 of a-z 0-9 . _ -\n",
                key_id);
        return 2;
    }
    snprintf(key, sizeof(key), "ck_%016" PRIx64 "%016" PRIx64 "%016" PRIx64 "%016" PRIx64,
             id_random(), id_random(), id_random(), id_random());
    digest_sha256_hex(key, strlen(key), hex);
    printf("Key, shown this once; give it to the client:\n%s\n\n"
           "Line for the file that CRAFTERSE_API_KEYS_FILE names:\n%s:%s\n",
           key, key_id, hex);
    return 0;
}
