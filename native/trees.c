/* Decision trees on ranks: every value is replaced by how many of its column's thresholds are below it, and a node then
   compares two small whole numbers, which is exact whatever the thresholds were. */
#include "kernel.h"
#include <string.h>

static uint32_t count_below(const double *sorted, uint32_t n, double x)
{
    const double *at = sorted;
    while (n > 1) {
        uint32_t half = n / 2;
        at = at[half - 1] < x ? at + half : at;
        n -= half;
    }
    return (uint32_t)(at - sorted) + (*at < x);
}

static void rank_feature(const Ensemble *e, const Feature *f, const double *x, Py_ssize_t n, uint16_t *q, size_t step)
{
    const double *sorted = e->thresholds + f->start;
    uint16_t *low = f->missing_low < 0 ? NULL : q + (size_t)f->missing_low * step;
    uint16_t *high = f->missing_high < 0 ? NULL : q + (size_t)f->missing_high * step;
    for (Py_ssize_t r = 0; r < n; r++) {
        uint16_t rank = (uint16_t)count_below(sorted, (uint32_t)f->count, x[r]);
        if (low)
            low[r] = rank; /* nothing is below NaN, so its rank is 0 */
        if (high)
            high[r] = x[r] != x[r] ? HIGHEST : rank;
    }
}

static int rank_lookup(const Ensemble *e, const Lookup *l, const double *x, Py_ssize_t n, uint16_t *q, size_t step)
{
    int32_t rows[BLOCK];
    for (Py_ssize_t r = 0; r < n; r++) {
        int known = x[r] >= -1 && x[r] < l->size - 1 - l->nullable;
        if (!known && !(l->nullable && x[r] != x[r]))
            return BAD_CODE;
        rows[r] = known ? (int32_t)x[r] + 1 : l->size - 1;
        if (known && (double)(rows[r] - 1) != x[r])
            return BAD_CODE;
    }
    const uint16_t *table = e->ranks + l->start;
    if (n == 1) { /* then step is 1 as well */
        memcpy(q + l->first, table + (size_t)rows[0] * (size_t)l->width, (size_t)l->width * sizeof *q);
        return DONE;
    }
    for (int32_t c = 0; c < l->width; c++) {
        uint16_t *to = q + (size_t)(l->first + c) * step;
        for (Py_ssize_t r = 0; r < n; r++)
            to[r] = table[(size_t)rows[r] * (size_t)l->width + (size_t)c];
    }
    return DONE;
}

static int rank_rows(const Ensemble *e, const Scratch *s, Py_ssize_t first, Py_ssize_t n, size_t step)
{
    for (Py_ssize_t i = 0; i < e->features_count; i++) {
        const Feature *f = e->features + i;
        rank_feature(e, f, s->slots + f->source * s->stride + first, n, s->ranks, step);
    }
    for (Py_ssize_t i = 0; i < e->lookups_count; i++) {
        const Lookup *l = e->lookups + i;
        if (rank_lookup(e, l, s->slots + l->source * s->stride + first, n, s->ranks, step) != DONE)
            return BAD_CODE;
    }
    return DONE;
}

static inline void add_leaf(const Ensemble *e, Py_ssize_t tree, uint32_t node, double *const *to, Py_ssize_t row)
{
    if (e->rows) {
        const double *leaf = e->rows + (size_t)((const uint32_t *)e->leaves)[node] * (size_t)e->width;
        for (int32_t k = 0; k < e->width; k++)
            to[k][row] += leaf[k];
        return;
    }
    double *sum = to[e->targets[tree]] + row, leaf = ((const double *)e->leaves)[node];
    *sum = e->single ? (double)((float)*sum + (float)leaf) : *sum + leaf;
}

#define STEP(at, q_of) at = nodes[at].left + ((q_of) > nodes[at].rank)

/* One row: SIDE trees side by side, so that one waits for memory while others walk. */
static void walk_row(const Ensemble *e, const uint16_t *q, double *const *to, Py_ssize_t row)
{
    const Node *nodes = e->nodes;
    Py_ssize_t tree = 0;
    for (; tree + SIDE <= e->trees; tree += SIDE) {
        uint32_t at[SIDE];
        int depth = 0;
        for (int i = 0; i < SIDE; i++) {
            at[i] = e->roots[tree + i];
            depth = e->depths[tree + i] > depth ? e->depths[tree + i] : depth;
        }
        while (depth-- > 0) {
            uint32_t moved = 0;
            for (int i = 0; i < SIDE; i++) {
                uint32_t next = nodes[at[i]].left + (q[nodes[at[i]].column] > nodes[at[i]].rank);
                moved |= next ^ at[i];
                at[i] = next;
            }
            if (e->early && !moved)
                break;
        }
        for (int i = 0; i < SIDE; i++)
            add_leaf(e, tree + i, at[i], to, row);
    }
    for (; tree < e->trees; tree++) {
        uint32_t at = e->roots[tree];
        for (int depth = e->depths[tree]; depth-- > 0;)
            STEP(at, q[nodes[at].column]);
        add_leaf(e, tree, at, to, row);
    }
}

/* One tree: LANES rows side by side. */
static void walk_lanes(const Node *nodes, const uint16_t *q, uint32_t *at, int depth, int early)
{
    while (depth-- > 0) {
        uint32_t moved = 0;
        for (int i = 0; i < LANES; i++) {
            Node node = nodes[at[i]];
            uint32_t next = node.left + (q[(size_t)node.column * BLOCK + (size_t)i] > node.rank);
            moved |= next ^ at[i];
            at[i] = next;
        }
        if (early && !moved)
            break;
    }
}

static void walk_block(const Ensemble *e, const uint16_t *q, Py_ssize_t n, double *const *to, Py_ssize_t first)
{
    for (Py_ssize_t tree = 0; tree < e->trees; tree++) {
        for (Py_ssize_t start = 0; start < n; start += LANES) {
            uint32_t at[LANES];
            for (int i = 0; i < LANES; i++)
                at[i] = e->roots[tree];
            walk_lanes(e->nodes, q + start, at, e->depths[tree], e->early);
            Py_ssize_t end = n - start < LANES ? n - start : LANES;
            for (Py_ssize_t i = 0; i < end; i++)
                add_leaf(e, tree, at[i], to, first + start + i);
        }
    }
}

int add_leaves(const Ensemble *e, const Scratch *s, Py_ssize_t first, Py_ssize_t n, double *const *to)
{
    /* A few rows are faster one by one than with most lanes empty; so are those that are left over. */
    Py_ssize_t over = n % LANES, together = over < FEW_ROWS ? n - over : n;
    if (together) {
        if (rank_rows(e, s, first, together, BLOCK) != DONE)
            return BAD_CODE;
        walk_block(e, s->ranks, together, to, first);
    }
    for (Py_ssize_t row = first + together; row < first + n; row++) {
        if (rank_rows(e, s, row, 1, 1) != DONE)
            return BAD_CODE;
        walk_row(e, s->ranks, to, row);
    }
    return DONE;
}
