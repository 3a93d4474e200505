#include "common/base/id.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

#include "common/base/clock.h"
#include "common/base/digest.h"
#include "common/base/panic.h"

static void random_bytes(void *data, size_t size)
{
    size_t done = 0;
    while (done < size) {
        ssize_t got = getrandom((char *)data + done, size - done, 0);
        if (got < 0 && errno != EINTR) {
            PANIC("the kernel gives no random bytes: %s", strerror(errno));
        }
        done += got > 0 ? (size_t)got : 0;
    }
}

uint64_t id_random(void)
{
    uint64_t value;
    random_bytes(&value, sizeof(value));
    return value;
}

void id_make(char id[ID_SIZE])
{
    uint8_t bytes[16];
    random_bytes(bytes, sizeof(bytes));
    uint64_t time = clock_unix_ms();
    for (int i = 0; i < 6; i++) {
        bytes[i] = (uint8_t)(time >> (40 - 8 * i));
    }
    bytes[6] = (uint8_t)(0x70 | (bytes[6] & 0x0F)); /* version 7 */
    bytes[8] = (uint8_t)(0x80 | (bytes[8] & 0x3F)); /* variant of RFC 9562 */
    char hex[33];
    digest_hex(bytes, sizeof(bytes), hex);
    snprintf(id, ID_SIZE, "%.8s-%.4s-%.4s-%.4s-%.12s", hex, hex + 8, hex + 12, hex + 16, hex + 20);
}

static bool is_hex(const char *text, size_t count)
{
    return strspn(text, "0123456789abcdef") >= count;
}

bool id_is_valid(const char *text)
{
    return strlen(text) == ID_SIZE - 1 && is_hex(text, 8) && text[8] == '-' &&
           is_hex(text + 9, 4) && text[13] == '-' && is_hex(text + 14, 4) && text[18] == '-' &&
           is_hex(text + 19, 4) && text[23] == '-' && is_hex(text + 24, 12);
}

void id_traceparent_make(char traceparent[TRACEPARENT_SIZE])
{
    uint8_t bytes[24];
    do {
        random_bytes(bytes, sizeof(bytes));
        /* All-zero ids are invalid by the specification. */
    } while (bytes[0] == 0 || bytes[16] == 0);
    char trace[33], span[17];
    digest_hex(bytes, 16, trace);
    digest_hex(bytes + 16, 8, span);
    snprintf(traceparent, TRACEPARENT_SIZE, "00-%s-%s-01", trace, span);
}

bool id_traceparent_is_valid(const char *text)
{
    return strlen(text) == TRACEPARENT_SIZE - 1 && strncmp(text, "00-", 3) == 0 &&
           is_hex(text + 3, 32) && text[35] == '-' && is_hex(text + 36, 16) && text[52] == '-' &&
           is_hex(text + 53, 2) && strspn(text + 3, "0") < 32 && strspn(text + 36, "0") < 16;
}
