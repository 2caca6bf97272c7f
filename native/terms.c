/* Texts to sparse numbers: words or n-grams of characters are counted by their place in a vocabulary or by their hash,
   changed step by step (logarithm, scale, norm), and added up with weights from the lowest place on. */
#include "terms.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

static uint32_t hash_of(const char *at, size_t n)
{
    uint64_t h = n * 0x9E3779B97F4A7C15u;
    while (n) {
        uint64_t part = 0;
        size_t size = n < 8 ? n : 8;
        memcpy(&part, at, size);
        h = (h ^ part) * 0x9E3779B97F4A7C15u;
        h ^= h >> 29;
        at += size, n -= size;
    }
    return (uint32_t)(h >> 16);
}

int32_t find_word(const Words *w, const char *at, size_t n)
{
    if (!w->count)
        return -1;
    uint32_t hash = hash_of(at, n);
    for (uint32_t slot = hash & w->mask; w->places[slot]; slot = (slot + 1) & w->mask) {
        int32_t word = (int32_t)w->places[slot] - 1;
        size_t length = (size_t)(w->starts[word + 1] - w->starts[word]);
        if (w->tags[slot] == hash && length == n && !memcmp(w->bytes + w->starts[word], at, n))
            return word;
    }
    return -1;
}

int index_words(Words *w)
{
    uint32_t size = 4;
    while (size < 2u * (uint32_t)w->count)
        size *= 2;
    w->mask = size - 1;
    w->places = calloc(size, sizeof *w->places);
    w->tags = calloc(size, sizeof *w->tags);
    if (!w->places || !w->tags)
        return -1;
    for (int32_t word = 0; word < w->count; word++) {
        uint32_t hash = hash_of(w->bytes + w->starts[word], (size_t)(w->starts[word + 1] - w->starts[word]));
        uint32_t slot = hash & w->mask;
        while (w->places[slot])
            slot = (slot + 1) & w->mask;
        w->places[slot] = (uint32_t)word + 1;
        w->tags[slot] = hash;
    }
    return 0;
}

static uint32_t rotate(uint32_t x, int by)
{
    return x << by | x >> (32 - by);
}

static uint32_t scrambled(uint32_t part)
{
    return rotate(part * 0xcc9e2d51u, 15) * 0x1b873593u;
}

/* MurmurHash3 for 32 bits with the seed 0 (Austin Appleby, public domain), which HashingVectorizer uses. */
static int32_t murmur(const char *at, size_t n)
{
    uint32_t h = 0, part = 0;
    size_t left = n;
    for (; left >= 4; at += 4, left -= 4) {
        memcpy(&part, at, 4);
        h = rotate(h ^ scrambled(part), 13) * 5 + 0xe6546b64u;
    }
    part = 0;
    memcpy(&part, at, left);
    h ^= left ? scrambled(part) : 0;
    h ^= (uint32_t)n;
    h = (h ^ h >> 16) * 0x85ebca6bu;
    h = (h ^ h >> 13) * 0xc2b2ae35u;
    return (int32_t)(h ^ h >> 16);
}

static int room(void **list, size_t *capacity, size_t needed, size_t size)
{
    if (needed <= *capacity)
        return 0;
    size_t wanted = 2 * needed + 64;
    void *larger = realloc(*list, wanted * size);
    if (!larger)
        return -1;
    *list = larger;
    *capacity = wanted;
    return 0;
}

#define ROOM(w, list, needed) room((void **)&(w)->list, &(w)->list##_room, (size_t)(needed), sizeof *(w)->list)

static int count_feature(const Terms *t, Work *w, const char *at, size_t n)
{
    int32_t id;
    double value = 1.0;
    if (t->hashed) {
        int32_t h = murmur(at, n);
        id = h == INT32_MIN ? (INT32_MAX - (t->hashed - 1)) % t->hashed : abs(h) % t->hashed;
        value = t->is_signed && h < 0 ? -1.0 : 1.0;
    } else if ((id = find_word(&t->vocabulary, at, n)) < 0)
        return 0;
    if (w->seen[id]) {
        w->values[w->seen[id] - 1] += value;
        return 0;
    }
    if (ROOM(w, ids, w->count + 1) || ROOM(w, values, w->count + 1))
        return -1;
    w->ids[w->count] = id;
    w->values[w->count] = value;
    w->seen[id] = ++w->count;
    return 0;
}

static int begin_piece(Work *w, size_t start, size_t end)
{
    if (ROOM(w, begins, w->pieces + 1) || ROOM(w, ends, w->pieces + 1))
        return -1;
    w->begins[w->pieces] = (int32_t)start;
    w->ends[w->pieces++] = (int32_t)end;
    return 0;
}

/* A token behind the others, after a space; pieces are where tokens begin and end. */
static int add_token(const Terms *t, Work *w, const char *at, size_t n)
{
    if (find_word(&t->stops, at, n) >= 0)
        return 0;
    if (ROOM(w, bytes, w->length + n + 1))
        return -1;
    if (w->pieces)
        w->bytes[w->length++] = ' ';
    memcpy(w->bytes + w->length, at, n);
    w->length += n;
    return begin_piece(w, w->length - n, w->length);
}

/* All runs of n pieces, for n from `low` to `high`. */
static int count_runs(const Terms *t, Work *w, int32_t low, int32_t high)
{
    for (int32_t n = low; n <= high && n <= w->pieces; n++)
        for (int32_t i = 0; i + n <= w->pieces; i++) {
            const char *at = w->bytes + w->begins[i];
            if (count_feature(t, w, at, (size_t)(w->ends[i + n - 1] - w->begins[i])))
                return -1;
        }
    return 0;
}

/* The length of the character at a place of valid UTF-8 (or of a lone surrogate in its form), and the character. */
static int32_t character(const char *text, int *size)
{
    const unsigned char *at = (const unsigned char *)text;
    if (*at < 0x80)
        return *size = 1, *at;
    if (*at < 0xE0)
        return *size = 2, (*at & 31) << 6 | (at[1] & 63);
    if (*at < 0xF0)
        return *size = 3, (*at & 15) << 12 | (at[1] & 63) << 6 | (at[2] & 63);
    return *size = 4, (*at & 7) << 18 | (at[1] & 63) << 12 | (at[2] & 63) << 6 | (at[3] & 63);
}

enum { KNOWN = 1, WORD = 2, SPACE = 4 };

static int asks(PyObject *character, const char *question)
{
    PyObject *answer = PyObject_CallMethod(character, question, NULL);
    int yes = answer ? PyObject_IsTrue(answer) : -1;
    Py_XDECREF(answer);
    return yes;
}

/* What Python itself says of a character, remembered: its `re` takes these for \w and \s. */
static int kind_of(Terms *t, int32_t c)
{
    if (t->kinds[c])
        return t->kinds[c];
    PyObject *one = PyUnicode_FromOrdinal(c);
    int word = one ? asks(one, "isalnum") : -1, space = one ? asks(one, "isspace") : -1;
    Py_XDECREF(one);
    if (word < 0 || space < 0)
        return -1;
    return t->kinds[c] = (uint8_t)(KNOWN | (word || c == '_' ? WORD : 0) | (space ? SPACE : 0));
}

static int read_words(Terms *t, Work *w, const char *text, size_t n)
{
    size_t start = 0, at = 0;
    int32_t characters = 0;
    while (at <= n) {
        int size = 1, kind = at < n ? kind_of(t, character(text + at, &size)) : KNOWN;
        if (kind < 0)
            return -1;
        if (kind & WORD)
            start = characters++ ? start : at;
        else {
            if (characters && characters >= t->shortest && add_token(t, w, text + start, at - start))
                return -1;
            characters = 0;
        }
        at += (size_t)size;
    }
    return count_runs(t, w, t->low, t->high);
}

static int add_character(Work *w, const char *at, size_t n)
{
    if (ROOM(w, bytes, w->length + n))
        return -1;
    memcpy(w->bytes + w->length, at, n);
    w->length += n;
    return begin_piece(w, w->length - n, w->length);
}

/* Characters, where two or more of white space are one space. */
static int read_characters(Terms *t, Work *w, const char *text, size_t n)
{
    for (size_t at = 0; at < n;) {
        int size, spaces = 0;
        size_t next = at;
        while (next < n) {
            int kind = kind_of(t, character(text + next, &size));
            if (kind < 0)
                return -1;
            if (!(kind & SPACE))
                break;
            next += (size_t)size;
            spaces++;
        }
        if (spaces > 1 ? add_character(w, " ", 1) : (character(text + at, &size), add_character(w, text + at, (size_t)size)))
            return -1;
        at = spaces > 1 ? next : at + (size_t)size;
    }
    return count_runs(t, w, t->low, t->high);
}

/* A word with a space on either side; one that is shorter than n characters counts once as a whole. */
static int count_word(Terms *t, Work *w, const char *text, size_t n)
{
    w->length = 0;
    w->pieces = 0;
    if (add_character(w, " ", 1))
        return -1;
    for (size_t at = 0; at < n;) {
        int size;
        character(text + at, &size);
        if (add_character(w, text + at, (size_t)size))
            return -1;
        at += (size_t)size;
    }
    if (add_character(w, " ", 1))
        return -1;
    int32_t high = t->high < w->pieces ? t->high : w->pieces;
    if (count_runs(t, w, t->low, high))
        return -1;
    int whole_once = t->low > w->pieces; /* the loop over n stops after the first n that covers the word */
    return whole_once ? count_feature(t, w, w->bytes, w->length) : 0;
}

static int read_bounded(Terms *t, Work *w, const char *text, size_t n)
{
    size_t start = 0, at = 0;
    while (at <= n) {
        int size = 1, kind = at < n ? kind_of(t, character(text + at, &size)) : SPACE;
        if (kind < 0)
            return -1;
        if (kind & SPACE) {
            if (at > start && count_word(t, w, text + start, at - start))
                return -1;
            start = at + (size_t)size;
        }
        at += (size_t)size;
    }
    return 0;
}

int read_text(Terms *t, Work *w, const char *text, size_t n)
{
    w->length = 0;
    w->pieces = 0;
    switch (t->mode) {
    case WORDS:
        return read_words(t, w, text, n);
    case CHARACTERS:
        return read_characters(t, w, text, n);
    default:
        return read_bounded(t, w, text, n);
    }
}

int read_tokens(Terms *t, Work *w, PyObject *tokens)
{
    w->length = 0;
    w->pieces = 0;
    for (Py_ssize_t i = 0; i < PyList_Size(tokens); i++) {
        PyObject *held = NULL;
        Py_ssize_t n;
        const char *at = utf8_of(PyList_GetItem(tokens, i), &n, &held);
        int status = at ? add_token(t, w, at, (size_t)n) : -1;
        Py_XDECREF(held);
        if (status)
            return -1;
    }
    return count_runs(t, w, t->low, t->high);
}

static int by_number(const void *a, const void *b)
{
    int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
    return (x > y) - (x < y);
}

/* Ids from the lowest on, their values beside them; `seen` is empty again. */
static int sort_features(Work *w)
{
    if (ROOM(w, sorted, w->count))
        return -1;
    if (w->count > 1)
        qsort(w->ids, (size_t)w->count, sizeof *w->ids, by_number);
    for (int32_t i = 0; i < w->count; i++) {
        w->sorted[i] = w->values[w->seen[w->ids[i]] - 1];
        w->seen[w->ids[i]] = 0;
    }
    return 0;
}

static double size_of(const double *v, int32_t n, int32_t kind)
{
    double size = 0.0;
    for (int32_t i = 0; i < n; i++)
        if (kind == L2)
            size += v[i] * v[i];
        else if (kind == L1)
            size += fabs(v[i]);
        else
            size = fabs(v[i]) > size ? fabs(v[i]) : size;
    return kind == L2 ? sqrt(size) : size;
}

static void take_step(const Step *s, Work *w)
{
    double *v = w->sorted;
    int32_t n = w->count, left = 0;
    double size;
    switch (s->kind) {
    case LOGARITHM:
        for (int32_t i = 0; i < n; i++)
            v[i] = log(v[i]) + 1.0;
        return;
    case SCALE:
        for (int32_t i = 0; i < n; i++)
            v[i] *= s->numbers[w->ids[i]];
        return;
    case ABOVE:
        for (int32_t i = 0; i < n; i++)
            v[i] = v[i] > *s->numbers;
        return;
    case ONES:
        for (int32_t i = 0; i < n; i++)
            v[i] = 1.0;
        return;
    case SELECT:
        for (int32_t i = 0; i < n; i++)
            if (s->places[w->ids[i]] >= 0) {
                v[left] = v[i];
                w->ids[left++] = s->places[w->ids[i]];
            }
        w->count = left;
        return;
    default:
        size = size_of(v, n, s->kind);
        for (int32_t i = 0; size != 0.0 && i < n; i++)
            v[i] /= size;
    }
}

/* Scaled rows of weights into the columns of one row of the answer. */
static void add_weights(const Terms *t, const Work *w, double *to)
{
    for (int32_t k = 0; k < t->width; k++)
        to[t->columns[k]] = 0.0;
    for (int32_t i = 0; i < w->count; i++) {
        const double v = w->sorted[i];
        if (!t->starts) {
            const double *row = t->weights + (size_t)w->ids[i] * (size_t)t->width;
            for (int32_t k = 0; k < t->width; k++)
                to[t->columns[k]] += v * row[k];
        } else
            for (int32_t e = t->starts[w->ids[i]]; e < t->starts[w->ids[i] + 1]; e++)
                to[t->columns[t->targets[e]]] += v * t->weights[e];
    }
}

int finish_row(const Terms *t, Work *w, double *to)
{
    if (sort_features(w))
        return -1;
    for (int32_t i = 0; i < t->steps_count; i++)
        take_step(t->steps + i, w);
    add_weights(t, w, to);
    w->count = 0;
    return 0;
}
