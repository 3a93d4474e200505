/* A store in a folder of this machine (or a mounted one): an object is the file FOLDER/KEY.
 *
 * An object appears whole and durable or not at all: it is written to FOLDER/.incoming, synced, and
 * linked to its name, which fails when the name is taken. */
#ifndef UPLOADER_FOLDER_STORE_H
#define UPLOADER_FOLDER_STORE_H

#include "uploader/store.h"

/* folder is copied; it is made by store_check or the first put when it is missing. Never fails. */
struct store *folder_store_create(const char *folder);

#endif
