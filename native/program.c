/* From what Python lowered a graph to, to a Program that can be run blindly: every index is checked here. */
#include "kernel.h"
#include <string.h>

static int wrong(const char *what)
{
    PyErr_Format(PyExc_ValueError, "malformed program: %s", what);
    return -1;
}

#define CHECK(condition, what)                                                                                        \
    if (!(condition))                                                                                                 \
    return wrong(what)

/* Element `at` of a tuple as a list of items of that size; the tuple keeps it alive. */
static int items(PyObject *tuple, Py_ssize_t at, size_t size, const void *into, Py_ssize_t *count)
{
    PyObject *bytes = PyTuple_GetItem(tuple, at);
    CHECK(bytes && PyBytes_Check(bytes), "a list is not bytes");
    Py_ssize_t length = PyBytes_Size(bytes);
    CHECK(length % (Py_ssize_t)size == 0, "a list is cut off");
    const char *start = PyBytes_AsString(bytes);
    memcpy((void *)into, &start, sizeof start);
    *count = length / (Py_ssize_t)size;
    return 0;
}

static int number(PyObject *tuple, Py_ssize_t at, int32_t *into)
{
    PyObject *given = PyTuple_GetItem(tuple, at);
    long value = given && PyLong_Check(given) ? PyLong_AsLong(given) : -1;
    if (value == -1)
        PyErr_Clear();
    CHECK(value >= 0 && value <= INT32_MAX, "a number is out of range");
    *into = (int32_t)value;
    return 0;
}

static int within(int64_t start, int64_t length, Py_ssize_t count)
{
    return start >= 0 && length >= 0 && start + length <= (int64_t)count;
}

static int check_features(const Ensemble *e, int32_t slots)
{
    for (Py_ssize_t i = 0; i < e->features_count; i++) {
        const Feature *f = e->features + i;
        CHECK(f->source >= 0 && f->source < slots, "a feature's slot");
        CHECK(f->count >= 1 && f->count < HIGHEST && within(f->start, f->count, e->thresholds_count),
              "a feature's thresholds");
        CHECK(f->missing_low >= -1 && f->missing_low < e->columns, "a feature's column");
        CHECK(f->missing_high >= -1 && f->missing_high < e->columns, "a feature's column");
    }
    for (Py_ssize_t i = 0; i < e->lookups_count; i++) {
        const Lookup *l = e->lookups + i;
        CHECK(l->source >= 0 && l->source < slots, "a category's slot");
        CHECK(l->width >= 0 && within(l->first, l->width, e->columns), "a category's columns");
        CHECK(l->nullable == 0 || l->nullable == 1, "a category's flag");
        CHECK(l->size > l->nullable && within(l->start, (int64_t)l->size * l->width, e->ranks_count),
              "a category's ranks");
    }
    return 0;
}

static int check_nodes(const Ensemble *e)
{
    for (Py_ssize_t i = 0; i < e->nodes_count; i++) {
        Node node = e->nodes[i];
        int64_t last = (int64_t)node.left + (node.rank != HIGHEST);
        CHECK(node.column < e->columns && last < (int64_t)e->nodes_count, "a node");
        CHECK(!e->rows || ((const uint32_t *)e->leaves)[i] < e->rows_count, "a leaf");
    }
    for (Py_ssize_t i = 0; i < e->trees; i++)
        CHECK(e->roots[i] < e->nodes_count && e->targets[i] < (uint32_t)e->width, "a tree");
    return 0;
}

static int fill_ensemble(Ensemble *e, PyObject *parts, int32_t slots)
{
    Py_ssize_t depths, targets, leaves, numbers;
    CHECK(PyTuple_Check(parts) && PyTuple_Size(parts) == 14, "an ensemble");
    if (items(parts, 0, sizeof(Feature), &e->features, &e->features_count) ||
        items(parts, 1, sizeof(double), &e->thresholds, &e->thresholds_count) ||
        items(parts, 2, sizeof(Lookup), &e->lookups, &e->lookups_count) ||
        items(parts, 3, sizeof(uint16_t), &e->ranks, &e->ranks_count) ||
        items(parts, 4, sizeof(Node), &e->nodes, &e->nodes_count) ||
        items(parts, 5, sizeof(uint32_t), &e->roots, &e->trees) ||
        items(parts, 6, sizeof(uint16_t), &e->depths, &depths) ||
        items(parts, 7, sizeof(uint32_t), &e->targets, &targets) ||
        items(parts, 9, sizeof(double), &e->rows, &numbers) || number(parts, 10, &e->columns) ||
        number(parts, 11, &e->width) || number(parts, 12, &e->single) || number(parts, 13, &e->early))
        return -1;
    CHECK(e->columns >= 1 && e->columns <= HIGHEST + 1 && e->width >= 1 && e->width <= MOST_TARGETS, "an ensemble's size");
    CHECK(depths == e->trees && targets == e->trees, "an ensemble's trees");
    if (numbers == 0)
        e->rows = NULL;
    CHECK(numbers % e->width == 0, "an ensemble's vectors");
    e->rows_count = numbers / e->width;
    if (items(parts, 8, e->rows ? sizeof(uint32_t) : sizeof(double), &e->leaves, &leaves))
        return -1;
    CHECK(leaves == e->nodes_count, "an ensemble's leaves");
    return check_features(e, slots) || check_nodes(e) ? -1 : 0;
}

static int is_operand(const Program *p, int64_t which)
{
    return which < 0 ? -1 - which < p->constants_count : which < p->slots;
}

static int check_list(const Program *p, const Instruction *i, int32_t lowest)
{
    CHECK(within(i->list, i->length, p->lists_count), "a list of operands");
    for (int32_t k = 0; k < i->length; k++) {
        int32_t which = p->lists[i->list + k];
        CHECK(which >= lowest && is_operand(p, which), "an operand in a list");
    }
    return 0;
}

static int check_special(const Program *p, const Instruction *i)
{
    switch (i->op) {
    case OP_load:
        CHECK(i->a >= 0 && i->a < p->inputs, "a column of the input");
        return 0;
    case OP_take:
    case OP_code:
    case OP_member:
        CHECK(is_operand(p, i->a) && i->length >= 1 && within(i->list, i->length, p->tables_count), "a table");
        CHECK(i->op != OP_code || ((i->flag == 0 || i->flag == 1) && i->length > i->flag), "a category's table");
        return 0;
    case OP_dot:
        CHECK(within(i->b, i->length, p->tables_count), "weights");
        return check_list(p, i, INT32_MIN);
    case OP_trees:
        CHECK(i->a >= 0 && i->a < p->ensembles_count && i->length == p->ensembles[i->a].width, "an ensemble's place");
        return check_list(p, i, 0);
    default: /* rest */
        CHECK(i->a >= 0 && is_operand(p, i->a) && within(i->b, 3, p->tables_count), "votes");
        CHECK(i->length >= 1 && within(i->c, i->length, p->ensembles_count), "an ensemble's place");
        for (int32_t k = 0; k < i->length; k++)
            CHECK(p->ensembles[i->c + k].width == 1, "an ensemble's width");
        return 0;
    }
}

static int check_instruction(const Program *p, const Instruction *i)
{
    CHECK(i->op >= 0 && i->op < OP_COUNT, "an operation");
    CHECK(i->to >= 0 && i->to < p->slots, "a slot");
    if (i->op == OP_load || i->op >= OP_take)
        return check_special(p, i);
    CHECK(is_operand(p, i->a), "an operand");
    CHECK(i->op < OP_add || is_operand(p, i->b), "an operand");
    CHECK(i->op != OP_where || is_operand(p, i->c), "an operand");
    return 0;
}

static int fill_ensembles(Program *p, PyObject *parts)
{
    CHECK(parts && PyTuple_Check(parts), "the ensembles");
    p->ensembles_count = PyTuple_Size(parts);
    p->ensembles = PyMem_Calloc((size_t)p->ensembles_count + 1, sizeof *p->ensembles);
    if (!p->ensembles) {
        PyErr_NoMemory();
        return -1;
    }
    for (Py_ssize_t i = 0; i < p->ensembles_count; i++) {
        if (fill_ensemble(p->ensembles + i, PyTuple_GetItem(parts, i), p->slots))
            return -1;
        if (p->ensembles[i].columns > p->ranks)
            p->ranks = p->ensembles[i].columns;
    }
    return 0;
}

int fill_program(Program *p, PyObject *parts)
{
    CHECK(PyTuple_Check(parts) && PyTuple_Size(parts) == 8, "its parts");
    Py_INCREF(parts);
    p->held = parts;
    if (number(parts, 0, &p->inputs) || number(parts, 1, &p->slots) ||
        items(parts, 2, sizeof(double), &p->constants, &p->constants_count) ||
        items(parts, 3, sizeof(double), &p->tables, &p->tables_count) ||
        items(parts, 4, sizeof(int32_t), &p->lists, &p->lists_count) ||
        items(parts, 5, sizeof(Instruction), &p->code, &p->length) ||
        items(parts, 6, sizeof(int32_t), &p->outputs, &p->width))
        return -1;
    CHECK(p->inputs >= 1 && p->slots >= 1 && p->slots <= 1 << 20 && p->width >= 1, "its size");
    if (fill_ensembles(p, PyTuple_GetItem(parts, 7)))
        return -1;
    for (Py_ssize_t k = 0; k < p->length; k++)
        if (check_instruction(p, p->code + k))
            return -1;
    for (Py_ssize_t k = 0; k < p->width; k++)
        CHECK(is_operand(p, p->outputs[k]), "an output");
    return 0;
}

void clear_program(Program *p)
{
    PyMem_Free(p->ensembles);
    p->ensembles = NULL;
    Py_CLEAR(p->held);
}
