/* The controls of a generation beyond the basic fields: noise schedule, guidance interval, seamless
 * tiling, LoRAs, image-to-image and inpainting. Part of generation_request.c, which owns the whole.
 * Pure. */
#ifndef GATEWAY_GENERATION_CONTROLS_H
#define GATEWAY_GENERATION_CONTROLS_H

#include "gateway/field_reader.h"

/* The table of their fields, for generation_request.c's own. */
extern const struct field generation_controls_fields[];
extern const size_t generation_controls_field_count;

/* Once all fields are read: adds problems of fields that do not go together and fills in what
 * follows from others (strength, the size of the picture to start from). */
void generation_controls_finish(struct field_reader *r, const cJSON *root);

/* Frees what the fields above hold in a generation. */
void generation_controls_deinit(Crafterse__V1__Generation *generation);

#endif
