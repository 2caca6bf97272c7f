/* Interventional TreeSHAP: the exact Shapley values of the sum of decision trees, against background rows.

   Shapley values: Shapley (1953); of trees against background rows: Lundberg et al., Nature Machine Intelligence 2 (2020),
   "From local explanations to global understanding with explainable AI for trees", section on interventional values.

   A player is a field of the model, whatever number of columns is computed from it. A leaf is reached by a mixture of the
   explained row and a background row if it takes some fields from the first (u of them) and others from the second (v):
   as a game that is worth 1 for a coalition that has all of the u and none of the v, each of the u is worth
   (u - 1)! v! / (u + v)!, and each of the v minus u! (v - 1)! / (u + v)!. */
#include "kernel.h"
#include <stdlib.h>
#include <string.h>

enum { UNDECIDED, FROM_ROW, FROM_BACKGROUND };

/* Nodes of a path, so that what Python did not check cannot exhaust the stack. */
enum { MAX_DEPTH = 2000 };

typedef struct {
    const int32_t *column, *child[2], *roots, *field, *target;
    const double *threshold, *weight, *vectors;
    const uint8_t *low, *leaf[2];
    Py_ssize_t nodes, trees, leaves, columns, fields, width;
} Trees;

typedef struct {
    const Trees *trees;
    const double *row, *background; /* the numbers that nodes compare, of the two rows */
    uint8_t *side;                  /* by field */
    int32_t *decided, count, from_row, depth;
    const double *share; /* share[u * size + v] = u! v! / (u + v + 1)! */
    Py_ssize_t size;     /* one more than the fields that a path can decide on */
    double *values;      /* of shape (fields, width) */
} Walk;

static void add_value(const Walk *w, int32_t field, int32_t leaf, double share)
{
    const Trees *t = w->trees;
    double *to = w->values + (Py_ssize_t)field * t->width;
    if (!t->vectors) {
        to[t->target[leaf]] += share * t->weight[leaf];
        return;
    }
    const double *vector = t->vectors + (Py_ssize_t)t->weight[leaf] * t->width;
    for (Py_ssize_t k = 0; k < t->width; k++)
        to[k] += share * vector[k];
}

static void end_at(const Walk *w, int32_t leaf)
{
    int32_t u = w->from_row, v = w->count - u;
    Py_ssize_t step = w->size;
    double plus = u ? w->share[(u - 1) * step + v] : 0, minus = v ? w->share[u * step + v - 1] : 0;
    for (int32_t i = 0; i < w->count; i++) {
        int32_t field = w->decided[i];
        add_value(w, field, leaf, w->side[field] == FROM_ROW ? plus : -minus);
    }
}

static int goes_right(const Trees *t, int32_t node, double x)
{
    return x != x ? !t->low[node] : !(x <= t->threshold[node]);
}

static void walk(Walk *w, int32_t node);

static void step(Walk *w, int32_t node, int right)
{
    const Trees *t = w->trees;
    int32_t below = t->child[right][node];
    if (t->leaf[right][node])
        end_at(w, below);
    else if (w->depth < MAX_DEPTH) {
        w->depth++;
        walk(w, below);
        w->depth--;
    }
}

static void decide(Walk *w, int32_t node, int32_t field, int side, int right)
{
    w->side[field] = (uint8_t)side;
    w->decided[w->count++] = field;
    w->from_row += side == FROM_ROW;
    step(w, node, right);
    w->from_row -= side == FROM_ROW;
    w->count--;
    w->side[field] = UNDECIDED;
}

static void walk(Walk *w, int32_t node)
{
    const Trees *t = w->trees;
    int32_t column = t->column[node], field = t->field[column];
    int of_row = goes_right(t, node, w->row[column]), of_background = goes_right(t, node, w->background[column]);
    if (w->side[field] == FROM_ROW || (w->side[field] == UNDECIDED && of_row == of_background))
        step(w, node, of_row);
    else if (w->side[field] == FROM_BACKGROUND)
        step(w, node, of_background);
    else {
        decide(w, node, field, FROM_ROW, of_row);
        decide(w, node, field, FROM_BACKGROUND, of_background);
    }
}

/* u! v! / (u + v + 1)! for all that a path can have, by recurrence. */
static double *shares(Py_ssize_t size)
{
    double *share = malloc((size_t)(size * size) * sizeof *share);
    for (Py_ssize_t u = 0; share && u < size; u++) {
        share[u * size] = 1.0 / (double)(u + 1);
        for (Py_ssize_t v = 1; v < size; v++)
            share[u * size + v] = share[u * size + v - 1] * (double)v / (double)(u + v + 1);
    }
    return share;
}

static int explain(const Trees *t, const double *row, const double *background, Py_ssize_t count, double *values)
{
    Py_ssize_t most = t->columns < t->fields ? t->columns : t->fields;
    Py_ssize_t size = (most < MAX_DEPTH + 1 ? most : MAX_DEPTH + 1) + 1;
    double *share = shares(size);
    uint8_t *side = calloc((size_t)t->fields, sizeof *side);
    int32_t *decided = calloc((size_t)t->fields, sizeof *decided);
    int done = share && side && decided;
    for (Py_ssize_t i = 0; done && i < count; i++) {
        Walk w = {t, row, background + i * t->columns, side, decided, 0, 0, 0, share, size, values};
        for (Py_ssize_t tree = 0; tree < t->trees; tree++)
            walk(&w, t->roots[tree]);
    }
    free(share);
    free(side);
    free(decided);
    for (Py_ssize_t i = 0; i < t->fields * t->width; i++)
        values[i] /= (double)count;
    return done ? 0 : -1;
}

/* Bytes as items of that size, at least one; -1 with an exception set. */
static int list(PyObject *bytes, size_t size, const void *into, Py_ssize_t *count)
{
    char *start;
    Py_ssize_t length;
    if (PyBytes_AsStringAndSize(bytes, &start, &length))
        return -1;
    if (length % (Py_ssize_t)size || !length) {
        PyErr_SetString(PyExc_ValueError, "malformed trees: a list is empty or cut off");
        return -1;
    }
    memcpy((void *)into, &start, sizeof start);
    *count = length / (Py_ssize_t)size;
    return 0;
}

static int fits(const Trees *t, Py_ssize_t vectors)
{
    for (int side = 0; side < 2; side++)
        for (Py_ssize_t i = 0; i < t->nodes; i++) {
            int32_t below = t->child[side][i];
            if (below < 0 || below >= (t->leaf[side][i] ? t->leaves : t->nodes))
                return 0;
        }
    for (Py_ssize_t i = 0; i < t->nodes; i++)
        if (t->column[i] < 0 || t->column[i] >= t->columns)
            return 0;
    for (Py_ssize_t i = 0; i < t->columns; i++)
        if (t->field[i] < 0 || t->field[i] >= t->fields)
            return 0;
    for (Py_ssize_t i = 0; i < t->trees; i++)
        if (t->roots[i] < 0 || t->roots[i] >= t->nodes)
            return 0;
    for (Py_ssize_t i = 0; i < t->leaves; i++)
        if (vectors ? !(t->weight[i] >= 0 && t->weight[i] < (double)vectors) : t->target[i] < 0 || t->target[i] >= t->width)
            return 0;
    return 1;
}

static int read_trees(PyObject *parts, Trees *t)
{
    Py_ssize_t n[11], vectors = 0;
    if (PyTuple_Size(parts) != 11) {
        PyErr_SetString(PyExc_ValueError, "malformed trees: there must be eleven lists");
        return -1;
    }
    const struct {
        size_t size;
        const void *into;
    } lists[10] = {
        {sizeof(int32_t), &t->column},  {sizeof(double), &t->threshold}, {1, &t->low},
        {sizeof(int32_t), &t->child[0]}, {sizeof(int32_t), &t->child[1]}, {1, &t->leaf[0]},
        {1, &t->leaf[1]},                {sizeof(int32_t), &t->roots},    {sizeof(double), &t->weight},
        {sizeof(int32_t), &t->target},
    };
    for (int i = 0; i < 10; i++)
        if (list(PyTuple_GetItem(parts, i), lists[i].size, lists[i].into, n + i))
            return -1;
    PyObject *given = PyTuple_GetItem(parts, 10);
    if (given != Py_None) {
        if (list(given, sizeof(double), &t->vectors, n + 10))
            return -1;
        vectors = n[10] / t->width;
    }
    t->nodes = n[0], t->trees = n[7], t->leaves = n[8];
    for (int i = 1; i < 7; i++)
        if (n[i] != t->nodes)
            goto wrong;
    if (n[9] == t->leaves && fits(t, vectors))
        return 0;
wrong:
    PyErr_SetString(PyExc_ValueError, "malformed trees");
    return -1;
}

PyObject *tree_shap(PyObject *module, PyObject *args)
{
    (void)module;
    Trees t = {0};
    PyObject *parts, *fields, *row, *background, *values = NULL;
    const double *x, *b;
    Py_ssize_t numbers, all, width, count;
    if (!PyArg_ParseTuple(args, "O!SnnSS:tree_shap", &PyTuple_Type, &parts, &fields, &t.fields, &width, &row, &background))
        return NULL;
    if (t.fields < 1 || t.fields > 10000 || width < 1 || width > 10000) {
        PyErr_SetString(PyExc_ValueError, "malformed trees: a size is out of range");
        return NULL;
    }
    t.width = width;
    if (list(fields, sizeof(int32_t), &t.field, &t.columns) || read_trees(parts, &t) ||
        list(row, sizeof(double), &x, &numbers) || list(background, sizeof(double), &b, &all))
        return NULL;
    if (numbers != t.columns || all % t.columns) {
        PyErr_SetString(PyExc_ValueError, "the rows do not fit the trees");
        return NULL;
    }
    count = all / t.columns;
    double *sums = calloc((size_t)(t.fields * width), sizeof *sums);
    int status = sums ? 0 : -1;
    if (sums) {
        Py_BEGIN_ALLOW_THREADS
        status = explain(&t, x, b, count, sums);
        Py_END_ALLOW_THREADS
    }
    if (status == 0)
        values = PyBytes_FromStringAndSize((const char *)sums, t.fields * width * (Py_ssize_t)sizeof *sums);
    else
        PyErr_NoMemory();
    free(sums);
    return values;
}
