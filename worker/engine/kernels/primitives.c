#include "worker/engine/kernels/primitives.h"

#include <pthread.h>
#include <string.h>

#include "common/base/panic.h"

struct entry {
    struct entry *next;
    struct primitives_key key;
    struct onednn_primitive *primitive;
};

/* A list: a model has some tens of shapes, and looking one up is nothing beside running it. */
struct primitives {
    pthread_mutex_t lock;
    int threads;
    struct entry *entries;
};

struct primitives *primitives_create(int threads)
{
    struct primitives *primitives = xcalloc(1, sizeof(*primitives));
    pthread_mutex_init(&primitives->lock, NULL);
    primitives->threads = threads;
    return primitives;
}

void primitives_destroy(struct primitives *primitives)
{
    if (primitives == NULL) {
        return;
    }
    struct entry *next;
    for (struct entry *entry = primitives->entries; entry != NULL; entry = next) {
        next = entry->next;
        onednn_primitive_destroy(entry->primitive);
        xfree(entry);
    }
    pthread_mutex_destroy(&primitives->lock);
    xfree(primitives);
}

static int make(struct primitives *primitives, const struct primitives_key *key,
                primitives_describe describe, struct entry **out, struct error *err)
{
    dnnl_primitive_desc_t description;
    struct onednn_primitive *primitive;
    onednn_enter_thread();
    int result = describe(key, &description, err);
    if (result < 0 ||
        (result = onednn_primitive_create(&primitive, description, primitives->threads, err)) < 0) {
        return result;
    }
    struct entry *entry = xcalloc(1, sizeof(*entry));
    *entry = (struct entry){.next = primitives->entries, .key = *key, .primitive = primitive};
    primitives->entries = entry;
    *out = entry;
    return STATUS_OK;
}

const struct onednn_primitive *primitives_get(struct primitives *primitives,
                                              const struct primitives_key *key,
                                              primitives_describe describe, struct error *err)
{
    pthread_mutex_lock(&primitives->lock);
    struct entry *entry = primitives->entries;
    while (entry != NULL && memcmp(&entry->key, key, sizeof(*key)) != 0) {
        entry = entry->next;
    }
    int result = entry != NULL ? STATUS_OK : make(primitives, key, describe, &entry, err);
    pthread_mutex_unlock(&primitives->lock);
    return result == STATUS_OK ? entry->primitive : NULL;
}
