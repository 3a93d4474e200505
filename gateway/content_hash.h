/* The name of a picture: SHA-256 over everything that decides its bytes. Cache, in-flight dedup and
 * object key use it; who ordered it and when do not enter, but for orders with pictures of their
 * own (inputs): a key's inputs are for its own orders only, so what is drawn from them is as well.
 *
 * Canonical form (every line ends with one line feed, texts are counted in bytes so that no text
 * can imitate another line; numbers have no leading zeros):
 *
 *   crafterse picture <1, or 2 of an order with inputs>
 *   model <model digest as announced, or the model's name when it announces none>
 *   size <width>x<height>
 *   steps <steps>
 *   guidance <shortest decimal that reads back as the same double, as printf %.*g writes it>
 *   scheduler <name>
 *   seed <seed of this picture>
 *   format png
 *   <one line for each control that is set, in this order: sigmas, timestep-spacing, eta,
 *    guidance-rescale, guidance-start, guidance-end, clip-skip, tile (1 = x, 2 = y, 3 = both),
 *    strength, mask-blur, cache-interval, cache-branch, tome-ratio, owner <key id> (with
 *    inputs), init-image <SHA-256>, mask-image <SHA-256>, and for each LoRA
 *    lora <SHA-256 of its file> <weight>; weight 0 for one that only the prompt names>
 *   prompt <byte count>
 *   <prompt bytes as sent>
 *   negative <byte count>
 *   <negative prompt bytes as sent>
 *
 * A change of this form is a new number in the first line. Test vectors:
 * tests/unit/gateway/test_content_hash.c.
 */
#ifndef GATEWAY_CONTENT_HASH_H
#define GATEWAY_CONTENT_HASH_H

#include "common/base/buf.h"
#include "common/base/digest.h"
#include "proto/job.pb-c.h"

/* Appends the canonical form of the picture of `generation` with this seed; key_id is who orders
 * it. */
int content_hash_canonical(const Crafterse__V1__Generation *generation, const char *key_id,
                           uint64_t seed, struct buf *out, struct error *err) MUST_CHECK;
/* The hash of that, as 64 lower-case hex digits. */
void content_hash(const Crafterse__V1__Generation *generation, const char *key_id, uint64_t seed,
                  char hex[DIGEST_HEX_SIZE]);

/* What an order of n pictures is remembered by: their hashes, which for one picture is its own, ...
 */
void content_hash_of_order(const char *const *hashes, uint32_t n, char hex[DIGEST_HEX_SIZE]);
/* ... and what it asks for but for the seed: the SHA-256 of "crafterse look 1\nn <n>\n" and the
 * canonical form with seed 0. */
void content_hash_of_look(const Crafterse__V1__Generation *generation, const char *key_id,
                          char hex[DIGEST_HEX_SIZE]);

#endif
