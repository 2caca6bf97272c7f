/* What Python sees: a Kernel to run rows through, and scan to read ONNX files with. */
#include "kernel.h"
#include "terms.h"
#include <stdlib.h>
#include <string.h>

/* Up to this many rows the interpreter lock is kept: getting it back can take longer than they do. */
enum { QUICK = 256 };

typedef struct {
    PyObject_HEAD
    Program program;
    Scratch scratch; /* of runs that keep the interpreter lock */
} Kernel;

static int open_scratch(const Program *p, Scratch *s)
{
    s->slots = calloc((size_t)p->slots * BLOCK, sizeof *s->slots);
    s->ranks = calloc((size_t)p->ranks * BLOCK + 1, sizeof *s->ranks);
    return s->slots && s->ranks ? 0 : -1;
}

static void close_scratch(Scratch *s)
{
    free(s->slots);
    free(s->ranks);
    memset(s, 0, sizeof *s);
}

static int run(const Program *p, Scratch *s, const double *x, Py_ssize_t rows, double *y)
{
    int status = DONE;
    for (Py_ssize_t start = 0; start < rows && status == DONE; start += BLOCK) {
        Py_ssize_t n = rows - start < BLOCK ? rows - start : BLOCK;
        status = run_block(p, s, x + start * p->inputs, n, y + start * p->width);
    }
    return status;
}

static int run_unlocked(const Program *p, const double *x, Py_ssize_t rows, double *y)
{
    Scratch s = {0};
    int status = open_scratch(p, &s) ? -1 : run(p, &s, x, rows, y);
    close_scratch(&s);
    return status;
}

static PyObject *kernel_new(PyTypeObject *type, PyObject *args, PyObject *names)
{
    PyObject *parts;
    if (names && PyDict_Size(names)) {
        PyErr_SetString(PyExc_TypeError, "Kernel takes no names");
        return NULL;
    }
    if (!PyArg_ParseTuple(args, "O!:Kernel", &PyTuple_Type, &parts))
        return NULL;
    allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    Kernel *self = (Kernel *)allocate(type, 0);
    if (!self)
        return NULL;
    if (fill_program(&self->program, parts)) {
        Py_DECREF(self);
        return NULL;
    }
    if (open_scratch(&self->program, &self->scratch)) {
        Py_DECREF(self);
        return PyErr_NoMemory();
    }
    return (PyObject *)self;
}

static void kernel_free(PyObject *object)
{
    Kernel *self = (Kernel *)object;
    PyTypeObject *type = Py_TYPE(object);
    close_scratch(&self->scratch);
    clear_program(&self->program);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(object);
    Py_DECREF(type);
}

static int check_sizes(const Program *p, const Py_buffer *x, const Py_buffer *y)
{
    Py_ssize_t row = p->inputs * (Py_ssize_t)sizeof(double);
    if (x->len % row == 0 && y->len == x->len / row * p->width * (Py_ssize_t)sizeof(double))
        return 0;
    PyErr_SetString(PyExc_ValueError, "the sizes of input and output do not fit the program");
    return -1;
}

static int run_buffers(Kernel *self, const Py_buffer *x, const Py_buffer *y)
{
    const Program *p = &self->program;
    if (check_sizes(p, x, y))
        return -1;
    Py_ssize_t rows = x->len / (p->inputs * (Py_ssize_t)sizeof(double));
    int status;
    if (rows <= QUICK)
        status = run(p, &self->scratch, x->buf, rows, y->buf);
    else {
        Py_BEGIN_ALLOW_THREADS
        status = run_unlocked(p, x->buf, rows, y->buf);
        Py_END_ALLOW_THREADS
    }
    if (status == BAD_CODE)
        PyErr_SetString(PyExc_ValueError, "a row has a code that no category of the model has");
    else if (status != DONE)
        PyErr_NoMemory();
    return status == DONE ? 0 : -1;
}

static PyObject *kernel_run(PyObject *object, PyObject *args)
{
    PyObject *given, *wanted;
    Py_buffer x, y;
    if (!PyArg_ParseTuple(args, "OO:run", &given, &wanted))
        return NULL;
    if (PyObject_GetBuffer(given, &x, PyBUF_SIMPLE))
        return NULL;
    if (PyObject_GetBuffer(wanted, &y, PyBUF_WRITABLE)) {
        PyBuffer_Release(&x);
        return NULL;
    }
    int status = run_buffers((Kernel *)object, &x, &y);
    PyBuffer_Release(&x);
    PyBuffer_Release(&y);
    if (status)
        return NULL;
    Py_RETURN_NONE;
}

static PyMethodDef kernel_methods[] = {
    {"run", kernel_run, METH_VARARGS, "Rows of float64 in one buffer to answers of float64 in another."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot kernel_slots[] = {
    {Py_tp_new, (void *)kernel_new},
    {Py_tp_dealloc, (void *)kernel_free},
    {Py_tp_methods, kernel_methods},
    {0, NULL},
};

static PyType_Spec kernel_spec = {
    "estiba.model._kernel.Kernel", sizeof(Kernel), 0, Py_TPFLAGS_DEFAULT, kernel_slots,
};

static PyMethodDef functions[] = {
    {"scan", scan_message, METH_O, "The fields of one message, in order: (number, wire type, bytes)."},
    {"pack", pack_rows, METH_VARARGS, "Rows of plain values into a buffer of float64; gives places of unseen levels."},
    {"show", show_rows, METH_VARARGS, "Rows of float64 as predictions, each made of the given parts; rows with a number that is not finite are noted."},
    {"tree_shap", tree_shap, METH_VARARGS, "Shapley values of fields for a sum of trees, float64 of shape (fields, width)."},
    {"repeated_keys", repeated_keys, METH_VARARGS, "Whether an object of a JSON body may have a key twice."},
    {NULL, NULL, 0, NULL},
};

#define NAME(name) #name " "

static int fill_module(PyObject *module)
{
    PyObject *type = PyType_FromSpec(&kernel_spec);
    if (!type || PyModule_AddObjectRef(module, "Kernel", type) || add_terms_type(module))
        return -1;
    Py_DECREF(type);
    return PyModule_AddStringConstant(module, "OPERATIONS", OPERATIONS(NAME));
}

static PyModuleDef_Slot module_slots[] = {{Py_mod_exec, (void *)fill_module}, {0, NULL}};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "_kernel", "Runs models as C.", 0, functions, module_slots, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__kernel(void)
{
    return PyModuleDef_Init(&definition);
}
