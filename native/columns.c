/* Instructions over columns, in the order of operations of the graph that they come from. */
#include "kernel.h"
#include <math.h>
#include <string.h>

typedef struct {
    const double *at;
    int steps; /* 0 for a constant, else 1 */
} Operand;

static Operand operand(const Program *p, const Scratch *s, int32_t which)
{
    return which < 0 ? (Operand){p->constants - 1 - which, 0} : (Operand){s->slots + which * s->stride, 1};
}

static double sign(double a)
{
    return a > 0 ? 1.0 : a < 0 ? -1.0 : a; /* of zero: itself; of NaN: NaN */
}

static double least(double a, double b)
{
    return a != a || a < b ? a : b;
}

static double most(double a, double b)
{
    return a != a || a > b ? a : b;
}

#define EACH for (Py_ssize_t r = 0; r < n; r++)
#define UNARY(name, value)                                                                                            \
    case OP_##name:                                                                                                   \
        EACH { double a = A.at[r * A.steps]; to[r] = (value); }                                                       \
        break;
/* The common forms without a step to multiply by, which the compiler turns into vector instructions. */
#define BINARY(name, value)                                                                                           \
    case OP_##name:                                                                                                   \
        if (A.steps && B.steps) {                                                                                     \
            EACH { double a = A.at[r], b = B.at[r]; to[r] = (value); }                                                \
        } else if (A.steps) {                                                                                         \
            const double b = *B.at;                                                                                   \
            EACH { double a = A.at[r]; to[r] = (value); }                                                             \
        } else {                                                                                                      \
            const double a = *A.at;                                                                                   \
            EACH { double b = B.at[r * B.steps]; to[r] = (value); }                                                   \
        }                                                                                                             \
        break;

static void unary(int32_t op, Operand A, double *to, Py_ssize_t n)
{
    switch (op) {
        UNARY(copy, a)
        UNARY(negative, -a)
        UNARY(absolute, fabs(a))
        UNARY(sqrt, sqrt(a))
        UNARY(exp, exp(a))
        UNARY(log, log(a))
        UNARY(floor, floor(a))
        UNARY(ceil, ceil(a))
        UNARY(round, rint(a))
        UNARY(sign, sign(a))
        UNARY(tanh, tanh(a))
        UNARY(reciprocal, 1.0 / a)
        UNARY(isnan, a != a)
        UNARY(isinf, isinf(a) != 0)
        UNARY(not, a == 0)
        UNARY(single, (double)(float)a)
        UNARY(whole, trunc(a))
        UNARY(truth, a != 0)
    }
}

static void binary(int32_t op, Operand A, Operand B, double *to, Py_ssize_t n)
{
    switch (op) {
        BINARY(add, a + b)
        BINARY(subtract, a - b)
        BINARY(multiply, a * b)
        BINARY(divide, a / b)
        BINARY(power, pow(a, b))
        BINARY(least, least(a, b))
        BINARY(most, most(a, b))
        BINARY(equal, a == b)
        BINARY(less, a < b)
        BINARY(less_equal, a <= b)
        BINARY(greater, a > b)
        BINARY(greater_equal, a >= b)
        BINARY(and, a != 0 && b != 0)
        BINARY(or, a != 0 || b != 0)
    }
}

/* Row a of a table, as a graph counts: from the end where it is below zero. */
static int take(const Program *p, const Instruction *i, Operand A, double *to, Py_ssize_t n)
{
    const double *table = p->tables + i->list;
    EACH {
        double a = A.at[r * A.steps];
        if (!(a >= -i->length && a < i->length))
            return BAD_CODE;
        int32_t row = (int32_t)a;
        to[r] = table[row < 0 ? row + i->length : row];
    }
    return DONE;
}

/* What the code of a category stands for: -1 is unseen, NaN is missing and last, where `flag` says that it may be. */
static int code(const Program *p, const Instruction *i, Operand A, double *to, Py_ssize_t n)
{
    const double *table = p->tables + i->list;
    EACH {
        double a = A.at[r * A.steps];
        int known = a >= -1 && a < i->length - 1 - i->flag;
        int32_t row = known ? (int32_t)a + 1 : i->length - 1;
        if (known ? (double)(row - 1) != a : !(i->flag && a != a))
            return BAD_CODE;
        to[r] = table[row];
    }
    return DONE;
}

/* 1 where a is one of a sorted list, which is short as a rule. */
static void member(const Program *p, const Instruction *i, Operand A, double *to, Py_ssize_t n)
{
    const double *table = p->tables + i->list;
    EACH {
        double a = A.at[r * A.steps];
        int32_t low = 0, count = i->length;
        while (count > 1) {
            int32_t half = count / 2;
            low = table[low + half] <= a ? low + half : low;
            count -= half;
        }
        to[r] = table[low] == a;
    }
}

/* Sum of columns times weights, from the first on. */
static void dot(const Program *p, const Scratch *s, const Instruction *i, double *to, Py_ssize_t n)
{
    EACH to[r] = 0.0;
    for (int32_t k = 0; k < i->length; k++) {
        Operand A = operand(p, s, p->lists[i->list + k]);
        const double weight = p->tables[i->b + k];
        EACH to[r] += A.at[r * A.steps] * weight;
    }
}

static int trees(const Program *p, const Scratch *s, const Instruction *i, Py_ssize_t n)
{
    const Ensemble *e = p->ensembles + i->a;
    double *to[MOST_TARGETS];
    for (int32_t k = 0; k < i->length; k++) {
        to[k] = s->slots + p->lists[i->list + k] * s->stride;
        if (!i->flag) /* else it goes on from an earlier part of the same ensemble */
            memset(to[k], 0, (size_t)n * sizeof **to);
    }
    return add_leaves(e, s, 0, n, to);
}

/* What other trees leave of all votes; where that is so near to half that last bits decide, counted as well. Tables
   hold the votes there are, half of them, and how near is near. */
static int rest(const Program *p, const Scratch *s, const Instruction *i, double *to, Py_ssize_t n)
{
    const double *votes = s->slots + i->a * s->stride, *limits = p->tables + i->b;
    EACH {
        double apart = fabs(votes[r] - limits[1]);
        to[r] = limits[0] - votes[r];
        if (!(apart < limits[2]))
            continue;
        to[r] = 0.0;
        for (int32_t k = 0; k < i->length; k++)
            if (add_leaves(p->ensembles + i->c + k, s, r, 1, &to) != DONE)
                return BAD_CODE;
    }
    return DONE;
}

static void load(const Program *p, const double *x, int32_t column, double *to, Py_ssize_t n)
{
    EACH to[r] = x[r * p->inputs + column];
}

static int run_one(const Program *p, Scratch *s, const Instruction *i, const double *x, Py_ssize_t n)
{
    double *to = s->slots + i->to * s->stride;
    switch (i->op) {
    case OP_load:
        load(p, x, i->a, to, n);
        return DONE;
    case OP_where: {
        Operand A = operand(p, s, i->a), B = operand(p, s, i->b), C = operand(p, s, i->c);
        EACH to[r] = A.at[r * A.steps] != 0 ? B.at[r * B.steps] : C.at[r * C.steps];
        return DONE;
    }
    case OP_take:
        return take(p, i, operand(p, s, i->a), to, n);
    case OP_code:
        return code(p, i, operand(p, s, i->a), to, n);
    case OP_member:
        member(p, i, operand(p, s, i->a), to, n);
        return DONE;
    case OP_dot:
        dot(p, s, i, to, n);
        return DONE;
    case OP_trees:
        return trees(p, s, i, n);
    case OP_rest:
        return rest(p, s, i, to, n);
    default:
        if (i->op < OP_add)
            unary(i->op, operand(p, s, i->a), to, n);
        else
            binary(i->op, operand(p, s, i->a), operand(p, s, i->b), to, n);
        return DONE;
    }
}

int run_block(const Program *p, Scratch *s, const double *x, Py_ssize_t n, double *y)
{
    s->stride = n; /* close together, as few rows are the usual case */
    for (Py_ssize_t k = 0; k < p->length; k++)
        if (run_one(p, s, p->code + k, x, n) != DONE)
            return BAD_CODE;
    for (Py_ssize_t k = 0; k < p->width; k++) {
        Operand A = operand(p, s, p->outputs[k]);
        EACH y[r * p->width + k] = A.at[r * A.steps];
    }
    return DONE;
}
