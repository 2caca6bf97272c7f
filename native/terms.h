/* Texts to sparse numbers, and how they are kept. */
#ifndef ESTIBA_TERMS_H
#define ESTIBA_TERMS_H

#include "kernel.h"

enum { WORDS, CHARACTERS, BOUNDED, TOKENS };
enum { LOGARITHM, SCALE, L1, L2, LARGEST, ABOVE, SELECT, ONES, STEP_KINDS };
enum { CHARACTERS_OF_UNICODE = 0x110000 };

/* Words one after the other, and a hash table of their numbers + 1. */
typedef struct {
    const char *bytes;
    const int32_t *starts;
    int32_t count;
    uint32_t mask, *places, *tags;
} Words;

/* `numbers` for scale and above, `places` for select. */
typedef struct {
    int32_t kind;
    const double *numbers;
    const int32_t *places;
} Step;

/* What reading a text writes to. Lists have room for as many items as their `_room` says. */
typedef struct {
    char *bytes, *low;
    int32_t *begins, *ends, *ids, *seen;
    double *values, *sorted;
    size_t low_room, bytes_room, begins_room, ends_room, ids_room, values_room, sorted_room;
    size_t length;         /* of bytes */
    int32_t pieces, count; /* tokens or characters; distinct features */
} Work;

typedef struct {
    PyObject_HEAD
    PyObject *held; /* the tuple of bytes objects that pointers point into */
    PyObject *prepare, *tokens;
    int32_t mode, low, high, shortest, lowercase, hashed, is_signed, features, width, steps_count;
    Words stops, vocabulary;
    Step *steps;
    const int32_t *starts, *targets, *columns;
    const double *weights;
    uint8_t *kinds;
    Work work;
    int busy;
} Terms;

int32_t find_word(const Words *w, const char *at, size_t n);
int index_words(Words *w);

/* The UTF-8 of a str, lone surrogates as three bytes; `held` keeps it alive. NULL with an exception set. */
const char *utf8_of(PyObject *text, Py_ssize_t *n, PyObject **held);

int read_text(Terms *t, Work *w, const char *text, size_t n);
int read_tokens(Terms *t, Work *w, PyObject *tokens);

/* The features counted so far as one row of the answer; none are counted any more. */
int finish_row(const Terms *t, Work *w, double *to);

int add_terms_type(PyObject *module);

#endif
