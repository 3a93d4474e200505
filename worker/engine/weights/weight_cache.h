/* Packed weights, kept on disk between starts: what a layer computes from its weights for the
 * arithmetic of this machine is made once, and mapped ever after, by all workers of a host.
 *
 * One file, FOLDER/KEY.packed, for each identity: a text that names the model's digest and
 * everything else that decides a byte of what is packed. A start that finds it maps it read-only.
 * One that does not makes it: what a layer has packed is written into a file that grows (KEY.part)
 * and mapped from there at the address that it had, and when all is there a thread waits for the
 * disk and renames the file, while the first pictures are made. Whoever starts meanwhile (KEY.lock
 * says so) waits, for a while, and then has the same file; so several workers hold one copy of the
 * weights in memory.
 *
 * It never fails, as nothing depends on it: a folder that cannot be written, a full disk, a damaged
 * file are said by weight_cache_note, and the weights are packed into memory as without a folder.
 * Files are bounded: those longest unused are removed until all of a folder take no more than
 * limit, and none is begun that would leave less than a gigabyte of the disk.
 *
 * A file must never be changed in place: it is mapped by others. To be rid of it, remove it.
 *
 * Threads: one at a time.
 */
#ifndef WORKER_ENGINE_WEIGHTS_WEIGHT_CACHE_H
#define WORKER_ENGINE_WEIGHTS_WEIGHT_CACHE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define WEIGHT_CACHE_IDENTITY_MAX 512 /* with its NUL */
#define WEIGHT_CACHE_NAME_MAX 296

#define WEIGHT_CACHE_LIMIT ((uint64_t)32 << 30) /* bytes, when not said otherwise */

struct weight_cache;

/* folder: NULL or "": memory only; made when it is not there. identity: below
 * WEIGHT_CACHE_IDENTITY_MAX bytes. limit: bytes of all files of the folder; 0:
 * WEIGHT_CACHE_LIMIT. May wait for another process that is packing the same. Never NULL. */
struct weight_cache *weight_cache_open(const char *folder, const char *identity, uint64_t limit);

/* size bytes (at least 1), aligned to 64, that live until weight_cache_close. name: below
 * WEIGHT_CACHE_NAME_MAX. *is_made: they hold
 * what was once packed under this name, to be read only; else the caller fills all of them, which
 * hold anything, before the next weight_cache_room or weight_cache_finish. Each name once. */
void *weight_cache_room(struct weight_cache *cache, const char *name, size_t size, bool *is_made);

/* All room has been taken and filled: nothing is written from now on. */
void weight_cache_finish(struct weight_cache *cache);

/* Without finish, what was made is dropped. Waits until the disk has the file. Accepts NULL. */
void weight_cache_close(struct weight_cache *cache);

/* What came of it, for a log: "read from FILE", "kept in FILE", or why not. Once finished. */
const char *weight_cache_note(const struct weight_cache *cache);

/* Whether the note is one of something that went wrong. */
bool weight_cache_is_amiss(const struct weight_cache *cache);

/* Bytes of packed weights: mapped from a file (which memory's pressure may take back), and not. */
void weight_cache_bytes(const struct weight_cache *cache, size_t *mapped, size_t *anonymous);

/* Where the cache is by default: $CRAFTERSE_CACHE_FOLDER, else $XDG_CACHE_HOME/crafterse, else
 * ~/.cache/crafterse; "" when none of them is set. For the size bytes of path. */
void weight_cache_default_folder(char *path, size_t size);

#endif
