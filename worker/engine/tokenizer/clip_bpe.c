#include "worker/engine/tokenizer/clip_bpe.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/base/panic.h"
#include "common/base/utf8.h"
#include "worker/engine/config/json.h"
#include "worker/engine/config/problems.h"
#include "worker/engine/tokenizer/bpe_model.h"
#include "worker/engine/tokenizer/unicode.h"

#define MAX_LENGTH_DEFAULT 77
#define MAX_LENGTH_LIMIT 4096
#define ADDED_MAX 1024
#define CONTENT_BYTES_MAX 256

/* A token that is recognised in the text as it stands. */
struct added_token {
    char content[CONTENT_BYTES_MAX]; /* normalised where it is looked for so */
    int32_t id;
    bool normalised; /* looked for after normalisation, so that case does not matter */
};

struct clip_bpe {
    struct bpe_model *model;
    int max_length;
    int vocabulary_size;
    int32_t start_id;
    int32_t end_id;
    int32_t pad_id;
    int32_t unknown_id;
    struct added_token *added;
    int added_count;
    int listed_count; /* of them, those that a file lists by id */
};

/* ---- Opening: the special tokens ------------------------------------------------------------ */

static const char *const named_keys[] = {"bos_token", "eos_token", "unk_token", "pad_token"};
static const char *const named_defaults[] = {"<|startoftext|>", "<|endoftext|>", "<|endoftext|>",
                                             "<|endoftext|>"};

#define NAMED_COUNT ((int)(sizeof(named_keys) / sizeof(named_keys[0])))

static struct added_token *find_added(const struct clip_bpe *bpe, const char *content)
{
    for (int i = 0; i < bpe->added_count; i++) {
        if (strcmp(bpe->added[i].content, content) == 0) {
            return &bpe->added[i];
        }
    }
    return NULL;
}

/* otherwise_id: the id that a file gives to a token outside the vocabulary, or -1. */
static void add_token(struct clip_bpe *bpe, struct json *config, const char *content,
                      bool normalised, int32_t otherwise_id)
{
    int32_t id = bpe_model_find(bpe->model, content);
    id = id >= 0 ? id : otherwise_id;
    struct added_token *known = find_added(bpe, content);
    if (known != NULL) {
        /* Of a token that several names share the last one counts, but a list goes before names:
         * SDXL's end token, normalised, is also its padding, a plain string, which is not. */
        known->normalised = known < bpe->added + bpe->listed_count ? known->normalised : normalised;
        return;
    }
    if (content[0] == '\0' || strlen(content) >= CONTENT_BYTES_MAX ||
        bpe->added_count == ADDED_MAX) {
        json_problem(config, "added token \"%.32s\": empty, too long or one too many", content);
        return;
    }
    if (id < 0) {
        json_problem(config, "special token \"%s\": not in the vocabulary", content);
        return;
    }
    struct added_token *token = &bpe->added[bpe->added_count++];
    snprintf(token->content, sizeof(token->content), "%s", content);
    token->id = id;
    token->normalised = normalised;
    bpe->vocabulary_size = id >= bpe->vocabulary_size ? id + 1 : bpe->vocabulary_size;
}

/* A token is a string, or an object with its content and how it is matched. */
static void add_described(struct clip_bpe *bpe, struct json *config, const struct json_value *token,
                          bool normalised_default, int32_t id)
{
    static const char *const refused[] = {"lstrip", "rstrip", "single_word"};
    const char *content = json_text(json_member(token, "content"));
    const struct json_value *normalised = json_member(token, "normalized");
    if (content == NULL) {
        json_problem(config, "added token: expected a string or an object with its content");
        return;
    }
    for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++) {
        if (json_truth(json_member(token, refused[i]))) {
            json_problem(config, "token \"%.32s\": %s is not supported", content, refused[i]);
        }
    }
    add_token(bpe, config, content,
              normalised != NULL ? json_truth(normalised) : normalised_default, id);
}

/* tokenizer_config.json of transformers 4.3x and later lists every added token by id. */
static void add_decoder_list(struct clip_bpe *bpe, struct json *config,
                             const struct json_value *list)
{
    for (const struct json_value *at = json_first(list); at != NULL; at = json_next(at)) {
        int id = -1, end = 0;
        if (sscanf(json_key(at), "%7d%n", &id, &end) != 1 || json_key(at)[end] != '\0' || id < 0) {
            json_problem(config, "added_tokens_decoder: \"%.32s\" is not an id", json_key(at));
            continue;
        }
        add_described(bpe, config, at, true, id);
    }
}

static void add_combined_list(struct clip_bpe *bpe, struct json *config,
                              const struct json_value *list)
{
    for (const struct json_value *at = json_first(list); at != NULL; at = json_next(at)) {
        int64_t id = -1;
        if (!json_whole(json_member(at, "id"), 0, INT32_MAX - 1, &id)) {
            json_problem(config, "added_tokens: a token has no id");
            continue;
        }
        add_described(bpe, config, at, true, (int32_t)id);
    }
}

/* What a token that is a string or an object is spelt as; NULL when it is neither. */
static const char *content_of(const struct json_value *token)
{
    return json_kind(token) == JSON_OBJECT ? json_text(json_member(token, "content"))
                                           : json_text(token);
}

/* Whether the files call the token special by a name or in a list. legacy goes before config. */
static bool is_special(const char *content, const struct json *config,
                       const struct json_value *legacy)
{
    static const char *const names[] = {"bos_token", "eos_token", "unk_token", "pad_token",
                                        "sep_token", "cls_token", "mask_token"};
    static const char *const lists[] = {"additional_special_tokens", "extra_special_tokens"};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        const char *named = content_of(json_member(legacy, names[i]));
        named = named != NULL ? named : content_of(json_member(json_root(config), names[i]));
        if (named != NULL && strcmp(named, content) == 0) {
            return true;
        }
    }
    for (size_t i = 0; i < sizeof(lists) / sizeof(lists[0]); i++) {
        const struct json_value *at = json_first(json_member(json_root(config), lists[i]));
        for (; at != NULL; at = json_next(at)) {
            const char *listed = content_of(at);
            if (listed != NULL && strcmp(listed, content) == 0) {
                return true;
            }
        }
    }
    return false;
}

/* added_tokens.json of transformers before 4.34: ids by content. */
static void add_id_map(struct clip_bpe *bpe, struct json *config, const struct json_value *map,
                       const struct json_value *legacy)
{
    for (const struct json_value *at = json_first(map); at != NULL; at = json_next(at)) {
        int64_t id = -1;
        if (!json_whole(at, 0, INT32_MAX - 1, &id)) {
            json_problem(config, "added_tokens.json: \"%.32s\" has no id", json_key(at));
            continue;
        }
        add_token(bpe, config, json_key(at), !is_special(json_key(at), config, legacy),
                  (int32_t)id);
    }
}

/* The named tokens: legacy (special_tokens_map.json) where it has the key, else config, else the
 * defaults of CLIPTokenizer. They are all recognised in the text too. */
static void add_named(struct clip_bpe *bpe, struct json *config, const struct json_value *legacy)
{
    int32_t *const ids[] = {&bpe->start_id, &bpe->end_id, &bpe->unknown_id, &bpe->pad_id};
    for (int i = 0; i < NAMED_COUNT; i++) {
        const struct json_value *token = json_member(legacy, named_keys[i]);
        bool from_legacy = json_kind(token) != JSON_NULL;
        if (!from_legacy) {
            token = json_member(json_root(config), named_keys[i]);
        }
        const char *content = named_defaults[i];
        if (json_kind(token) == JSON_OBJECT) {
            /* As AddedToken's constructor has it: special ones are not normalised by default. */
            add_described(bpe, config, token, !from_legacy, -1);
            content = json_text(json_member(token, "content"));
        } else {
            content = json_text(token) != NULL ? json_text(token) : content;
            add_token(bpe, config, content, false, -1);
        }
        const struct added_token *added = content != NULL ? find_added(bpe, content) : NULL;
        *ids[i] = added != NULL ? added->id : -1;
    }
}

/* *out stays NULL when the folder has no such file: all of them are optional. */
static int open_optional(struct json **out, const char *dir, const char *name, struct error *err)
{
    char path[PATH_MAX];
    *out = NULL;
    snprintf(path, sizeof(path), "%s/%s", dir, name);
    return access(path, F_OK) == 0 ? json_open(out, path, err) : STATUS_OK;
}

static void read_options(struct clip_bpe *bpe, struct json *config)
{
    const struct json_value *length = json_member(json_root(config), "model_max_length");
    int64_t whole = 0;
    /* Tokenizers without a limit are saved with 1e30 for it. */
    bool limited = json_whole(length, 3, MAX_LENGTH_LIMIT, &whole);
    if (!limited && json_kind(length) == JSON_NUMBER && !(json_real(length) > MAX_LENGTH_LIMIT)) {
        json_problem(config, "model_max_length: expected a whole number from 3 to %d",
                     MAX_LENGTH_LIMIT);
    }
    bpe->max_length = limited ? (int)whole : MAX_LENGTH_DEFAULT;
    if (strcmp(json_string(config, "padding_side", "right"), "right") != 0) {
        json_problem(config, "padding_side: only \"right\" is supported");
    }
}

/* The files that tokenizer_config.json stands for where it lists the added tokens; any may be NULL:
 * special_tokens_map.json, added_tokens.json and tokenizer.json. */
struct other_files {
    struct json *legacy, *added, *combined;
};

static const struct json_value *root_of(const struct json *json)
{
    return json != NULL ? json_root(json) : NULL;
}

/* Tokens that are looked for in normalised text are spelt as it is: "<Sword>" is "<sword>" there.
 */
static void normalise_added(struct clip_bpe *bpe, struct json *config)
{
    for (int i = 0; i < bpe->added_count; i++) {
        struct added_token *token = &bpe->added[i];
        size_t length = 0;
        if (!token->normalised) {
            continue;
        }
        char *normal = unicode_normalise(token->content, strlen(token->content), &length);
        if (length < CONTENT_BYTES_MAX) {
            snprintf(token->content, sizeof(token->content), "%s", normal);
        } else {
            json_problem(config, "added token \"%.32s\": too long", token->content);
        }
        xfree(normal);
    }
}

static int read_specials(struct clip_bpe *bpe, struct json *config, const struct other_files *files,
                         struct error *err)
{
    const struct json_value *list = json_member(json_root(config), "added_tokens_decoder");
    const struct json_value *map = NULL;
    if (list != NULL) {
        add_decoder_list(bpe, config, list);
    } else {
        map = root_of(files->legacy);
        add_id_map(bpe, config, root_of(files->added), map);
        add_combined_list(bpe, config, json_member(root_of(files->combined), "added_tokens"));
    }
    bpe->listed_count = bpe->added_count;
    add_named(bpe, config, map);
    normalise_added(bpe, config);
    read_options(bpe, config);
    return json_finish(config, err);
}

static int open_specials(struct clip_bpe *bpe, const char *dir, struct error *err)
{
    struct json *config = NULL;
    struct other_files files = {.legacy = NULL};
    int result = open_optional(&config, dir, "tokenizer_config.json", err);
    if (result == STATUS_OK) {
        result = open_optional(&files.legacy, dir, "special_tokens_map.json", err);
    }
    if (result == STATUS_OK) {
        result = open_optional(&files.added, dir, "added_tokens.json", err);
    }
    if (result == STATUS_OK) {
        result = open_optional(&files.combined, dir, "tokenizer.json", err);
    }
    if (result == STATUS_OK && config == NULL) {
        result = json_parse(&config, dir, "{}", 2, err);
    }
    if (result == STATUS_OK) {
        result = read_specials(bpe, config, &files, err);
    }
    json_close(config);
    json_close(files.legacy);
    json_close(files.added);
    json_close(files.combined);
    return result;
}

/* As tokenizer_config.json of those models has them. */
static int set_packaged_specials(struct clip_bpe *bpe, const char *pad_token, struct error *err)
{
    char text[512];
    struct json *config = NULL;
    char *pad = json_quote(pad_token);
    int length =
        snprintf(text, sizeof(text),
                 "{\"model_max_length\": %d,"
                 " \"bos_token\": {\"content\": \"<|startoftext|>\", \"normalized\": true},"
                 " \"eos_token\": {\"content\": \"<|endoftext|>\", \"normalized\": true},"
                 " \"unk_token\": {\"content\": \"<|endoftext|>\", \"normalized\": true},"
                 " \"pad_token\": %s}",
                 MAX_LENGTH_DEFAULT, pad);
    xfree(pad);
    ASSERT(length > 0 && (size_t)length < sizeof(text));
    int result = json_parse(&config, "packaged CLIP vocabulary", text, (size_t)length, err);
    if (result == STATUS_OK) {
        result = read_specials(bpe, config, &(struct other_files){.legacy = NULL}, err);
    }
    json_close(config);
    return result;
}

/* dir is NULL for the packaged vocabulary, which dir's files are otherwise. */
static int open_tokenizer(struct clip_bpe **out, const char *dir, const char *pad_token,
                          struct error *err)
{
    *out = NULL;
    struct clip_bpe *bpe = xcalloc(1, sizeof(*bpe));
    int result = dir != NULL ? bpe_model_open(&bpe->model, dir, err)
                             : bpe_model_open_packaged(&bpe->model, err);
    if (result == STATUS_OK) {
        bpe->vocabulary_size = bpe_model_size(bpe->model);
        bpe->added = xcalloc(ADDED_MAX, sizeof(*bpe->added));
        result =
            dir != NULL ? open_specials(bpe, dir, err) : set_packaged_specials(bpe, pad_token, err);
    }
    if (result < 0) {
        clip_bpe_close(bpe);
        return result;
    }
    *out = bpe;
    return STATUS_OK;
}

int clip_bpe_open(struct clip_bpe **out, const char *tokenizer_dir, struct error *err)
{
    return open_tokenizer(out, tokenizer_dir, NULL, err);
}

int clip_bpe_open_packaged(struct clip_bpe **out, const char *pad_token, struct error *err)
{
    return open_tokenizer(out, NULL, pad_token, err);
}

void clip_bpe_close(struct clip_bpe *bpe)
{
    if (bpe != NULL) {
        bpe_model_close(bpe->model);
        xfree(bpe->added);
        xfree(bpe);
    }
}

int clip_bpe_max_length(const struct clip_bpe *bpe)
{
    return bpe->max_length;
}

int clip_bpe_vocabulary_size(const struct clip_bpe *bpe)
{
    return bpe->vocabulary_size;
}

int32_t clip_bpe_start_id(const struct clip_bpe *bpe)
{
    return bpe->start_id;
}

int32_t clip_bpe_end_id(const struct clip_bpe *bpe)
{
    return bpe->end_id;
}

int32_t clip_bpe_pad_id(const struct clip_bpe *bpe)
{
    return bpe->pad_id;
}

int32_t clip_bpe_find(const struct clip_bpe *bpe, const char *token)
{
    return bpe_model_find(bpe->model, token);
}

/* ---- Encoding ------------------------------------------------------------------------------- */

/* One text on its way, and the ids so far. */
struct encoding {
    const struct clip_bpe *bpe;
    const struct clip_bpe_extra *extras;
    int extra_count;
    int32_t *ids;
    int count;
    int room;
    bool full; /* an id found no room: the rest of the text does not matter */
};

static void append_id(struct encoding *encoding, int32_t id)
{
    if (encoding->count == encoding->room) {
        encoding->full = true;
    } else {
        encoding->ids[encoding->count++] = id;
    }
}

static void append_word(struct encoding *encoding, const char *word, size_t length)
{
    const struct clip_bpe *bpe = encoding->bpe;
    int32_t *ids = xcalloc(length, sizeof(*ids));
    size_t count = bpe_model_encode(bpe->model, word, length, bpe->unknown_id, ids);
    for (size_t i = 0; i < count; i++) {
        append_id(encoding, ids[i]);
    }
    xfree(ids);
}

static bool starts_with(const char *text, size_t length, const char *prefix)
{
    size_t size = strlen(prefix);
    return length >= size && memcmp(text, prefix, size) == 0;
}

/* How many bytes from the start of text have one class. */
static size_t run_of(const char *text, size_t length, enum unicode_class class)
{
    size_t used = 0, step;
    while (used < length && unicode_class_at(text + used, length - used, &step) == class) {
        used += step;
    }
    return used;
}

/* The pre-tokenizers in order: CLIP's pattern
 *   <\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+
 * and inside what that finds GPT-2's, which splits only the first two alternatives further. */
static size_t next_word(const char *text, size_t length)
{
    static const char *const contractions[] = {"'s", "'t", "'re", "'ve", "'m", "'ll", "'d"};
    size_t step;
    for (size_t i = 0; i < sizeof(contractions) / sizeof(contractions[0]); i++) {
        if (starts_with(text, length, contractions[i])) {
            return strlen(contractions[i]);
        }
    }
    enum unicode_class class = unicode_class_at(text, length, &step);
    return class == UNICODE_NUMBER ? step : run_of(text, length, class);
}

static size_t append_marker(struct encoding *encoding, const char *text, size_t length)
{
    static const char *const markers[] = {"<|startoftext|>", "<|endoftext|>"};
    for (size_t i = 0; i < sizeof(markers) / sizeof(markers[0]); i++) {
        if (starts_with(text, length, markers[i])) {
            size_t size = strlen(markers[i]);
            append_word(encoding, text, 2);
            append_word(encoding, text + 2, size - 4);
            append_word(encoding, text + size - 2, 2);
            return size;
        }
    }
    return 0;
}

/* Normalised text without added tokens in it. */
static void encode_plain(struct encoding *encoding, const char *text, size_t length)
{
    size_t step;
    for (size_t i = 0; i < length && !encoding->full; i += step) {
        if (unicode_class_at(text + i, length - i, &step) == UNICODE_SPACE) {
            continue;
        }
        size_t marker = append_marker(encoding, text + i, length - i);
        step = marker > 0 ? marker : next_word(text + i, length - i);
        if (marker == 0) {
            append_word(encoding, text + i, step);
        }
    }
}

/* The longest added token of the given kind at the start of text: its bytes, 0 when none is there.
 * The caller's extras are normalised ones. */
static size_t added_at(const struct encoding *encoding, const char *text, size_t length,
                       bool normalised, int32_t *id)
{
    size_t longest = 0;
    for (int i = 0; i < encoding->bpe->added_count; i++) {
        const struct added_token *token = &encoding->bpe->added[i];
        if (token->content[0] == text[0] && token->normalised == normalised &&
            starts_with(text, length, token->content) && strlen(token->content) > longest) {
            longest = strlen(token->content);
            *id = token->id;
        }
    }
    for (int i = 0; normalised && i < encoding->extra_count; i++) {
        const struct clip_bpe_extra *extra = &encoding->extras[i];
        if (extra->content[0] == text[0] && starts_with(text, length, extra->content) &&
            strlen(extra->content) > longest) {
            longest = strlen(extra->content);
            *id = extra->id;
        }
    }
    return longest;
}

typedef void encode_part(struct encoding *encoding, const char *text, size_t length);

/* Added tokens of one kind become their ids; what lies between them goes to the next stage. */
static void split_added(struct encoding *encoding, const char *text, size_t length, bool normalised,
                        encode_part *next)
{
    size_t begin = 0;
    for (size_t i = 0; i < length && !encoding->full;) {
        int32_t id = 0;
        size_t size = added_at(encoding, text + i, length - i, normalised, &id);
        if (size == 0) {
            i++;
            continue;
        }
        next(encoding, text + begin, i - begin);
        append_id(encoding, id);
        i += size;
        begin = i;
    }
    next(encoding, text + begin, length - begin);
}

static void encode_raw(struct encoding *encoding, const char *text, size_t length)
{
    size_t normal_length = 0;
    if (length == 0 || encoding->full) {
        return;
    }
    char *normal = unicode_normalise(text, length, &normal_length);
    split_added(encoding, normal, normal_length, true, encode_plain);
    xfree(normal);
}

int clip_bpe_tokenize(const struct clip_bpe *bpe, const char *utf8, size_t length,
                      const struct clip_bpe_extra *extras, int extra_count, int32_t *ids, int room)
{
    struct encoding encoding = {
        .bpe = bpe,
        .extras = extras,
        .extra_count = extra_count,
        .ids = ids,
        .room = room,
    };
    split_added(&encoding, utf8, length, false, encode_raw);
    return encoding.full ? room + 1 : encoding.count;
}

int clip_bpe_encode(const struct clip_bpe *bpe, const char *utf8, int32_t *ids, bool *truncated,
                    struct error *err)
{
    size_t length = strnlen(utf8, CLIP_BPE_TEXT_MAX + 1);
    if (length > CLIP_BPE_TEXT_MAX) {
        return ERROR(err, STATUS_TOO_LARGE, "the prompt is longer than %d bytes",
                     CLIP_BPE_TEXT_MAX);
    }
    if (!utf8_is_valid(utf8, length)) {
        return ERROR(err, STATUS_INVALID, "the prompt is not valid UTF-8");
    }
    int room = bpe->max_length - 2;
    int found = clip_bpe_tokenize(bpe, utf8, length, NULL, 0, ids + 1, room);
    int count = found < room ? found : room;
    ids[0] = bpe->start_id;
    ids[1 + count] = bpe->end_id;
    for (int i = count + 2; i < bpe->max_length; i++) {
        ids[i] = bpe->pad_id;
    }
    if (truncated != NULL) {
        *truncated = found > room;
    }
    return STATUS_OK;
}
