#include "common/base/error.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "common/base/utf8.h"

/* What a text quotes may be no UTF-8, and vsnprintf may cut inside a sequence, whose rest is
 * dropped: no reader of Kafka takes a message whose text is not valid. */
static void make_valid(char *text)
{
    size_t length = strlen(text);
    size_t back = 0;
    while (back < 3 && back < length && ((unsigned char)text[length - 1 - back] & 0xC0) == 0x80) {
        back++;
    }
    unsigned char lead = back < length ? (unsigned char)text[length - 1 - back] : 0;
    size_t need = lead >= 0xF0 ? 3 : lead >= 0xE0 ? 2 : lead >= 0xC0 ? 1 : 0;
    if (need > back) {
        text[length - 1 - back] = '\0';
    }
    utf8_mend(text);
}

int error_set(struct error *err, enum status status, int retriable, const char *file, int line,
              const char *format, ...)
{
    if (err == NULL) {
        return status;
    }
    err->status = status;
    err->retriable =
        retriable >= 0 ? retriable > 0 : status == STATUS_UNAVAILABLE || status == STATUS_TIMEOUT;
    err->file = file;
    err->line = line;
    va_list args;
    va_start(args, format);
    vsnprintf(err->text, sizeof(err->text), format, args);
    va_end(args);
    make_valid(err->text);
    return status;
}

int error_wrap(struct error *err, const char *format, ...)
{
    char text[ERROR_TEXT_MAX];
    va_list args;
    va_start(args, format);
    int length = vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    if (length >= 0 && (size_t)length < sizeof(text)) {
        snprintf(text + length, sizeof(text) - (size_t)length, ": %s", err->text);
    }
    memcpy(err->text, text, sizeof(err->text));
    make_valid(err->text);
    return err->status;
}

const char *status_name(enum status status)
{
    switch (status) {
    case STATUS_OK:
        return "ok";
    case STATUS_INVALID:
        return "invalid";
    case STATUS_NOT_FOUND:
        return "not_found";
    case STATUS_EXISTS:
        return "exists";
    case STATUS_TOO_LARGE:
        return "too_large";
    case STATUS_CORRUPT:
        return "corrupt";
    case STATUS_UNSUPPORTED:
        return "unsupported";
    case STATUS_UNAVAILABLE:
        return "unavailable";
    case STATUS_TIMEOUT:
        return "timeout";
    case STATUS_DENIED:
        return "denied";
    case STATUS_CANCELLED:
        return "cancelled";
    case STATUS_IO:
        return "io";
    case STATUS_INTERNAL:
        return "internal";
    }
    return "unknown";
}
