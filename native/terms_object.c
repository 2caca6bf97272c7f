/* What Python sees of terms.c: an object made of checked parts, which fills columns of a matrix from a list of texts. */
#include "terms.h"
#include <stdlib.h>
#include <string.h>

enum { PARTS = 18 };

static int wrong(const char *what)
{
    if (!PyErr_Occurred())
        PyErr_Format(PyExc_ValueError, "malformed terms: %s", what);
    return -1;
}

#define CHECK(condition, what)                                                                                        \
    if (!(condition))                                                                                                 \
    return wrong(what)

static int number(PyObject *parts, Py_ssize_t at, int32_t highest, int32_t *into)
{
    PyObject *given = PyTuple_GetItem(parts, at);
    long value = given && PyLong_Check(given) ? PyLong_AsLong(given) : -1;
    CHECK(value >= 0 && value <= highest, "a number");
    *into = (int32_t)value;
    return 0;
}

static int items(PyObject *bytes, size_t size, const void *into, Py_ssize_t *count)
{
    CHECK(bytes && PyBytes_Check(bytes) && PyBytes_Size(bytes) % (Py_ssize_t)size == 0, "a list");
    const char *start = PyBytes_AsString(bytes);
    memcpy((void *)into, &start, sizeof start);
    *count = PyBytes_Size(bytes) / (Py_ssize_t)size;
    CHECK(*count < INT32_MAX, "a list's length");
    return 0;
}

static int rising(const int32_t *starts, Py_ssize_t count, Py_ssize_t end)
{
    for (Py_ssize_t i = 1; i < count; i++)
        if (starts[i] < starts[i - 1])
            return 0;
    return count >= 1 && starts[0] == 0 && starts[count - 1] == end;
}

static int fill_words(Words *w, PyObject *parts, Py_ssize_t at)
{
    Py_ssize_t length, count;
    if (items(PyTuple_GetItem(parts, at), 1, &w->bytes, &length) ||
        items(PyTuple_GetItem(parts, at + 1), sizeof(int32_t), &w->starts, &count))
        return -1;
    CHECK(rising(w->starts, count, length), "words");
    w->count = (int32_t)(count - 1);
    if (index_words(w)) {
        PyErr_NoMemory();
        return -1;
    }
    return 0;
}

/* A step, and how many features there are after it. */
static int fill_step(Step *s, PyObject *pair, int32_t *features)
{
    Py_ssize_t count;
    CHECK(PyTuple_Check(pair) && PyTuple_Size(pair) == 2, "a step");
    if (number(pair, 0, STEP_KINDS - 1, &s->kind))
        return -1;
    PyObject *bytes = PyTuple_GetItem(pair, 1);
    if (s->kind == SELECT) {
        if (items(bytes, sizeof(int32_t), &s->places, &count))
            return -1;
        CHECK(count == *features, "a selection");
        int32_t next = 0;
        for (Py_ssize_t i = 0; i < count; i++) {
            CHECK(s->places[i] == -1 || s->places[i] == next, "a selection");
            next += s->places[i] >= 0;
        }
        *features = next;
        return 0;
    }
    if (items(bytes, sizeof(double), &s->numbers, &count))
        return -1;
    CHECK(s->kind != SCALE || count == *features, "a scale");
    CHECK(s->kind != ABOVE || count == 1, "a limit");
    return 0;
}

static int fill_steps(Terms *t, PyObject *steps, int32_t *features)
{
    CHECK(steps && PyTuple_Check(steps) && PyTuple_Size(steps) < 100, "the steps");
    t->steps_count = (int32_t)PyTuple_Size(steps);
    t->steps = calloc((size_t)t->steps_count + 1, sizeof *t->steps);
    if (!t->steps) {
        PyErr_NoMemory();
        return -1;
    }
    for (int32_t i = 0; i < t->steps_count; i++)
        if (fill_step(t->steps + i, PyTuple_GetItem(steps, i), features))
            return -1;
    return 0;
}

static int fill_weights(Terms *t, PyObject *parts, int32_t features)
{
    Py_ssize_t starts, targets, weights, width;
    if (items(PyTuple_GetItem(parts, 14), sizeof(int32_t), &t->starts, &starts) ||
        items(PyTuple_GetItem(parts, 15), sizeof(int32_t), &t->targets, &targets) ||
        items(PyTuple_GetItem(parts, 16), sizeof(double), &t->weights, &weights) ||
        items(PyTuple_GetItem(parts, 17), sizeof(int32_t), &t->columns, &width))
        return -1;
    t->width = (int32_t)width;
    for (Py_ssize_t i = 0; i < width; i++)
        CHECK(t->columns[i] >= 0 && t->columns[i] < 1 << 20, "a column");
    if (!starts) {
        t->starts = NULL;
        CHECK(weights == (Py_ssize_t)features * width, "the weights");
        return 0;
    }
    CHECK(starts == (Py_ssize_t)features + 1 && rising(t->starts, starts, weights) && targets == weights, "the weights");
    for (Py_ssize_t i = 0; i < targets; i++)
        CHECK(t->targets[i] >= 0 && t->targets[i] < width, "a weight's column");
    return 0;
}

static int fill_terms(Terms *t, PyObject *parts)
{
    CHECK(PyTuple_Check(parts) && PyTuple_Size(parts) == PARTS, "its parts");
    Py_INCREF(parts);
    t->held = parts;
    t->prepare = PyTuple_GetItem(parts, 5);
    t->tokens = PyTuple_GetItem(parts, 6);
    int32_t features;
    if (number(parts, 0, TOKENS, &t->mode) || number(parts, 1, 1000, &t->low) || number(parts, 2, 1000, &t->high) ||
        number(parts, 3, 1000, &t->shortest) || number(parts, 4, 1, &t->lowercase) || fill_words(&t->stops, parts, 7) ||
        fill_words(&t->vocabulary, parts, 9) || number(parts, 11, INT32_MAX - 1, &t->hashed) ||
        number(parts, 12, 1, &t->is_signed))
        return -1;
    CHECK(t->low >= 1 && t->low <= t->high, "the length of n-grams");
    t->features = features = t->hashed ? t->hashed : t->vocabulary.count;
    if (fill_steps(t, PyTuple_GetItem(parts, 13), &features) || fill_weights(t, parts, features))
        return -1;
    t->kinds = calloc(CHARACTERS_OF_UNICODE, 1);
    t->work.seen = calloc((size_t)t->features + 1, sizeof *t->work.seen);
    if (!t->kinds || !t->work.seen) {
        PyErr_NoMemory();
        return -1;
    }
    return 0;
}

static PyObject *terms_new(PyTypeObject *type, PyObject *args, PyObject *names)
{
    PyObject *parts;
    if (names && PyDict_Size(names)) {
        PyErr_SetString(PyExc_TypeError, "Terms takes no names");
        return NULL;
    }
    if (!PyArg_ParseTuple(args, "O:Terms", &parts))
        return NULL;
    allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    Terms *t = (Terms *)allocate(type, 0);
    if (t && fill_terms(t, parts))
        Py_CLEAR(t);
    return (PyObject *)t;
}

static void free_work(Work *w)
{
    free(w->low), free(w->bytes), free(w->begins), free(w->ends), free(w->ids), free(w->seen), free(w->values), free(w->sorted);
    memset(w, 0, sizeof *w);
}

static void terms_free(PyObject *object)
{
    Terms *t = (Terms *)object;
    PyTypeObject *type = Py_TYPE(object);
    free_work(&t->work);
    free(t->stops.places), free(t->stops.tags), free(t->vocabulary.places), free(t->vocabulary.tags);
    free(t->steps), free(t->kinds);
    Py_CLEAR(t->held);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(object);
    Py_DECREF(type);
}

const char *utf8_of(PyObject *text, Py_ssize_t *n, PyObject **held)
{
    if (!PyUnicode_Check(text)) {
        PyErr_SetString(PyExc_TypeError, "a text is no str");
        return NULL;
    }
    const char *at = PyUnicode_AsUTF8AndSize(text, n);
    if (!at && PyErr_ExceptionMatches(PyExc_UnicodeEncodeError)) { /* a lone surrogate */
        PyErr_Clear();
        *held = PyUnicode_AsEncodedString(text, "utf-8", "surrogatepass");
        at = *held ? PyBytes_AsString(*held) : NULL;
        *n = *held ? PyBytes_Size(*held) : 0;
    }
    if (at && *n >= INT32_MAX / 4) {
        PyErr_SetString(PyExc_ValueError, "a text is longer than 500 MB");
        return NULL;
    }
    return at;
}

static int is_ascii(const char *at, Py_ssize_t n)
{
    uint64_t high = 0, part;
    for (; n >= 8; at += 8, n -= 8) {
        memcpy(&part, at, 8);
        high |= part;
    }
    for (; n > 0; at++, n--)
        high |= (unsigned char)*at;
    return !(high & 0x8080808080808080u);
}

/* ASCII in lower case, in room of its own. */
static const char *lowered(Work *w, const char *at, Py_ssize_t n)
{
    if ((size_t)n >= w->low_room) {
        char *larger = realloc(w->low, 2 * (size_t)n + 64);
        if (!larger)
            return NULL;
        w->low = larger;
        w->low_room = 2 * (size_t)n + 64;
    }
    for (Py_ssize_t i = 0; i < n; i++)
        w->low[i] = (char)(at[i] >= 'A' && at[i] <= 'Z' ? at[i] + 32 : at[i]);
    return w->low;
}

/* ASCII in lower case needs no Python; anything else is prepared there. */
static int read_prepared(Terms *t, Work *w, PyObject *text)
{
    PyObject *held = NULL, *prepared = NULL;
    Py_ssize_t n;
    const char *at = utf8_of(text, &n, &held);
    int status = -1;
    if (at && !is_ascii(at, n) && t->prepare != Py_None) {
        prepared = PyObject_CallFunctionObjArgs(t->prepare, text, NULL);
        Py_CLEAR(held);
        at = prepared ? utf8_of(prepared, &n, &held) : NULL;
    } else if (at && t->lowercase) {
        at = lowered(w, at, n);
    }
    if (at)
        status = read_text(t, w, at, (size_t)n);
    Py_XDECREF(held);
    Py_XDECREF(prepared);
    return status;
}

static int read_one(Terms *t, Work *w, PyObject *text)
{
    if (t->mode != TOKENS)
        return read_prepared(t, w, text);
    PyObject *tokens = PyObject_CallFunctionObjArgs(t->tokens, text, NULL);
    if (tokens && !PyList_Check(tokens))
        PyErr_SetString(PyExc_TypeError, "tokens are no list");
    int status = tokens && PyList_Check(tokens) ? read_tokens(t, w, tokens) : -1;
    Py_XDECREF(tokens);
    return status;
}

static int fill_rows(Terms *t, Work *w, PyObject *texts, double *out, Py_ssize_t stride)
{
    for (Py_ssize_t i = 0; i < PyList_Size(texts); i++) {
        if (read_one(t, w, PyList_GetItem(texts, i)) || finish_row(t, w, out + i * stride)) {
            if (!PyErr_Occurred())
                PyErr_NoMemory();
            memset(w->seen, 0, (size_t)t->features * sizeof *w->seen);
            w->count = 0;
            return -1;
        }
    }
    return 0;
}

/* The object's own room for work, or another where a thread is in the middle of a text (Python may switch there). */
static int fill(Terms *t, PyObject *texts, double *out, Py_ssize_t stride)
{
    if (!t->busy) {
        t->busy = 1;
        int status = fill_rows(t, &t->work, texts, out, stride);
        t->busy = 0;
        return status;
    }
    Work other = {0};
    other.seen = calloc((size_t)t->features + 1, sizeof *other.seen);
    int status = other.seen ? fill_rows(t, &other, texts, out, stride) : -1;
    free_work(&other);
    if (status && !PyErr_Occurred())
        PyErr_NoMemory();
    return status;
}

static PyObject *terms_fill(PyObject *object, PyObject *args)
{
    Terms *t = (Terms *)object;
    PyObject *texts, *matrix;
    Py_ssize_t stride;
    Py_buffer out;
    if (!PyArg_ParseTuple(args, "O!On:fill", &PyList_Type, &texts, &matrix, &stride))
        return NULL;
    if (PyObject_GetBuffer(matrix, &out, PyBUF_WRITABLE))
        return NULL;
    int fits = stride >= 1 && out.len == PyList_Size(texts) * stride * (Py_ssize_t)sizeof(double);
    for (int32_t k = 0; fits && k < t->width; k++)
        fits = t->columns[k] < stride;
    int status = fits ? fill(t, texts, out.buf, stride) : wrong("the matrix does not fit the texts");
    PyBuffer_Release(&out);
    if (status)
        return NULL;
    Py_RETURN_NONE;
}

static PyMethodDef terms_methods[] = {
    {"fill", terms_fill, METH_VARARGS, "Numbers of a list of texts into columns of a float64 matrix of that many columns."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot terms_slots[] = {
    {Py_tp_new, (void *)terms_new},
    {Py_tp_dealloc, (void *)terms_free},
    {Py_tp_methods, terms_methods},
    {0, NULL},
};

static PyType_Spec terms_spec = {
    "estiba.model._kernel.Terms", sizeof(Terms), 0, Py_TPFLAGS_DEFAULT, terms_slots,
};

int add_terms_type(PyObject *module)
{
    PyObject *type = PyType_FromSpec(&terms_spec);
    int status = type ? PyModule_AddObjectRef(module, "Terms", type) : -1;
    Py_XDECREF(type);
    return status;
}
