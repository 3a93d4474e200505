#include "worker/engine/lora/lora_targets.h"

#include <stdlib.h>
#include <string.h>

#include "common/base/panic.h"

struct name {
    enum lora_part part;
    char *flat;
    size_t target;
};

struct lora_targets {
    const struct module **modules;
    size_t count;
    struct name *names; /* sorted; the UNet's layers have two */
    size_t name_count;
};

static int by_name(const void *left, const void *right)
{
    const struct name *a = left, *b = right;
    return a->part != b->part ? (int)a->part - (int)b->part : strcmp(a->flat, b->flat);
}

static void add_name(struct lora_targets *targets, enum lora_part part, const char *flat)
{
    targets->names[targets->name_count++] =
        (struct name){.part = part, .flat = xstrdup(flat), .target = targets->count};
}

static void add_module(struct lora_targets *targets, enum lora_part part,
                       const struct module *module, const struct unet_config *config)
{
    char flat[LORA_NAME_MAX];
    lora_key_flat_name(module->name, flat);
    add_name(targets, part, flat);
    if (part == LORA_UNET && lora_key_original_name(config, module->name, flat)) {
        add_name(targets, part, flat);
    }
    targets->modules[targets->count++] = module;
}

struct lora_targets *lora_targets_create(const struct module_table tables[LORA_PARTS],
                                         const struct unet_config *config)
{
    struct lora_targets *targets = xcalloc(1, sizeof(*targets));
    size_t count = 0;
    for (int part = 0; part < LORA_PARTS; part++) {
        count += tables[part].count;
    }
    targets->modules = xcalloc(count, sizeof(struct module *));
    targets->names = xcalloc(2 * count, sizeof(*targets->names));
    for (int part = 0; part < LORA_PARTS; part++) {
        for (size_t i = 0; i < tables[part].count; i++) {
            add_module(targets, (enum lora_part)part, &tables[part].items[i], config);
        }
    }
    qsort(targets->names, targets->name_count, sizeof(*targets->names), by_name);
    return targets;
}

void lora_targets_destroy(struct lora_targets *targets)
{
    if (targets == NULL) {
        return;
    }
    for (size_t i = 0; i < targets->name_count; i++) {
        xfree(targets->names[i].flat);
    }
    xfree(targets->names);
    xfree(targets->modules);
    xfree(targets);
}

size_t lora_targets_count(const struct lora_targets *targets)
{
    return targets->count;
}

const struct module *lora_targets_at(const struct lora_targets *targets, size_t i)
{
    ASSERT(i < targets->count);
    return targets->modules[i];
}

int64_t lora_targets_find(const struct lora_targets *targets, enum lora_part part,
                          const char *flat_name)
{
    size_t low = 0, high = targets->name_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        const struct name *name = &targets->names[middle];
        int order =
            name->part != part ? (int)part - (int)name->part : strcmp(flat_name, name->flat);
        if (order == 0) {
            return (int64_t)name->target;
        }
        if (order > 0) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return -1;
}
