/* Any bytes as a safetensors file: refused, or every entry lies inside the file. */
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common/base/panic.h"
#include "tests/fuzz/fuzz.h"
#include "worker/engine/weights/safetensors.h"

/* Reads both ends of every tensor: outside the file they would be outside the mapping. */
static unsigned touch(const struct safetensors *file)
{
    unsigned sum = 0;
    for (size_t i = 0; i < safetensors_count(file); i++) {
        const struct safetensors_entry *entry = safetensors_entry_at(file, i);
        const unsigned char *bytes = entry->data;
        if (entry->size > 0) {
            sum += bytes[0] + (unsigned)bytes[entry->size - 1];
        }
        ASSERT(safetensors_find(file, entry->name) == entry);
    }
    return sum;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char path[64];
    struct error err;
    struct safetensors *file = NULL;
    int descriptor = memfd_create("model", MFD_CLOEXEC);
    ASSERT(descriptor >= 0 && write(descriptor, data, size) == (ssize_t)size);
    snprintf(path, sizeof(path), "/proc/self/fd/%d", descriptor);
    if (safetensors_open(&file, path, &err) == STATUS_OK) {
        volatile unsigned sum = touch(file);
        (void)sum;
        (void)safetensors_metadata(file, "format");
    } else {
        ASSERT(strstr(err.text, path) != NULL);
    }
    safetensors_close(file);
    close(descriptor);
    return 0;
}
