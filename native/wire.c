/* One level of a message in protobuf's wire format, which ONNX files are written in. */
#include "kernel.h"
#include <string.h>

typedef struct {
    const uint8_t *at, *end;
} Cursor;

enum { VARINT = 0, EIGHT = 1, LENGTH = 2, FOUR = 5 };

static int read_varint(Cursor *c, uint64_t *value)
{
    *value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
        if (c->at == c->end)
            return -1;
        uint8_t byte = *c->at++;
        *value |= (uint64_t)(byte & 127) << shift;
        if (byte < 128)
            return 0;
    }
    return -1;
}

/* All values from here on that have the tag just read, as the bytes of int64. */
static PyObject *read_run(Cursor *c, uint64_t tag)
{
    Cursor ahead = *c;
    Py_ssize_t count = 0;
    uint64_t value, next = tag;
    while (next == tag) {
        if (read_varint(&ahead, &value))
            return NULL;
        count++;
        Cursor mark = ahead;
        if (mark.at == mark.end || read_varint(&mark, &next))
            break;
        if (next == tag)
            ahead = mark;
    }
    PyObject *made = PyBytes_FromStringAndSize(NULL, count * 8);
    if (!made)
        return NULL;
    char *into = PyBytes_AsString(made);
    for (Py_ssize_t i = 0; i < count; i++) {
        if (i)
            read_varint(c, &next);
        read_varint(c, &value);
        memcpy(into + 8 * i, &value, 8);
    }
    return made;
}

static PyObject *read_part(Cursor *c, int size)
{
    uint64_t length = (uint64_t)size;
    if (!size && read_varint(c, &length))
        return NULL;
    if (length > (uint64_t)(c->end - c->at))
        return NULL;
    PyObject *made = PyBytes_FromStringAndSize((const char *)c->at, (Py_ssize_t)length);
    c->at += length;
    return made;
}

static PyObject *read_field(Cursor *c, uint64_t tag)
{
    switch (tag & 7) {
    case VARINT:
        return read_run(c, tag);
    case EIGHT:
        return read_part(c, 8);
    case LENGTH:
        return read_part(c, 0);
    case FOUR:
        return read_part(c, 4);
    default:
        return NULL;
    }
}

PyObject *scan_message(PyObject *module, PyObject *bytes)
{
    (void)module;
    char *start;
    Py_ssize_t length;
    if (PyBytes_AsStringAndSize(bytes, &start, &length))
        return NULL;
    PyObject *found = PyList_New(0);
    Cursor c = {(const uint8_t *)start, (const uint8_t *)start + length};
    while (found && c.at < c.end) {
        uint64_t tag;
        PyObject *value = read_varint(&c, &tag) || tag >> 32 ? NULL : read_field(&c, tag);
        if (!value && !PyErr_Occurred())
            PyErr_SetString(PyExc_ValueError, "not a protobuf message");
        PyObject *pair = value ? Py_BuildValue("(KiN)", tag >> 3, (int)(tag & 7), value) : NULL;
        if (!pair || PyList_Append(found, pair))
            Py_CLEAR(found);
        Py_XDECREF(pair);
    }
    return found;
}
