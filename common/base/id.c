#include "common/base/id.h"

#include <errno.h>
#include <string.h>
#include <sys/random.h>

#include "common/base/clock.h"
#include "common/base/digest.h"
#include "common/base/panic.h"

/* The kernel is asked for many bytes at once: the call costs more than the rest of an id. */
#define POOL_BYTES 512

static _Thread_local struct {
    uint8_t bytes[POOL_BYTES];
    size_t left; /* at the end */
} pool;

static void refill(void)
{
    while (pool.left < POOL_BYTES) {
        ssize_t got = getrandom(pool.bytes + pool.left, POOL_BYTES - pool.left, 0);
        if (got < 0 && errno != EINTR) {
            PANIC("the kernel gives no random bytes: %s", strerror(errno));
        }
        pool.left += got > 0 ? (size_t)got : 0;
    }
}

static void random_bytes(void *data, size_t size)
{
    ASSERT(size <= POOL_BYTES);
    if (pool.left < size) {
        pool.left = 0;
        refill();
    }
    memcpy(data, pool.bytes + POOL_BYTES - pool.left, size);
    pool.left -= size;
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
    /* The parts and their dashes; each part's NUL is the next one's dash. */
    static const size_t sizes[] = {4, 2, 2, 2, 6};
    const uint8_t *from = bytes;
    char *to = id;
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        digest_hex(from, sizes[i], to);
        from += sizes[i];
        to += 2 * sizes[i] + 1;
        to[-1] = '-';
    }
    id[ID_SIZE - 1] = '\0';
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

uint64_t id_time_ms(const char *id)
{
    uint64_t value = 0;
    if (!id_is_valid(id) || id[14] != '7') {
        return 0;
    }
    for (int i = 0; i < 13; i++) {
        if (id[i] != '-') {
            char digit = id[i];
            value = value << 4 | (uint64_t)(digit <= '9' ? digit - '0' : digit - 'a' + 10);
        }
    }
    return value;
}
