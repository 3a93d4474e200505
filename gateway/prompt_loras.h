/* The LoRAs that a prompt names, "<lora:NAME:0.8>" or "<lyco:NAME>", as the engine finds them
 * (worker/engine/prompt/prompt_syntax.h). The gateway needs the names alone: which files they are
 * belongs to the identity of a picture. Pure. */
#ifndef GATEWAY_PROMPT_LORAS_H
#define GATEWAY_PROMPT_LORAS_H

#include <stdbool.h>

#define PROMPT_LORAS_NAME_MAX 256 /* bytes, with the NUL; a longer one is cut */

/* The name in the first tag of the text at *at, which moves on behind the tag. False: no more. */
bool prompt_loras_next(const char **at, char name[PROMPT_LORAS_NAME_MAX]);

#endif
