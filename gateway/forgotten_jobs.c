#include "gateway/forgotten_jobs.h"

#include <stdint.h>
#include <string.h>

#include "common/base/hash.h"
#include "common/base/id.h"
#include "common/base/panic.h"

/* With one slot a row a tenth of 14,000 jobs would be lost; with 16 nearly all of the last 50,000
 * are known. */
#define ROWS 4096
#define ROW_SLOTS 16

struct forgotten_jobs {
    /* Hashes, in the row that they say, the latest first; 512 KiB each, taken at the first job of
     * the kind. Ids that an Idempotency-Key made have rows of their own, as cache hits come by the
     * thousand and a key may come again. */
    uint64_t (*kinds[2])[ROW_SLOTS];
};

struct forgotten_jobs *forgotten_jobs_create(void)
{
    return xcalloc(1, sizeof(struct forgotten_jobs));
}

void forgotten_jobs_destroy(struct forgotten_jobs *f)
{
    if (f == NULL) {
        return;
    }
    xfree(f->kinds[0]);
    xfree(f->kinds[1]);
    xfree(f);
}

static size_t kind_of(const char *id)
{
    return id_time_ms(id) == 0;
}

void forgotten_jobs_add(struct forgotten_jobs *f, const char *id, const char *key_id)
{
    size_t kind = kind_of(id);
    if (f->kinds[kind] == NULL) {
        f->kinds[kind] = xcalloc(ROWS, sizeof(f->kinds[kind][0]));
    }
    uint64_t hash = hash_two_texts(id, key_id);
    uint64_t *row = f->kinds[kind][hash % ROWS];
    memmove(&row[1], &row[0], (ROW_SLOTS - 1) * sizeof(row[0]));
    row[0] = hash;
}

bool forgotten_jobs_has(const struct forgotten_jobs *f, const char *id, const char *key_id)
{
    size_t kind = kind_of(id);
    uint64_t hash = hash_two_texts(id, key_id);
    for (size_t i = 0; f->kinds[kind] != NULL && i < ROW_SLOTS; i++) {
        if (f->kinds[kind][hash % ROWS][i] == hash) {
            return true;
        }
    }
    return false;
}
