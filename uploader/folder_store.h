/* A store in a folder of this machine (or a mounted one): an object is the file FOLDER/KEY.
 *
 * An object appears whole or not at all: it is written to FOLDER/.incoming and linked to its name,
 * which fails when the name is taken. Durable means that it is synced to the disk on the way, file
 * and folder, so that it outlives the machine's power: some milliseconds, or many on a busy disk.
 */
#ifndef UPLOADER_FOLDER_STORE_H
#define UPLOADER_FOLDER_STORE_H

#include <stdbool.h>

#include "uploader/store.h"

/* folder is copied; it is made by store_check or the first put when it is missing. Never fails. */
struct store *folder_store_create(const char *folder, bool durable);

#endif
