/* txt2img --estimate: what pictures of a model take in memory, as text on stdout.
 */
#ifndef WORKER_CLI_ESTIMATE_TABLE_H
#define WORKER_CLI_ESTIMATE_TABLE_H

#include "worker/engine/engine.h"

/* The given picture's stages, then what is safe: a line for each of some usual sizes and for the
 * picture's own, with either way of holding the weights; the qualities at the picture's size. */
int estimate_table_print(const struct engine *engine, const struct generation *generation,
                         struct error *err) MUST_CHECK;

#endif
