/* Records of Python to rows of doubles, and rows of doubles to predictions of Python: the two loops over every value of a
   large request. coding.py and predictions.py say what each does, and do it themselves where there is no kernel. */
#include "kernel.h"
#include <math.h>

/* Appends a number to a list: the place of a level that a category does not have, or the row of an odd answer. */
static int note(PyObject *list, Py_ssize_t place)
{
    PyObject *number = PyLong_FromSsize_t(place);
    int status = number ? PyList_Append(list, number) : -1;
    Py_XDECREF(number);
    return status;
}

static int call_rule(PyObject *rule, PyObject *value, double *to)
{
    PyObject *made = PyObject_CallFunctionObjArgs(rule, value, NULL);
    *to = made ? PyFloat_AsDouble(made) : -1.0;
    Py_XDECREF(made);
    return PyErr_Occurred() ? -1 : 0;
}

/* A category's rule is (codes by level, code of an unseen level, what to ask about anything but a string or an int). */
static int code_level(PyObject *rule, PyObject *value, double *to, int *is_unseen)
{
    if (!PyUnicode_CheckExact(value) && !PyLong_CheckExact(value)) {
        if (call_rule(PyTuple_GetItem(rule, 2), value, to))
            return -1;
        *is_unseen = *to == -1.0 || *to != *to;
        return 0;
    }
    PyObject *code = PyDict_GetItemWithError(PyTuple_GetItem(rule, 0), value);
    if (!code && PyErr_Occurred())
        return -1;
    *is_unseen = !code;
    *to = PyFloat_AsDouble(code ? code : PyTuple_GetItem(rule, 1));
    return *to == -1.0 && PyErr_Occurred() ? -1 : 0;
}

/* A rule is None for a number, a tuple for a category, or something to call. */
static int pack_value(PyObject *rule, PyObject *value, double *to, int *is_unseen)
{
    if (value == Py_None && (rule == Py_None || PyTuple_Check(rule))) {
        *to = NAN;
        return 0;
    }
    if (PyTuple_Check(rule))
        return code_level(rule, value, to, is_unseen);
    if (rule != Py_None)
        return call_rule(rule, value, to);
    *to = PyFloat_AsDouble(value);
    return *to == -1.0 && PyErr_Occurred() ? -1 : 0;
}

static int pack_row(PyObject *row, PyObject *rules, Py_ssize_t width, double *to, Py_ssize_t place, PyObject *unseen)
{
    if (!PyTuple_Check(row) || PyTuple_Size(row) != width) {
        PyErr_SetString(PyExc_ValueError, "a row has more or fewer values than there are rules");
        return -1;
    }
    for (Py_ssize_t i = 0; i < width; i++) {
        int is_unseen = 0;
        if (pack_value(PyTuple_GetItem(rules, i), PyTuple_GetItem(row, i), to + i, &is_unseen) ||
            (is_unseen && note(unseen, place + i)))
            return -1;
    }
    return 0;
}

static int pack_all(PyObject *rows, PyObject *rules, const Py_buffer *out, PyObject *unseen)
{
    Py_ssize_t width = PyTuple_Size(rules), room = out->len / (Py_ssize_t)sizeof(double), place = 0;
    PyObject *row;
    while ((row = PyIter_Next(rows))) {
        int status = -1;
        if (place + width <= room)
            status = pack_row(row, rules, width, (double *)out->buf + place, place, unseen);
        else
            PyErr_SetString(PyExc_ValueError, "there are more rows than room for them");
        Py_DECREF(row);
        if (status)
            return -1;
        place += width;
    }
    return PyErr_Occurred() ? -1 : 0;
}

static int check_rules(PyObject *rules)
{
    for (Py_ssize_t i = 0; i < PyTuple_Size(rules); i++) {
        PyObject *rule = PyTuple_GetItem(rules, i);
        if (PyTuple_Check(rule) && (PyTuple_Size(rule) != 3 || !PyDict_Check(PyTuple_GetItem(rule, 0)))) {
            PyErr_SetString(PyExc_ValueError, "a category's rule is not (codes, code of an unseen level, function)");
            return -1;
        }
    }
    return 0;
}

PyObject *pack_rows(PyObject *module, PyObject *args)
{
    (void)module;
    PyObject *rows, *rules, *into;
    Py_buffer out;
    if (!PyArg_ParseTuple(args, "OO!O:pack", &rows, &PyTuple_Type, &rules, &into) || check_rules(rules))
        return NULL;
    if (!PyIter_Check(rows)) {
        PyErr_SetString(PyExc_TypeError, "rows must be an iterator");
        return NULL;
    }
    if (PyObject_GetBuffer(into, &out, PyBUF_WRITABLE))
        return NULL;
    PyObject *unseen = PyList_New(0);
    if (unseen && pack_all(rows, rules, &out, unseen))
        Py_CLEAR(unseen);
    PyBuffer_Release(&out);
    return unseen;
}

/* Kinds of parts of a prediction, with what a part holds behind its name:
   number (column), numbers (names of all columns), first_largest (labels), at_least (column, limit, label, other),
   above (limit, label, other), from (limit, label, other), band (column, edges, words), at (first column, part of
   the columns from there on), group (first column, parts of the columns from there on). */
enum { NUMBER, NUMBERS, FIRST_LARGEST, AT_LEAST, ABOVE, FROM, BAND, AT, GROUP, KINDS };

static const Py_ssize_t SIZES[KINDS] = {3, 3, 3, 6, 5, 5, 5, 4, 4};

static PyObject *item(PyObject *part, Py_ssize_t at)
{
    return PyTuple_GetItem(part, at);
}

static PyObject *shared(PyObject *object)
{
    Py_XINCREF(object);
    return object;
}

static PyObject *number_or_none(double value)
{
    return isfinite(value) ? PyFloat_FromDouble(value) : shared(Py_None);
}

static PyObject *all_numbers(PyObject *names, const double *row)
{
    PyObject *made = PyDict_New();
    for (Py_ssize_t i = 0; made && i < PyTuple_Size(names); i++) {
        PyObject *value = number_or_none(row[i]);
        if (!value || PyDict_SetItem(made, item(names, i), value))
            Py_CLEAR(made);
        Py_XDECREF(value);
    }
    return made;
}

static PyObject *first_largest(PyObject *labels, const double *row)
{
    Py_ssize_t best = 0;
    for (Py_ssize_t i = 0; i < PyTuple_Size(labels) && !isnan(row[best]); i++)
        best = row[i] > row[best] || isnan(row[i]) ? i : best; /* the first NaN is the largest, as for NumPy */
    return shared(item(labels, best));
}

static PyObject *band(PyObject *part, const double *row)
{
    double value = row[PyLong_AsSsize_t(item(part, 2))];
    if (!isfinite(value))
        return shared(Py_None);
    PyObject *edges = item(part, 3);
    Py_ssize_t at = 0;
    while (at < PyTuple_Size(edges) && PyFloat_AsDouble(item(edges, at)) <= value)
        at++;
    return shared(item(item(part, 4), at));
}

static PyObject *one_prediction(PyObject *parts, const double *row);

static PyObject *part_of(PyObject *part, const double *row)
{
    long kind = PyLong_AsLong(item(part, 1));
    double value;
    switch (kind) {
    case NUMBER:
        return number_or_none(row[PyLong_AsSsize_t(item(part, 2))]);
    case NUMBERS:
        return all_numbers(item(part, 2), row);
    case FIRST_LARGEST:
        return first_largest(item(part, 2), row);
    case AT_LEAST:
        value = row[PyLong_AsSsize_t(item(part, 2))];
        return shared(item(part, value >= PyFloat_AsDouble(item(part, 3)) ? 4 : 5));
    case ABOVE:
    case FROM: {
        double limit = PyFloat_AsDouble(item(part, 2));
        return shared(item(part, (kind == ABOVE ? *row > limit : *row >= limit) ? 3 : 4));
    }
    case AT:
        return part_of(item(part, 3), row + PyLong_AsSsize_t(item(part, 2)));
    case GROUP:
        return one_prediction(item(part, 3), row + PyLong_AsSsize_t(item(part, 2)));
    default:
        return band(part, row);
    }
}

static PyObject *one_prediction(PyObject *parts, const double *row)
{
    PyObject *made = PyDict_New();
    for (Py_ssize_t i = 0; made && i < PyTuple_Size(parts); i++) {
        PyObject *part = item(parts, i), *value = part_of(part, row);
        if (!value || PyDict_SetItem(made, item(part, 0), value))
            Py_CLEAR(made);
        Py_XDECREF(value);
    }
    return made;
}

static int is_column(PyObject *object, Py_ssize_t width)
{
    Py_ssize_t column = PyLong_Check(object) ? PyLong_AsSsize_t(object) : -1;
    return column >= 0 && column < width;
}

static int are_floats(PyObject *tuple)
{
    for (Py_ssize_t i = 0; i < PyTuple_Size(tuple); i++)
        if (!PyFloat_Check(item(tuple, i)))
            return 0;
    return 1;
}

static int is_part(PyObject *part, Py_ssize_t width);

static int is_inner(PyObject *part, long kind, Py_ssize_t width)
{
    PyObject *inner = item(part, 3);
    if (kind == AT)
        return is_part(inner, width);
    int known = PyTuple_Check(inner);
    for (Py_ssize_t i = 0; known && i < PyTuple_Size(inner); i++)
        known = is_part(item(inner, i), width);
    return known;
}

static int is_part(PyObject *part, Py_ssize_t width)
{
    if (!PyTuple_Check(part) || PyTuple_Size(part) < 3 || !PyLong_Check(item(part, 1)))
        return 0;
    long kind = PyLong_AsLong(item(part, 1));
    if (kind < 0 || kind >= KINDS || PyTuple_Size(part) != SIZES[kind])
        return 0;
    PyObject *first = item(part, 2);
    if (kind == NUMBERS || kind == FIRST_LARGEST)
        return PyTuple_Check(first) && PyTuple_Size(first) >= 1 && PyTuple_Size(first) <= width;
    if (kind == ABOVE || kind == FROM)
        return PyFloat_Check(first);
    if (!is_column(first, width))
        return 0;
    if (kind == AT || kind == GROUP)
        return is_inner(part, kind, width - PyLong_AsSsize_t(first));
    if (kind == AT_LEAST)
        return PyFloat_Check(item(part, 3));
    return kind == NUMBER || (PyTuple_Check(item(part, 3)) && are_floats(item(part, 3)) && PyTuple_Check(item(part, 4)) &&
                              PyTuple_Size(item(part, 4)) == PyTuple_Size(item(part, 3)) + 1);
}

/* Notes that a row holds a number that is not finite, which JSON does not have. */
static int note_odd(PyObject *odd, const double *row, Py_ssize_t width, Py_ssize_t r)
{
    for (Py_ssize_t i = 0; i < width; i++)
        if (!isfinite(row[i]))
            return note(odd, r);
    return 0;
}

static PyObject *all_predictions(const Py_buffer *x, PyObject *parts, Py_ssize_t width, PyObject *odd)
{
    Py_ssize_t rows = x->len / (Py_ssize_t)sizeof(double) / width;
    PyObject *made = PyList_New(rows);
    for (Py_ssize_t r = 0; made && r < rows; r++) {
        const double *row = (const double *)x->buf + r * width;
        PyObject *one = note_odd(odd, row, width, r) ? NULL : one_prediction(parts, row);
        if (!one || PyList_SetItem(made, r, one))
            Py_CLEAR(made);
    }
    return made;
}

PyObject *show_rows(PyObject *module, PyObject *args)
{
    (void)module;
    PyObject *rows, *parts, *odd;
    Py_ssize_t width;
    Py_buffer x;
    if (!PyArg_ParseTuple(args, "OnO!O!:show", &rows, &width, &PyTuple_Type, &parts, &PyList_Type, &odd))
        return NULL;
    int known = width >= 1;
    for (Py_ssize_t i = 0; known && i < PyTuple_Size(parts); i++)
        known = is_part(item(parts, i), width);
    if (!known) {
        PyErr_Clear();
        PyErr_SetString(PyExc_ValueError, "a part of a prediction is malformed");
        return NULL;
    }
    if (PyObject_GetBuffer(rows, &x, PyBUF_SIMPLE))
        return NULL;
    PyObject *made = all_predictions(&x, parts, width, odd);
    PyBuffer_Release(&x);
    return made;
}
