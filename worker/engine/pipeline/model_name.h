/* What a model is called, from the path it is opened by.
 */
#ifndef WORKER_ENGINE_PIPELINE_MODEL_NAME_H
#define WORKER_ENGINE_PIPELINE_MODEL_NAME_H

#include <stddef.h>

/* The last part of the path as it is given, without ".safetensors" and whatever it is a link to;
 * where that names nothing ("", ".", ".."), of the path it stands for. A snapshot in a Hugging Face
 * cache, models--OWNER--NAME/snapshots/REVISION, is called NAME. Cut to size. */
void model_name_of(const char *path, char *name, size_t size);

#endif
