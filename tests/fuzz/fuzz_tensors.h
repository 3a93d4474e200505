/* A safetensors file written from text, for fuzzers of what is made of its tensors: mutations of
 * names and shapes give a file that opens, which mutations of its bytes would hardly do. (Those are
 * fuzz_safetensors's.)
 *
 * A line is "TYPE NAME EXTENT…", TYPE one of f (F32), h (F16), b (BF16), i (I64), q (F8_E4M3); or
 * "# KEY VALUE" for the metadata. All other lines are left out, and tensors that are too large.
 * Every byte of data is 1.
 */
#ifndef TESTS_FUZZ_FUZZ_TENSORS_H
#define TESTS_FUZZ_FUZZ_TENSORS_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common/base/panic.h"
#include "common/base/utf8.h"
#include "worker/engine/config/json.h"

#define FUZZ_TENSOR_BYTES_MAX ((size_t)1 << 16)
#define FUZZ_DATA_BYTES_MAX ((size_t)1 << 22)

struct fuzz_tensors {
    FILE *header;
    char *text;
    size_t length;
    size_t data; /* bytes of it so far */
    char path[64];
    int descriptor;
};

static inline size_t fuzz_type(char letter, const char **name)
{
    static const struct {
        char letter;
        const char *name;
        size_t size;
    } types[] = {
        {'f', "F32", 4}, {'h', "F16", 2}, {'b', "BF16", 2}, {'i', "I64", 8}, {'q', "F8_E4M3", 1}};
    for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++) {
        if (types[i].letter == letter) {
            *name = types[i].name;
            return types[i].size;
        }
    }
    return 0;
}

static inline void fuzz_line(struct fuzz_tensors *file, char *line)
{
    const char *type = NULL;
    char *rest = line, *kind = strsep(&rest, " "), *name = strsep(&rest, " ");
    size_t size = strlen(kind) == 1 ? fuzz_type(kind[0], &type) : 0;
    char shape[256] = "";
    size_t used = 0;
    if (name == NULL || size == 0) {
        return;
    }
    for (char *word; (word = strsep(&rest, " ")) != NULL && used + 32 < sizeof(shape);) {
        unsigned long extent = strtoul(word, NULL, 10);
        if (extent > FUZZ_TENSOR_BYTES_MAX || (size *= extent) > FUZZ_TENSOR_BYTES_MAX) {
            return;
        }
        used += (size_t)snprintf(shape + used, sizeof(shape) - used, "%s%lu", used > 0 ? "," : "",
                                 extent);
    }
    if (file->data + size > FUZZ_DATA_BYTES_MAX) {
        return;
    }
    char *quoted = json_quote(name);
    fprintf(file->header, ",%s:{\"dtype\":\"%s\",\"shape\":[%s],\"data_offsets\":[%zu,%zu]}",
            quoted, type, shape, file->data, file->data + size);
    xfree(quoted);
    file->data += size;
}

static inline void fuzz_metadata(struct fuzz_tensors *file, char *text)
{
    const char *separator = "";
    fputs("{\"__metadata__\":{", file->header);
    char *rest = text, *line;
    while ((line = strsep(&rest, "\n")) != NULL) {
        char *value = line[0] == '#' && line[1] == ' ' ? strchr(line + 2, ' ') : NULL;
        if (value != NULL) {
            *value++ = '\0';
            char *key = json_quote(line + 2), *quoted = json_quote(value);
            fprintf(file->header, "%s%s:%s", separator, key, quoted);
            xfree(key);
            xfree(quoted);
            separator = ",";
        }
    }
    fputc('}', file->header);
}

/* The file, at path until fuzz_tensors_close. False when the text is none. */
static inline bool fuzz_tensors_open(struct fuzz_tensors *file, const uint8_t *data, size_t size)
{
    *file = (struct fuzz_tensors){.descriptor = -1};
    if (!utf8_is_valid((const char *)data, size) || memchr(data, '\0', size) != NULL) {
        return false;
    }
    char *text = xcalloc(1, size + 1), *copy = xcalloc(1, size + 1);
    memcpy(text, data, size);
    memcpy(copy, data, size);
    file->header = open_memstream(&file->text, &file->length);
    ASSERT(file->header != NULL);
    fuzz_metadata(file, copy);
    char *rest = text, *line;
    while ((line = strsep(&rest, "\n")) != NULL) {
        fuzz_line(file, line);
    }
    fputc('}', file->header);
    fclose(file->header);
    xfree(text);
    xfree(copy);
    unsigned char length[8];
    for (int i = 0; i < 8; i++) {
        length[i] = (unsigned char)(file->length >> (8 * i));
    }
    void *ones = xcalloc(1, file->data + 1);
    memset(ones, 1, file->data);
    file->descriptor = memfd_create("tensors", MFD_CLOEXEC);
    ASSERT(file->descriptor >= 0 && write(file->descriptor, length, sizeof(length)) == 8);
    ASSERT(write(file->descriptor, file->text, file->length) == (ssize_t)file->length);
    ASSERT(write(file->descriptor, ones, file->data) == (ssize_t)file->data);
    xfree(ones);
    snprintf(file->path, sizeof(file->path), "/proc/self/fd/%d", file->descriptor);
    return true;
}

static inline void fuzz_tensors_close(struct fuzz_tensors *file)
{
    if (file->descriptor >= 0) {
        close(file->descriptor);
        xfree(file->text);
    }
}

#endif
