"""Find graphs that decide between computed numbers, where the last bit of a sum or an exponential may turn a decision.

A tree that compares the row's own numbers decides as its original does, to the bit. A tree behind a matrix product, a
vote of linear models or a nearest neighbour compares numbers that other libraries, and other processors, compute
differently in the last bit. Rows exactly on such a border prove nothing.
"""

from __future__ import annotations

from collections.abc import Set
from typing import Any

_ROUNDED = """
    MatMul Gemm Exp Log Pow Tanh Sigmoid Softmax ReduceSum ReduceMean ReduceL2 Sum Erf
"""
"""Operators whose last bit depends on who computes them."""

_DECIDING = """
    TreeEnsemble TreeEnsembleClassifier TreeEnsembleRegressor Greater GreaterOrEqual Less LessOrEqual Equal ArgMax
    ArgMin Floor Ceil Round Sign ReduceMin
"""
"""Operators whose answer jumps."""

_ASKING = "Greater GreaterOrEqual Less LessOrEqual Equal And Or Not IsNaN IsInf"
"""Operators that answer yes or no; sums of that are whole numbers, which nobody rounds."""


def decides_between_rounded(content: bytes) -> bool:
    """Tell whether a node of an ONNX file that jumps reads a number that another library may round differently.

    Nearest neighbours always do: scikit-learn computes the distances to many points by a matrix product. Sums of looked
    up rows do not: each row is zero outside the columns of its own category (`columns.py`), so nothing is rounded.
    """
    import onnx

    rounding, deciding, asking = (set(names.split()) for names in (_ROUNDED, _DECIDING, _ASKING))
    rounded: set[str] = set()
    graph = onnx.load_from_string(content).graph
    tables = {table.name for table in graph.initializer}
    truths: set[str] = set()
    looked_up: set[str] = set()
    for node in graph.node:  # each before those that read it
        reads = any(name in rounded for name in node.input)
        if node.op_type == "TopK" or (reads and node.op_type in deciding):
            return True
        if node.op_type in asking or (node.op_type == "Cast" and node.input[0] in truths):
            truths.update(node.output)
        elif reads or (node.op_type in rounding and not _is_exact_sum(node, truths, looked_up)):
            rounded.update(node.output)
        elif node.op_type == "Gather" and node.input[0] in tables:
            looked_up.update(node.output)
    return False


def _is_exact_sum(node: Any, truths: Set[str], looked_up: Set[str]) -> bool:
    first = node.input[0]
    return first in truths or (node.op_type == "ReduceSum" and first in looked_up)
