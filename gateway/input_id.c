/* Ids of input pictures: see input_id.h. */
#include "gateway/input_id.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "common/base/digest.h"
#include "common/base/panic.h"

#define HEX_DIGITS "0123456789abcdef"

void input_id_format(const Crafterse__V1__Input *input, char id[INPUT_ID_SIZE])
{
    snprintf(id, INPUT_ID_SIZE, "input-%" PRId32 "-%" PRId64 "-%" PRIu32 "x%" PRIu32 "-%s",
             input->partition, input->offset, input->width, input->height, input->sha256);
}

bool input_id_parse(const char *id, Crafterse__V1__Input *input)
{
    char sha256[DIGEST_HEX_SIZE], again[INPUT_ID_SIZE];
    int end = 0;
    if (strlen(id) >= INPUT_ID_SIZE ||
        sscanf(
            id, "input-%9" SCNd32 "-%18" SCNd64 "-%5" SCNu32 "x%5" SCNu32 "-%64[" HEX_DIGITS "]%n",
            &input->partition, &input->offset, &input->width, &input->height, sha256, &end) != 5 ||
        id[end] != '\0' || strlen(sha256) != DIGEST_HEX_SIZE - 1 || input->partition < 0 ||
        input->offset < 0 || input->width < 1 || input->width > INPUT_SIDE_MAX ||
        input->height < 1 || input->height > INPUT_SIDE_MAX) {
        return false;
    }
    /* One way to write each: sscanf allows signs, zeros and spaces before a number. */
    input->sha256 = sha256;
    input_id_format(input, again);
    input->sha256 = NULL;
    if (strcmp(again, id) != 0) {
        return false;
    }
    input->sha256 = xstrdup(sha256);
    return true;
}

void input_id_free(Crafterse__V1__Input *input)
{
    if (input != NULL) {
        xfree(input->sha256);
        xfree(input);
    }
}
