/* The LoRAs that an engine may use: found and checked when it is opened, bound to the model's
 * layers for one picture, and taken off again.
 *
 * Every file is read through once at the start (its header; of its data what the digest needs), so
 * that what can be wrong with a request is known before it runs. A file that does not fit the model
 * is listed with the reason and cannot be asked for. Files that were used last stay mapped.
 *
 * Binding writes into the layers: the models belong to whoever runs the picture, who binds before
 * and unbinds after, also when the picture fails. lora_library_check and the list may be read from
 * any thread.
 *
 * A file is identified by what was found at the start: one that has changed since is refused, as
 * its digest has been announced. A mapped file must not be cut short or overwritten in place:
 * replace it (write a new one, rename it over the old).
 */
#ifndef WORKER_ENGINE_LORA_LORA_LIBRARY_H
#define WORKER_ENGINE_LORA_LORA_LIBRARY_H

#include "common/base/arena.h"
#include "common/base/error.h"
#include "worker/engine/engine.h"
#include "worker/engine/lora/lora_targets.h"

struct lora_library;

struct lora_sources {
    const char *folder;       /* its *.safetensors, without those in folders below; NULL: none */
    const char *const *files; /* further ones */
    int file_count;
};

/* The tables outlive the library. STATUS_NOT_FOUND or STATUS_IO when the folder cannot be read,
 * STATUS_INVALID when two files have one name, STATUS_TOO_LARGE past 4096 files. Free with
 * lora_library_close (accepts NULL). */
int lora_library_open(struct lora_library **out, const struct lora_sources *sources,
                      const struct module_table tables[LORA_PARTS],
                      const struct unet_config *config, struct error *err) MUST_CHECK;
void lora_library_close(struct lora_library *library);

/* All of them, by name. Owned by the library and constant. */
const struct engine_lora *lora_library_list(const struct lora_library *library, int *count);

/* Whether these can be used together: STATUS_INVALID naming the LoRA, its weight or what there is.
 * NULL stands for a library without LoRAs. */
int lora_library_check(const struct lora_library *library, const struct engine_adapter_use *uses,
                       int count, struct error *err) MUST_CHECK;

/* Put the LoRAs, which were checked, beside the layers they change; the arena holds the lists until
 * lora_library_unbind. STATUS_CORRUPT, STATUS_IO ... when a file has changed or gone: then nothing
 * is bound. */
int lora_library_bind(struct lora_library *library, const struct engine_adapter_use *uses,
                      int count, struct arena *arena, struct error *err) MUST_CHECK;

/* Bytes of these LoRAs' files, which are mapped while a picture uses them; unknown names count
 * nothing. */
size_t lora_library_bytes(const struct lora_library *library, const struct engine_adapter_use *uses,
                          int count);

/* "a: 0123456789ab, b: ..." with the hash of each file, for LoRAs that were checked; "" for none.
 * xfree it. */
char *lora_library_hashes(const struct lora_library *library, const struct engine_adapter_use *uses,
                          int count);

/* Take all of them off: the model is what it was without any. NULL does nothing. */
void lora_library_unbind(struct lora_library *library);

#endif
