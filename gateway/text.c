/* Prefixes and counts of UTF-8, and RFC 3339 times: see text.h. */
#include "gateway/text.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include "common/base/utf8.h"

size_t text_utf8_valid_prefix(const char *text, size_t size)
{
    size_t at = 0;
    while (at < size) {
        size_t length = utf8_character(text + at, size - at);
        if (length == 0) {
            break;
        }
        at += length;
    }
    return at;
}

size_t text_characters(const char *text)
{
    size_t count = 0;
    for (; *text != '\0'; text++) {
        count += ((unsigned char)*text & 0xc0) != 0x80;
    }
    return count;
}

void text_trim_utf8(char *text)
{
    size_t size = strlen(text);
    text[text_utf8_valid_prefix(text, size)] = '\0';
}

/* Reads exactly `digits` digits; -1 when something else is there. */
static int read_digits(const char **text, int digits)
{
    int value = 0;
    for (int i = 0; i < digits; i++, (*text)++) {
        if (**text < '0' || **text > '9') {
            return -1;
        }
        value = value * 10 + (**text - '0');
    }
    return value;
}

static bool read_character(const char **text, const char *one_of)
{
    if (**text == '\0' || strchr(one_of, **text) == NULL) {
        return false;
    }
    (*text)++;
    return true;
}

static int days_in_month(int year, int month)
{
    static const int days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    bool is_leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    return month == 2 && is_leap ? 29 : days[month - 1];
}

/* ".123" to milliseconds; digits past the third are dropped. */
static bool read_fraction(const char **text, unsigned *milliseconds)
{
    *milliseconds = 0;
    if (**text != '.') {
        return true;
    }
    (*text)++;
    unsigned weight = 100;
    const char *start = *text;
    for (; **text >= '0' && **text <= '9'; (*text)++) {
        *milliseconds += (unsigned)(**text - '0') * weight;
        weight /= 10;
    }
    return *text > start;
}

static bool read_offset(const char **text, int *minutes)
{
    *minutes = 0;
    if (read_character(text, "Zz")) {
        return true;
    }
    char sign = **text;
    if (!read_character(text, "+-")) {
        return false;
    }
    int hours = read_digits(text, 2);
    bool has_colon = hours >= 0 && read_character(text, ":");
    int rest = has_colon ? read_digits(text, 2) : -1;
    if (hours < 0 || hours > 23 || rest < 0 || rest > 59) {
        return false;
    }
    *minutes = (sign == '-' ? -1 : 1) * (hours * 60 + rest);
    return true;
}

bool text_parse_time(const char *text, uint64_t *unix_ms)
{
    struct tm when = {0};
    int year = read_digits(&text, 4);
    int month = year >= 1970 && read_character(&text, "-") ? read_digits(&text, 2) : -1;
    int day = month >= 1 && month <= 12 && read_character(&text, "-") ? read_digits(&text, 2) : -1;
    if (day < 1 || day > days_in_month(year, month) || !read_character(&text, "Tt ")) {
        return false;
    }
    int hour = read_digits(&text, 2);
    int minute = hour >= 0 && hour <= 23 && read_character(&text, ":") ? read_digits(&text, 2) : -1;
    int second =
        minute >= 0 && minute <= 59 && read_character(&text, ":") ? read_digits(&text, 2) : -1;
    unsigned milliseconds;
    int offset_minutes;
    if (second < 0 || second > 60 || !read_fraction(&text, &milliseconds) ||
        !read_offset(&text, &offset_minutes) || *text != '\0') {
        return false;
    }
    when.tm_year = year - 1900;
    when.tm_mon = month - 1;
    when.tm_mday = day;
    when.tm_hour = hour;
    when.tm_min = minute;
    when.tm_sec = second;
    int64_t seconds = (int64_t)timegm(&when) - (int64_t)offset_minutes * 60;
    if (seconds < 0) {
        return false;
    }
    *unix_ms = (uint64_t)seconds * 1000 + milliseconds;
    return true;
}

size_t text_append(char *out, size_t size, size_t used, const char *text)
{
    size_t length = strnlen(text, size - used - 1);
    memcpy(out + used, text, length);
    out[used + length] = '\0';
    return used + length;
}

unsigned text_prefer_wait(const char *prefer)
{
    for (const char *at = prefer; *at != '\0'; at += *at == ',') {
        at += strspn(at, " \t");
        const char *digits = at + 5;
        if (strncasecmp(at, "wait=", 5) == 0 && *digits >= '0' && *digits <= '9') {
            unsigned long value = strtoul(digits, NULL, 10);
            return value > 86400 ? 86400 : (unsigned)value;
        }
        at += strcspn(at, ",");
    }
    return 0;
}
