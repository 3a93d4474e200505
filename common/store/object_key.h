/* Where a picture lies in the object store: decided by its content hash alone, so that drawing it
 * twice writes the same object ("<prefix>ab/abcdef....png"). One that its deadline cut short after
 * some steps is another object ("<prefix>ab/abcdef...-12.png"). */
#ifndef COMMON_STORE_OBJECT_KEY_H
#define COMMON_STORE_OBJECT_KEY_H

#include <stdint.h>

#define OBJECT_KEY_SIZE 160

/* partial_steps: 0 = a whole picture. */
void object_key(const char *prefix, const char *content_hash, uint32_t partial_steps,
                char key[OBJECT_KEY_SIZE]);

#endif
