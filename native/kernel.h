/* The kernel: a model as a straight line of instructions over columns of doubles, with decision trees as one of them.

   Everything that a Program holds is checked when it is made (program.c), so that running one needs no checks but
   those of values that come from rows. Nothing here is changed by a run; any number of threads may run one Program. */
#ifndef ESTIBA_KERNEL_H
#define ESTIBA_KERNEL_H

#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030B0000
#include <Python.h>
#include <stddef.h>
#include <stdint.h>

/* Rows that are computed together: their ranks, at two bytes a column, should stay in the nearest cache. How many of them
   go down one tree side by side, and from how many on that pays; how many trees one row goes down side by side. */
enum { BLOCK = 64, LANES = 16, FEW_ROWS = 11, SIDE = 8 };

/* A rank that is above every threshold's: where a missing value goes right, and what no value exceeds in a leaf. */
enum { HIGHEST = 65535 };

/* Numbers that one ensemble may answer with. */
enum { MOST_TARGETS = 256 };

/* A node asks whether the rank in its column is above its own. Its left child is `left`, its right one `left + 1`;
   a leaf is its own left child and asks what is never true, so that walking on stays there. */
typedef struct {
    uint16_t rank, column;
    uint32_t left;
} Node;

/* A column of numbers and the sorted thresholds that it is compared with. Its rank is how many of them are below it.
   It is written to two columns of ranks, or one: a missing value is lowest in the first and highest in the second. */
typedef struct {
    int32_t source, start, count, missing_low, missing_high;
} Feature;

/* Columns of ranks that only depend on one category: looked up by its code, -1 to size - 2, or size - 1 with missing. */
typedef struct {
    int32_t source, start, size, first, width, nullable;
} Lookup;

typedef struct {
    const Feature *features;
    const double *thresholds;
    const Lookup *lookups;
    const uint16_t *ranks;
    const Node *nodes;
    const uint32_t *roots;
    const uint16_t *depths;
    const uint32_t *targets;
    const void *leaves;    /* per node: a double, or where `rows` is set the number of its row there (uint32) */
    const double *rows;    /* vectors of `width` numbers */
    Py_ssize_t features_count, thresholds_count, lookups_count, ranks_count, nodes_count, trees, rows_count;
    int32_t columns, width, single, early;
} Ensemble;

/* What an instruction does. Operands a, b, c are slots, or constants as -1 - position. */
#define OPERATIONS(X)                                                                                                 \
    X(load) X(copy) X(negative) X(absolute) X(sqrt) X(exp) X(log) X(floor) X(ceil) X(round) X(sign) X(tanh)            \
    X(reciprocal) X(isnan) X(isinf) X(not) X(single) X(whole) X(truth)                                                 \
    X(add) X(subtract) X(multiply) X(divide) X(power) X(least) X(most) X(equal) X(less) X(less_equal) X(greater)       \
    X(greater_equal) X(and) X(or) X(where)                                                                             \
    X(take) X(code) X(member) X(dot) X(trees) X(rest)

#define NAMED(name) OP_##name,
enum { OPERATIONS(NAMED) OP_COUNT };
#undef NAMED

typedef struct {
    int32_t op, to, a, b, c, list, length, flag;
} Instruction;

typedef struct {
    PyObject *held; /* the bytes objects that all pointers point into */
    const double *constants;
    const double *tables;
    const int32_t *lists;
    const Instruction *code;
    const int32_t *outputs;
    Ensemble *ensembles;
    Py_ssize_t constants_count, tables_count, lists_count, length, width, ensembles_count;
    int32_t inputs, slots;
    Py_ssize_t ranks; /* columns of ranks of the widest ensemble */
} Program;

/* What a run writes to. */
typedef struct {
    double *slots;
    uint16_t *ranks;
    Py_ssize_t stride; /* from one slot to the next */
} Scratch;

enum { DONE = 0, BAD_CODE = 1 };

/* Each of n <= BLOCK rows of x, which has program->inputs columns, to program->width numbers in y. */
int run_block(const Program *program, Scratch *scratch, const double *x, Py_ssize_t n, double *y);

/* Adds the leaves that n rows from row `first` of the slots on fall into to `to[target] + first`, in the order of the
   trees. */
int add_leaves(const Ensemble *e, const Scratch *s, Py_ssize_t first, Py_ssize_t n, double *const *to);

/* Fills a Program from the tuple that Python made; 0, or -1 with an exception set. */
int fill_program(Program *program, PyObject *parts);
void clear_program(Program *program);

PyObject *scan_message(PyObject *module, PyObject *bytes);
PyObject *pack_rows(PyObject *module, PyObject *args);
PyObject *show_rows(PyObject *module, PyObject *args);
PyObject *repeated_keys(PyObject *module, PyObject *args);
PyObject *tree_shap(PyObject *module, PyObject *args);

#endif
