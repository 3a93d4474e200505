#include "common/base/utf8.h"

#include <stdint.h>
#include <string.h>

size_t utf8_character(const void *data, size_t size)
{
    const uint8_t *bytes = data;
    if (size == 0) {
        return 0;
    }
    uint8_t lead = bytes[0];
    if (lead < 0x80) {
        return 1;
    }
    size_t length = lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : 2;
    if (lead < 0xC2 || lead > 0xF4 || length > size) {
        return 0;
    }
    for (size_t i = 1; i < length; i++) {
        if ((bytes[i] & 0xC0) != 0x80) {
            return 0;
        }
    }
    bool overlong = (lead == 0xE0 && bytes[1] < 0xA0) || (lead == 0xF0 && bytes[1] < 0x90);
    bool surrogate = lead == 0xED && bytes[1] >= 0xA0;
    bool past_the_end = lead == 0xF4 && bytes[1] >= 0x90;
    return overlong || surrogate || past_the_end ? 0 : length;
}

bool utf8_is_valid(const void *data, size_t size)
{
    const uint8_t *bytes = data;
    size_t at = 0;
    while (at < size) {
        size_t length = utf8_character(bytes + at, size - at);
        if (length == 0) {
            return false;
        }
        at += length;
    }
    return true;
}

void utf8_mend(char *text)
{
    size_t size = strlen(text), at = 0;
    while (at < size) {
        size_t length = utf8_character(text + at, size - at);
        if (length == 0) {
            text[at] = '?';
            length = 1;
        }
        at += length;
    }
}
