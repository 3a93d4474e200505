#include "worker/engine/tokenizer/bpe_model.h"

#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/panic.h"
#include "worker/engine/config/json.h"
#include "worker/engine/config/problems.h"
#include "worker/engine/config/text_file.h"
#include "worker/engine/tokenizer/clip_merges.h"

#define WORD_END "</w>"
#define ID_MAX 0xFFFFFF
#define TOKEN_BYTES_MAX 1024
#define ROOM_FIRST 1024 /* entries; the tables double from there */

struct token {
    char *text;
    int32_t id;
};

struct merge {
    uint64_t pair; /* left id << 32 | right id */
    int32_t rank;
    int32_t merged;
};

struct bpe_model {
    struct token *tokens; /* sorted by text */
    size_t token_count;
    size_t token_room;
    struct merge *merges; /* sorted by pair */
    size_t merge_count;
    size_t merge_room;
    int size;
    int32_t byte_ids[256];     /* of a byte inside a word, -1 when unknown */
    int32_t byte_end_ids[256]; /* of a byte that ends a word */
};

/* ---- Tables --------------------------------------------------------------------------------- */

static int by_text(const void *left, const void *right)
{
    const struct token *a = left, *b = right;
    return strcmp(a->text, b->text);
}

static int by_pair_and_rank(const void *left, const void *right)
{
    const struct merge *a = left, *b = right;
    if (a->pair != b->pair) {
        return a->pair < b->pair ? -1 : 1;
    }
    return a->rank < b->rank ? -1 : a->rank > b->rank;
}

static int by_pair(const void *left, const void *right)
{
    const struct merge *a = left, *b = right;
    return a->pair < b->pair ? -1 : a->pair > b->pair;
}

int32_t bpe_model_find(const struct bpe_model *model, const char *token)
{
    char text[TOKEN_BYTES_MAX];
    size_t length = strlen(token);
    if (length >= sizeof(text)) {
        return -1;
    }
    memcpy(text, token, length + 1);
    const struct token key = {.text = text};
    const struct token *found =
        bsearch(&key, model->tokens, model->token_count, sizeof(key), by_text);
    return found != NULL ? found->id : -1;
}

static const struct merge *find_merge(const struct bpe_model *model, int32_t left, int32_t right)
{
    const struct merge key = {.pair = (uint64_t)(uint32_t)left << 32 | (uint32_t)right};
    return left < 0 || right < 0
               ? NULL
               : bsearch(&key, model->merges, model->merge_count, sizeof(key), by_pair);
}

static void add_token(struct bpe_model *model, const char *text, int32_t id)
{
    if (model->token_count == model->token_room) {
        model->token_room *= 2;
        model->tokens = xrealloc(model->tokens, model->token_room * sizeof(*model->tokens));
    }
    model->tokens[model->token_count++] = (struct token){.text = xstrdup(text), .id = id};
    model->size = id >= model->size ? id + 1 : model->size;
}

static void read_vocabulary(struct bpe_model *model, const struct json_value *vocabulary,
                            struct problems *problems)
{
    for (const struct json_value *at = json_first(vocabulary); at != NULL; at = json_next(at)) {
        int64_t id = 0;
        const char *text = json_key(at);
        if (text == NULL || !json_whole(at, 0, ID_MAX, &id) || strlen(text) >= TOKEN_BYTES_MAX) {
            problems_add(problems, "token \"%.64s\": expected an id from 0 to %d",
                         text != NULL ? text : "", ID_MAX);
        } else {
            add_token(model, text, (int32_t)id);
        }
    }
    if (model->token_count == 0) {
        problems_add(problems, "the vocabulary is missing or empty");
    }
    qsort(model->tokens, model->token_count, sizeof(*model->tokens), by_text);
}

static void check_vocabulary(const struct bpe_model *model, struct problems *problems)
{
    bool *seen = xcalloc((size_t)model->size, sizeof(*seen));
    for (size_t i = 0; i < model->token_count; i++) {
        const struct token *token = &model->tokens[i];
        if (i > 0 && strcmp(token[-1].text, token->text) == 0) {
            problems_add(problems, "token \"%.64s\": listed twice", token->text);
        }
        if (seen[token->id]) {
            problems_add(problems, "token \"%.64s\": id %d belongs to another token too",
                         token->text, token->id);
        }
        seen[token->id] = true;
    }
    xfree(seen);
}

static void add_merge(struct bpe_model *model, const char *left, const char *right,
                      struct problems *problems)
{
    char joined[2 * TOKEN_BYTES_MAX];
    int32_t rank = (int32_t)model->merge_count;
    int32_t left_id = bpe_model_find(model, left), right_id = bpe_model_find(model, right);
    if ((size_t)snprintf(joined, sizeof(joined), "%s%s", left, right) >= sizeof(joined)) {
        joined[0] = '\0';
    }
    int32_t merged = bpe_model_find(model, joined);
    if (left_id < 0 || right_id < 0 || merged < 0) {
        problems_add(problems,
                     "merge %d \"%.64s %.64s\": not all of its tokens are in the "
                     "vocabulary",
                     rank, left, right);
    }
    if (model->merge_count == model->merge_room) {
        model->merge_room *= 2;
        model->merges = xrealloc(model->merges, model->merge_room * sizeof(*model->merges));
    }
    model->merges[model->merge_count++] = (struct merge){
        .pair = (uint64_t)(uint32_t)left_id << 32 | (uint32_t)right_id,
        .rank = rank,
        .merged = merged,
    };
}

/* Of a pair that is listed twice the later rank counts, as in a table filled in order. */
static void sort_merges(struct bpe_model *model)
{
    size_t kept = 0;
    qsort(model->merges, model->merge_count, sizeof(*model->merges), by_pair_and_rank);
    for (size_t i = 0; i < model->merge_count; i++) {
        if (kept > 0 && model->merges[kept - 1].pair == model->merges[i].pair) {
            kept--;
        }
        model->merges[kept++] = model->merges[i];
    }
    model->merge_count = kept;
}

/* GPT-2 writes bytes that print as themselves, and the others as the characters from U+0100 on. */
struct byte_spelling {
    char text[3];
    char ended[3 + sizeof(WORD_END)];
};

static bool byte_prints(int byte)
{
    return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte != 0xAD);
}

static void spell_bytes(struct byte_spelling spellings[256])
{
    int next = 0x100;
    for (int byte = 0; byte < 256; byte++) {
        struct byte_spelling *spelling = &spellings[byte];
        int character = byte_prints(byte) ? byte : next++;
        if (character < 0x80) {
            snprintf(spelling->text, sizeof(spelling->text), "%c", character);
        } else {
            snprintf(spelling->text, sizeof(spelling->text), "%c%c", 0xC0 | character >> 6,
                     0x80 | (character & 0x3F));
        }
        snprintf(spelling->ended, sizeof(spelling->ended), "%s" WORD_END, spelling->text);
    }
}

static void make_byte_ids(struct bpe_model *model)
{
    struct byte_spelling spellings[256];
    spell_bytes(spellings);
    for (int byte = 0; byte < 256; byte++) {
        model->byte_ids[byte] = bpe_model_find(model, spellings[byte].text);
        model->byte_end_ids[byte] = bpe_model_find(model, spellings[byte].ended);
    }
}

/* ---- Files ---------------------------------------------------------------------------------- */

/* One merge a line, "left right"; a first line with the version. Ends up with NULs in text. */
static void read_merge_lines(struct bpe_model *model, char *text, struct problems *problems)
{
    char *rest = text, *line;
    for (int number = 1; (line = strsep(&rest, "\n")) != NULL; number++) {
        line[strcspn(line, "\r")] = '\0';
        if (strncmp(line, "#version", strlen("#version")) == 0 || line[0] == '\0') {
            continue;
        }
        char *space = strchr(line, ' ');
        if (space == NULL || space == line || space[1] == '\0' || strchr(space + 1, ' ') != NULL) {
            problems_add(problems, "line %d: expected two tokens with one space between them",
                         number);
            continue;
        }
        *space = '\0';
        add_merge(model, line, space + 1, problems);
    }
}

static int open_lists(struct bpe_model *model, const char *dir, struct error *err)
{
    char vocabulary_path[PATH_MAX], merges_path[PATH_MAX];
    struct json *vocabulary = NULL;
    struct problems problems;
    char *text = NULL;
    size_t length = 0;
    snprintf(vocabulary_path, sizeof(vocabulary_path), "%s/vocab.json", dir);
    snprintf(merges_path, sizeof(merges_path), "%s/merges.txt", dir);

    int result = json_open(&vocabulary, vocabulary_path, err);
    if (result < 0) {
        return result;
    }
    problems_init(&problems);
    read_vocabulary(model, json_root(vocabulary), &problems);
    check_vocabulary(model, &problems);
    json_close(vocabulary);
    result = problems_finish(&problems, STATUS_CORRUPT, vocabulary_path, err);
    if (result == STATUS_OK) {
        result = text_file_read(merges_path, JSON_SIZE_MAX, &text, &length, err);
    }
    if (result == STATUS_OK) {
        read_merge_lines(model, text, &problems);
        result = problems_finish(&problems, STATUS_CORRUPT, merges_path, err);
        xfree(text);
    }
    return result;
}

/* In tokenizer.json a merge is "left right" or ["left", "right"]. */
static void read_merge_list(struct bpe_model *model, const struct json_value *list,
                            struct problems *problems)
{
    char pair[2 * TOKEN_BYTES_MAX];
    for (const struct json_value *at = json_first(list); at != NULL; at = json_next(at)) {
        const char *left = json_text(json_first(at));
        const char *right = json_text(json_next(json_first(at)));
        const char *line = json_text(at);
        if (line != NULL && strlen(line) < sizeof(pair)) {
            memcpy(pair, line, strlen(line) + 1);
            char *rest = pair;
            left = strsep(&rest, " ");
            right = rest;
        }
        if (left == NULL || right == NULL) {
            problems_add(problems, "model.merges: expected pairs of tokens");
            return;
        }
        add_merge(model, left, right, problems);
    }
}

static int open_combined(struct bpe_model *model, const char *path, struct error *err)
{
    struct json *json = NULL;
    struct problems problems;
    int result = json_open(&json, path, err);
    if (result < 0) {
        return result;
    }
    const struct json_value *section = json_member(json_root(json), "model");
    problems_init(&problems);
    read_vocabulary(model, json_member(section, "vocab"), &problems);
    check_vocabulary(model, &problems);
    read_merge_list(model, json_member(section, "merges"), &problems);
    json_close(json);
    return problems_finish(&problems, STATUS_CORRUPT, path, err);
}

static struct bpe_model *create_empty(void)
{
    struct bpe_model *model = xcalloc(1, sizeof(*model));
    model->token_room = ROOM_FIRST;
    model->tokens = xcalloc(ROOM_FIRST, sizeof(*model->tokens));
    model->merge_room = ROOM_FIRST;
    model->merges = xcalloc(ROOM_FIRST, sizeof(*model->merges));
    return model;
}

/* The tables are filled, or result says why not. */
static int finish_opening(struct bpe_model *model, int result, struct bpe_model **out)
{
    if (result < 0) {
        bpe_model_close(model);
        return result;
    }
    sort_merges(model);
    make_byte_ids(model);
    *out = model;
    return STATUS_OK;
}

int bpe_model_open(struct bpe_model **out, const char *dir, struct error *err)
{
    char combined[PATH_MAX];
    *out = NULL;
    if ((size_t)snprintf(combined, sizeof(combined), "%s/tokenizer.json", dir) >=
        sizeof(combined)) {
        return ERROR(err, STATUS_INVALID, "%s: path too long", dir);
    }
    struct bpe_model *model = create_empty();
    int result = access(combined, F_OK) == 0 ? open_combined(model, combined, err)
                                             : open_lists(model, dir, err);
    return finish_opening(model, result, out);
}

/* The tokens that need no merge, and those that each line "left right" of merges makes. */
static void add_packaged_tokens(struct bpe_model *model, const char *merges)
{
    struct byte_spelling spellings[256];
    int32_t id = 0;
    spell_bytes(spellings);
    for (int i = 0; i < 4 * 256; i++) { /* plain, then ended; of each those that print first */
        int byte = i % 256;
        const struct byte_spelling *spelling = &spellings[byte];
        if (byte_prints(byte) == (i / 256 % 2 == 0)) {
            add_token(model, i < 2 * 256 ? spelling->text : spelling->ended, id++);
        }
    }
    const char *line = strchr(merges, '\n') + 1; /* after the version */
    const char *stop = line + strlen(line);
    for (const char *end; (end = memchr(line, '\n', (size_t)(stop - line))); line = end + 1) {
        char token[TOKEN_BYTES_MAX];
        const char *space = memchr(line, ' ', (size_t)(end - line));
        ASSERT(space != NULL);
        snprintf(token, sizeof(token), "%.*s%.*s", (int)(space - line), line,
                 (int)(end - space) - 1, space + 1);
        add_token(model, token, id++);
    }
    add_token(model, "<|startoftext|>", id++);
    add_token(model, "<|endoftext|>", id);
    qsort(model->tokens, model->token_count, sizeof(*model->tokens), by_text);
}

int bpe_model_open_packaged(struct bpe_model **out, struct error *err)
{
    struct problems problems;
    *out = NULL;
    problems_init(&problems);
    struct bpe_model *model = create_empty();
    add_packaged_tokens(model, clip_merges);
    check_vocabulary(model, &problems);
    char *text = xstrdup(clip_merges);
    read_merge_lines(model, text, &problems);
    xfree(text);
    return finish_opening(
        model, problems_finish(&problems, STATUS_CORRUPT, "packaged CLIP vocabulary", err), out);
}

void bpe_model_close(struct bpe_model *model)
{
    if (model == NULL) {
        return;
    }
    for (size_t i = 0; i < model->token_count; i++) {
        xfree(model->tokens[i].text);
    }
    xfree(model->tokens);
    xfree(model->merges);
    xfree(model);
}

int bpe_model_size(const struct bpe_model *model)
{
    return model->size;
}

/* ---- Merging -------------------------------------------------------------------------------- */

/* A word is a list of symbols linked by position; candidates wait in a heap ordered by rank, then
 * position. A candidate is stale when one of its symbols has changed since. So a word of n bytes
 * takes n log n, and a hostile prompt costs no more than a long one. */
struct symbol {
    int32_t id; /* -1: merged into its left neighbour */
    int next;   /* position, -1 at the end */
    int previous;
};

struct candidate {
    int32_t rank;
    int position;
    int32_t left; /* the ids it was made for */
    int32_t right;
    int32_t merged;
};

struct heap {
    struct candidate *entries;
    size_t count;
};

static bool comes_before(const struct candidate *a, const struct candidate *b)
{
    return a->rank != b->rank ? a->rank < b->rank : a->position < b->position;
}

static void heap_push(struct heap *heap, struct candidate candidate)
{
    size_t i = heap->count++;
    while (i > 0 && comes_before(&candidate, &heap->entries[(i - 1) / 2])) {
        heap->entries[i] = heap->entries[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    heap->entries[i] = candidate;
}

static struct candidate heap_pop(struct heap *heap)
{
    struct candidate first = heap->entries[0];
    struct candidate last = heap->entries[--heap->count];
    size_t i = 0;
    for (size_t child = 1; child < heap->count; child = 2 * i + 1) {
        if (child + 1 < heap->count &&
            comes_before(&heap->entries[child + 1], &heap->entries[child])) {
            child++;
        }
        if (!comes_before(&heap->entries[child], &last)) {
            break;
        }
        heap->entries[i] = heap->entries[child];
        i = child;
    }
    heap->entries[i] = last;
    return first;
}

static void propose(const struct bpe_model *model, struct heap *heap, const struct symbol *symbols,
                    int position)
{
    int next = position >= 0 ? symbols[position].next : -1;
    const struct merge *merge =
        next >= 0 ? find_merge(model, symbols[position].id, symbols[next].id) : NULL;
    if (merge != NULL) {
        heap_push(heap, (struct candidate){
                            .rank = merge->rank,
                            .position = position,
                            .left = symbols[position].id,
                            .right = symbols[next].id,
                            .merged = merge->merged,
                        });
    }
}

static bool is_current(const struct candidate *candidate, const struct symbol *symbols)
{
    const struct symbol *left = &symbols[candidate->position];
    return left->id == candidate->left && left->next >= 0 &&
           symbols[left->next].id == candidate->right;
}

static void merge_all(const struct bpe_model *model, struct heap *heap, struct symbol *symbols,
                      int count)
{
    for (int i = 0; i + 1 < count; i++) {
        propose(model, heap, symbols, i);
    }
    while (heap->count > 0) {
        struct candidate best = heap_pop(heap);
        if (!is_current(&best, symbols)) {
            continue;
        }
        struct symbol *left = &symbols[best.position];
        struct symbol *right = &symbols[left->next];
        left->id = best.merged;
        left->next = right->next;
        right->id = -1;
        if (left->next >= 0) {
            symbols[left->next].previous = best.position;
        }
        propose(model, heap, symbols, left->previous);
        propose(model, heap, symbols, best.position);
    }
}

size_t bpe_model_encode(const struct bpe_model *model, const char *word, size_t length,
                        int32_t unknown_id, int32_t *ids)
{
    ASSERT(length < INT_MAX);
    int count = (int)length;
    struct symbol *symbols = xcalloc(length, sizeof(*symbols));
    /* n - 1 pairs at first, and at most two new ones for each of n - 1 merges. */
    struct heap heap = {.entries = xcalloc(3 * length, sizeof(*heap.entries))};
    for (int i = 0; i < count; i++) {
        unsigned char byte = (unsigned char)word[i];
        int32_t id = i + 1 < count ? model->byte_ids[byte] : model->byte_end_ids[byte];
        symbols[i] = (struct symbol){
            .id = id >= 0 ? id : unknown_id,
            .next = i + 1 < count ? i + 1 : -1,
            .previous = i - 1,
        };
    }
    merge_all(model, &heap, symbols, count);
    size_t used = 0;
    for (int i = 0; i >= 0 && count > 0; i = symbols[i].next) {
        ids[used++] = symbols[i].id;
    }
    xfree(heap.entries);
    xfree(symbols);
    return used;
}
