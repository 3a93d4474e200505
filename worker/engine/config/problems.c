#include "worker/engine/config/problems.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

void problems_init(struct problems *problems)
{
    problems->count = 0;
    problems->kept = 0;
    problems->length = 0;
}

/* Names come from files: nothing in them may break a log line. */
static void hide_control_characters(char *text)
{
    for (; *text != '\0'; text++) {
        if ((unsigned char)*text < 0x20 || *text == 0x7F) {
            *text = '?';
        }
    }
}

void problems_add(struct problems *problems, const char *format, ...)
{
    struct error one; /* its way of cutting a text at a character serves here too */
    char text[512];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    hide_control_characters(text);
    bool cut = strlen(text) == sizeof(text) - 1;
    ERROR(&one, STATUS_INVALID, "%s", text);

    size_t size = strlen(one.text) + (cut ? strlen("…") : 0) + 1;
    problems->count++;
    /* Kept are the first ones, without gaps, so that "and N more" tells the truth; joined, each
     * ends with two bytes instead of one. */
    bool room = problems->length + problems->kept + size < sizeof(problems->text);
    if (!room || problems->kept + 1 < problems->count) {
        return;
    }
    snprintf(problems->text + problems->length, size, "%s%s", one.text, cut ? "…" : "");
    problems->length += size;
    problems->kept++;
}

int problems_finish(const struct problems *problems, enum status status, const char *subject,
                    struct error *err)
{
    if (problems->count == 0) {
        return STATUS_OK;
    }
    if (problems->count == 1) {
        return ERROR(err, status, "%s: %s", subject, problems->text);
    }
    char joined[sizeof(problems->text)];
    size_t length = 0;
    const char *at = problems->text;
    for (size_t i = 0; i < problems->kept; i++) {
        length += (size_t)snprintf(joined + length, sizeof(joined) - length, "%s%s",
                                   i > 0 ? "; " : "", at);
        at += strlen(at) + 1;
    }
    if (problems->count > problems->kept) {
        return ERROR(err, status, "%s: %zu problems: %s; and %zu more", subject, problems->count,
                     joined, problems->count - problems->kept);
    }
    return ERROR(err, status, "%s: %zu problems: %s", subject, problems->count, joined);
}
