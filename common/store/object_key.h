/* Where a picture lies in the object store: decided by its content hash alone, so that drawing it
 * twice writes the same object ("<prefix>ab/abcdef....png"). */
#ifndef COMMON_STORE_OBJECT_KEY_H
#define COMMON_STORE_OBJECT_KEY_H

#define OBJECT_KEY_SIZE 160

void object_key(const char *prefix, const char *content_hash, char key[OBJECT_KEY_SIZE]);

#endif
