/* The layers of a model by name, for what is bound to them after loading: adapters.
 *
 * Every layer that can carry adapters enters itself when it is loaded, under the dotted name that
 * diffusers gives its module ("down_blocks.1.attentions.0.proj_in"). From then on the layer stays
 * where it is: the table points into it.
 */
#ifndef WORKER_ENGINE_LAYERS_MODULE_TABLE_H
#define WORKER_ENGINE_LAYERS_MODULE_TABLE_H

#include <stddef.h>
#include <stdint.h>

struct adapter;

struct module {
    char *name; /* owned by the table */
    int64_t channels_in, channels_out;
    int kernel;                      /* 3, or 1 for linear layers and 1x1 convolutions */
    const struct adapter **adapters; /* the layer's own field */
};

struct module_table {
    struct module *items;
    size_t count, capacity;
};

/* Enter a layer; name is copied, the rest of *module taken as it is. A zeroed table is empty. */
void module_table_add(struct module_table *table, const char *name, const struct module *module);

/* Free what the table owns; the layers are not touched. */
void module_table_deinit(struct module_table *table);

#endif
