/* The canonical form of a picture and its hash: see content_hash.h. Written by hand, line by line,
 * instead of hashing a serialized message, because protobuf promises no canonical bytes. */
#include "gateway/content_hash.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/panic.h"

/* Prompts are limited long before this (generation_request.h). */
#define CANONICAL_BYTES_MAX (256 * 1024)

static void shortest_decimal(double value, char text[32])
{
    for (int precision = 1; precision <= 17; precision++) {
        snprintf(text, 32, "%.*g", precision, value);
        if (strtod(text, NULL) == value) {
            return;
        }
    }
}

static int append_text(struct buf *out, const char *name, const char *text, struct error *err)
{
    size_t size = strlen(text);
    int result = buf_printf(out, err, "%s %zu\n", name, size);
    if (result == 0) {
        result = buf_append(out, text, size, err);
    }
    return result == 0 ? buf_append(out, "\n", 1, err) : result;
}

/* "name 0.5" for a number that is set; nothing for 0, which is off. */
static int append_number(struct buf *out, const char *name, double value, struct error *err)
{
    char text[32];
    if (!(value > 0 || value < 0)) {
        return 0;
    }
    shortest_decimal(value, text);
    return buf_printf(out, err, "%s %s\n", name, text);
}

static int append_word(struct buf *out, const char *name, const char *word, struct error *err)
{
    return word[0] != '\0' ? buf_printf(out, err, "%s %s\n", name, word) : 0;
}

static int append_loras(struct buf *out, const Crafterse__V1__Generation *generation,
                        struct error *err)
{
    int result = 0;
    for (size_t i = 0; i < generation->n_loras && result == 0; i++) {
        char weight[32];
        shortest_decimal(generation->loras[i]->weight, weight);
        result = buf_printf(out, err, "lora %s %s\n", generation->loras[i]->digest, weight);
    }
    return result;
}

static bool has_input(const Crafterse__V1__Generation *generation)
{
    return generation->init_image != NULL || generation->mask_image != NULL;
}

/* What an order without controls does not have, so that its form stays what it always was. */
static int append_controls(struct buf *out, const Crafterse__V1__Generation *generation,
                           const char *key_id, struct error *err)
{
    const struct {
        const char *name;
        double value;
    } numbers[] = {
        {"eta", generation->eta},
        {"guidance-rescale", generation->guidance_rescale},
        {"guidance-start", generation->guidance_start},
        {"guidance-end", generation->guidance_end},
        {"clip-skip", generation->clip_skip},
        {"tile", generation->tile_x + 2 * generation->tile_y},
        {"strength", generation->strength},
        {"mask-blur", generation->mask_blur},
        {"cache-interval", generation->cache_interval},
        {"cache-branch", generation->cache_branch_id},
        {"tome-ratio", generation->tome_ratio},
    };
    int result = append_word(out, "sigmas", generation->sigmas, err);
    if (result == 0) {
        result = append_word(out, "timestep-spacing", generation->timestep_spacing, err);
    }
    for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]) && result == 0; i++) {
        result = append_number(out, numbers[i].name, numbers[i].value, err);
    }
    if (result == 0 && has_input(generation)) {
        result = append_word(out, "owner", key_id, err);
    }
    if (result == 0 && generation->init_image != NULL) {
        result = append_word(out, "init-image", generation->init_image->sha256, err);
    }
    if (result == 0 && generation->mask_image != NULL) {
        result = append_word(out, "mask-image", generation->mask_image->sha256, err);
    }
    return result == 0 ? append_loras(out, generation, err) : result;
}

int content_hash_canonical(const Crafterse__V1__Generation *generation, const char *key_id,
                           uint64_t seed, struct buf *out, struct error *err)
{
    char guidance[32];
    shortest_decimal(generation->guidance_scale, guidance);
    const char *model =
        generation->model_digest[0] != '\0' ? generation->model_digest : generation->model;
    int result =
        buf_printf(out, err,
                   "crafterse picture %d\nmodel %s\nsize %" PRIu32 "x%" PRIu32 "\nsteps %" PRIu32
                   "\nguidance %s\nscheduler %s\nseed %" PRIu64 "\nformat png\n",
                   has_input(generation) ? 2 : 1, model, generation->width, generation->height,
                   generation->steps, guidance, generation->scheduler, seed);
    if (result == 0) {
        result = append_controls(out, generation, key_id, err);
    }
    if (result == 0) {
        result = append_text(out, "prompt", generation->prompt, err);
    }
    return result == 0 ? append_text(out, "negative", generation->negative_prompt, err) : result;
}

void content_hash(const Crafterse__V1__Generation *generation, const char *key_id, uint64_t seed,
                  char hex[DIGEST_HEX_SIZE])
{
    struct buf canonical;
    struct error err;
    buf_init(&canonical, CANONICAL_BYTES_MAX);
    if (content_hash_canonical(generation, key_id, seed, &canonical, &err) != 0) {
        PANIC("canonical form: %s", err.text);
    }
    digest_sha256_hex(canonical.data, canonical.size, hex);
    buf_deinit(&canonical);
}

void content_hash_of_order(const char *const *hashes, uint32_t n, char hex[DIGEST_HEX_SIZE])
{
    if (n == 1) {
        snprintf(hex, DIGEST_HEX_SIZE, "%s", hashes[0]);
        return;
    }
    struct digest *all = digest_create();
    for (uint32_t i = 0; i < n; i++) {
        digest_update(all, hashes[i], strlen(hashes[i]) + 1);
    }
    digest_finish_hex(all, hex);
}

void content_hash_of_look(const Crafterse__V1__Generation *generation, const char *key_id,
                          char hex[DIGEST_HEX_SIZE])
{
    struct buf canonical;
    struct error err;
    buf_init(&canonical, CANONICAL_BYTES_MAX);
    if (buf_printf(&canonical, &err, "crafterse look 1\nn %" PRIu32 "\n", generation->n) != 0 ||
        content_hash_canonical(generation, key_id, 0, &canonical, &err) != 0) {
        PANIC("canonical form: %s", err.text);
    }
    digest_sha256_hex(canonical.data, canonical.size, hex);
    buf_deinit(&canonical);
}
