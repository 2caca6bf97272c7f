/* Finds JSON objects that may have a key twice: one pass over a body, which need not be valid JSON. */
#include "kernel.h"
#include <stdlib.h>
#include <string.h>

/* Probes are steps of looking for a key. A body that needs more of them for each of its bytes was made to take long. */
enum { DEPTH = 64, LEAST_SLOTS = 64, STACK_SLOTS = 256, PROBES_PER_BYTE = 16, LEAST_PROBES = 65536 };

typedef struct {
    const char *key;
    uint32_t length;
    uint32_t object; /* number of the object that has the key; 0 for a free slot */
} Slot;

typedef struct {
    Slot *slots;
    size_t mask;
    uint32_t objects;       /* objects seen so far */
    uint32_t open[DEPTH];   /* numbers of the open objects; 0 for an array */
    uint32_t keys[DEPTH];   /* how many keys each has */
    int depth;
    uint64_t probes; /* how many are left */
} Scan;

/* The end of a string that begins at `at`, behind its opening quote: its closing quote, or `end`. Notes an escape. */
static const char *string_end(const char *at, const char *end, int *escaped)
{
    for (; at < end && *at != '"'; at++)
        if (*at == '\\') {
            *escaped = 1;
            at++;
        }
    return at < end ? at : end;
}

/* Slots of objects that are closed are free again. The open ones stay the same while an object is the innermost one. */
static int is_open(Scan *s, uint32_t object)
{
    for (int i = s->depth; i-- > 0; s->probes -= s->probes > 0)
        if (s->open[i] == object)
            return 1;
    return 0;
}

/* A hash of the first and the last eight characters, which tell the names of columns apart. */
static size_t mix(const char *key, size_t length, uint32_t object)
{
    uint64_t first = 0, last = 0;
    size_t part = length < 8 ? length : 8;
    memcpy(&first, key, part);
    memcpy(&last, key + length - part, part);
    uint64_t hash = (first ^ (last << 7 | last >> 57) ^ length) * 0x9E3779B97F4A7C15u + object * 0x85EBCA6Bu;
    return (size_t)(hash ^ hash >> 29 ^ hash >> 47);
}

/* Adds a key of the innermost object; 1 if it is there already, or if there are too many to tell. */
static int add_key(Scan *s, const char *key, size_t length)
{
    uint32_t object = s->open[s->depth - 1];
    if (length > UINT32_MAX || ++s->keys[s->depth - 1] > s->mask / 2)
        return 1;
    size_t hash = mix(key, length, object);
    for (size_t i = 0; i <= s->mask && s->probes; i++, s->probes -= s->probes > 0) {
        Slot *slot = &s->slots[(hash + i) & s->mask];
        if (slot->object == object && slot->length == length && !memcmp(slot->key, key, length))
            return 1;
        if (!slot->object || !is_open(s, slot->object)) {
            *slot = (Slot){key, (uint32_t)length, object};
            return 0;
        }
    }
    return 1;
}

static int open_level(Scan *s, int is_object)
{
    if (s->depth == DEPTH || s->objects == UINT32_MAX)
        return 1;
    s->keys[s->depth] = 0;
    s->open[s->depth++] = is_object ? ++s->objects : 0;
    return 0;
}

static int scan(Scan *s, const char *at, const char *end)
{
    int is_key = 0;
    for (; at < end; at++)
        switch (*at) {
        case '{':
        case '[':
            if (open_level(s, *at == '{'))
                return 1;
            is_key = *at == '{';
            break;
        case '}':
        case ']':
            s->depth -= s->depth > 0;
            is_key = 0;
            break;
        case ',':
            is_key = s->depth > 0 && s->open[s->depth - 1] > 0;
            break;
        case '"': {
            int escaped = 0;
            const char *start = at + 1;
            at = string_end(start, end, &escaped);
            if (is_key && (escaped || add_key(s, start, (size_t)(at - start))))
                return 1;
            is_key = 0;
        }
        }
    return 0;
}

/* A body of as many colons as its objects must have different keys has no key twice. */
static Py_ssize_t count_colons(const char *at, Py_ssize_t length)
{
    Py_ssize_t count = 0;
    for (Py_ssize_t i = 0; i < length; i++)
        count += at[i] == ':';
    return count;
}

static int look(const Py_buffer *x, Py_ssize_t fields)
{
    size_t count = LEAST_SLOTS;
    while (count < (size_t)(fields > 0 ? fields : 0) * 4 && count < 1u << 20)
        count *= 2;
    Slot few[STACK_SLOTS];
    Scan s = {.slots = few, .mask = count - 1, .probes = LEAST_PROBES + (uint64_t)x->len * PROBES_PER_BYTE};
    if (count > STACK_SLOTS)
        s.slots = malloc(count * sizeof *few);
    int found = 1;
    if (s.slots) {
        memset(s.slots, 0, count * sizeof *few);
        const char *start = x->buf, *end = start + x->len;
        if (x->len <= 1 << 16)
            found = scan(&s, start, end);
        else {
            Py_BEGIN_ALLOW_THREADS
            found = scan(&s, start, end);
            Py_END_ALLOW_THREADS
        }
    }
    if (s.slots != few)
        free(s.slots);
    return found;
}

PyObject *repeated_keys(PyObject *module, PyObject *args)
{
    (void)module;
    PyObject *body;
    Py_ssize_t fields, colons;
    Py_buffer x;
    if (!PyArg_ParseTuple(args, "Onn:repeated_keys", &body, &fields, &colons))
        return NULL;
    if (PyObject_GetBuffer(body, &x, PyBUF_SIMPLE))
        return NULL;
    int found = count_colons(x.buf, x.len) != colons;
    if (found)
        found = look(&x, fields);
    PyBuffer_Release(&x);
    return PyBool_FromLong(found);
}
