/* The identity of a model: one SHA-256 over what decides its pictures, so that two workers that
 * announce the same digest may serve the same cache entry.
 *
 * It covers every *.safetensors, *.json and *.txt file under the folder (to a depth of 3, hidden
 * files left out), in bytewise order of relative path: the path, the size, and
 *   - the whole content, for files up to 64 MiB;
 *   - for larger ones the first 1 MiB (the tensor header, where there is one), the last 4 KiB, and
 *     1024 blocks of 4 KiB spread evenly between: a 7 GB model is named in milliseconds.
 * So it tells models apart that training or conversion made different; it is no proof against a
 * forger, who could change bytes between the sampled blocks of a large file.
 */
#ifndef WORKER_ENGINE_WEIGHTS_MODEL_DIGEST_H
#define WORKER_ENGINE_WEIGHTS_MODEL_DIGEST_H

#include "common/base/error.h"

#define MODEL_DIGEST_SIZE 65 /* of the text, with its NUL */

/* model_path: a model folder, or a single checkpoint file. hex: 64 lower-case digits, or "" on
 * failure.
 * STATUS_NOT_FOUND when there is no such folder or nothing in it to hash, STATUS_IO. */
int model_digest(const char *model_path, char hex[MODEL_DIGEST_SIZE], struct error *err) MUST_CHECK;

#endif
