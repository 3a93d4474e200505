#include "gateway/prompt_loras.h"

#include <stdio.h>
#include <string.h>

#define OPENING_BYTES 6

bool prompt_loras_next(const char **at, char name[PROMPT_LORAS_NAME_MAX])
{
    for (const char *open = *at; (open = strchr(open, '<')) != NULL; open++) {
        if (strncmp(open, "<lora:", OPENING_BYTES) != 0 &&
            strncmp(open, "<lyco:", OPENING_BYTES) != 0) {
            continue;
        }
        const char *start = open + OPENING_BYTES, *end = strchr(start, '>');
        if (end == NULL || end == start) {
            continue;
        }
        snprintf(name, PROMPT_LORAS_NAME_MAX, "%.*s", (int)strcspn(start, ":>"), start);
        *at = end + 1;
        return true;
    }
    return false;
}
