#include "worker/engine/layers/module_table.h"

#include "common/base/panic.h"

#define FIRST_CAPACITY 256

void module_table_add(struct module_table *table, const char *name, const struct module *module)
{
    if (table->count == table->capacity) {
        table->capacity = table->capacity > 0 ? 2 * table->capacity : FIRST_CAPACITY;
        table->items = xrealloc(table->items, table->capacity * sizeof(*table->items));
    }
    struct module *entry = &table->items[table->count++];
    *entry = *module;
    entry->name = xstrdup(name);
}

void module_table_deinit(struct module_table *table)
{
    for (size_t i = 0; i < table->count; i++) {
        xfree(table->items[i].name);
    }
    xfree(table->items);
    *table = (struct module_table){0};
}
