"""Exact Shapley values of models whose answers are sums of decision trees, by interventional TreeSHAP in the kernel.

The trees are those of the artifact's graph. A node's column may be computed from a field in any way (one of several
columns of a one-hot encoder, a scaled number), as long as it is computed from this field alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from estiba.model.artifact.artifact import Artifact
from estiba.model.coding.coder import Matrix
from estiba.model.coding.kernel import compiled
from estiba.model.engines import trees
from estiba.model.engines.columns import Columns
from estiba.model.engines.exact import domains
from estiba.model.engines.lower_onnx import Walked, lower
from estiba.model.engines.onnx_reader import NotRecognised, read_model
from estiba.model.engines.program import assemble

MAX_DEPTH = 2000
"""Of a tree: the kernel's walk goes down by recursion."""

MAX_FIELDS = 10_000
"""Fields of a model that the kernel takes."""


class Sums(NamedTuple):
    """The numbers that a model's ensembles answer with, side by side, and the model's own answers.

    Args:
        sums: of shape (rows, sums).
        answers: as the engine has them, of shape (rows, width).
    """

    sums: Matrix
    answers: Matrix


class TreeValues:
    """The trees of a model.

    Raises:
        NotRecognised: the kernel does not know the graph, it has no trees, or one of their columns is computed from
            several fields.
    """

    def __init__(self, artifact: Artifact) -> None:
        kernel = compiled()
        if kernel is None:
            raise NotRecognised("Estiba was installed without a C compiler, and so without its kernel")
        manifest = artifact.manifest
        fields, width = manifest.signature.fields, manifest.signature.head.width
        graph = read_model(artifact.file(manifest.model_file).read_bytes(), kernel.scan)
        columns, walked = Columns(domains(fields)), list[Walked]()
        outputs = lower(graph, columns, width, walked=walked)
        if not walked:
            raise NotRecognised("the graph has no trees")
        self._kernel = kernel
        self._fields, self._width = len(fields), width
        self._ensembles = [_Ensemble(w, columns, kernel, len(fields)) for w in walked]
        answers = [column for w in walked for column in w.answers]
        self.count = len(answers)
        self._program = kernel.Kernel(assemble(columns, [*answers, *outputs], kernel.OPERATIONS))

    @property
    def is_single(self) -> bool:
        """Some sums are rounded to float32."""
        return any(ensemble.is_single for ensemble in self._ensembles)

    def ask(self, rows: Matrix) -> Sums:
        """Ask the ensembles and the model."""
        out = np.empty((len(rows), self.count + self._width))
        self._program.run(rows, out)
        return Sums(out[:, : self.count], out[:, self.count :])

    def values(self, row: Matrix, background: Matrix) -> Matrix:
        """Shapley values of the fields for each sum, of shape (fields, sums)."""
        return np.concatenate([ensemble.values(row, background) for ensemble in self._ensembles], axis=1)


class _Ensemble:
    def __init__(self, walked: Walked, columns: Columns, kernel: Any, fields: int) -> None:
        forest = walked.forest
        deepest, _ = trees.depths(forest)
        if deepest.max() > MAX_DEPTH or fields > MAX_FIELDS:
            raise NotRecognised("a tree is too deep to be explained, or the model has too many fields")
        asked, position = np.unique(forest.column, return_inverse=True)
        self.is_single = forest.single
        self._kernel, self._fields, self._width = kernel, fields, len(walked.answers)
        self._of = _fields_of(columns, asked.tolist(), fields).tobytes()
        self._asked = len(asked)
        self._questions = kernel.Kernel(assemble(columns, asked.tolist(), kernel.OPERATIONS))
        left, right = (child.astype(np.int32).tobytes() for child in forest.child)
        left_ends, right_ends = (leaf.astype(np.uint8).tobytes() for leaf in forest.leaf)
        self._parts = (
            position.astype(np.int32).tobytes(),
            forest.threshold.tobytes(),
            forest.low.astype(np.uint8).tobytes(),
            left,
            right,
            left_ends,
            right_ends,
            forest.roots.astype(np.int32).tobytes(),
            forest.weight.tobytes(),
            forest.target.astype(np.int32).tobytes(),
            None if walked.rows is None else walked.rows.tobytes(),
        )

    def values(self, row: Matrix, background: Matrix) -> Matrix:
        sides = [self._compared(rows) for rows in (row, background)]
        packed = self._kernel.tree_shap(self._parts, self._of, self._fields, self._width, *sides)
        return np.frombuffer(packed, np.float64).reshape(self._fields, self._width)

    def _compared(self, rows: Matrix) -> bytes:
        """The numbers that the nodes compare."""
        out = np.empty((len(rows), self._asked))
        self._questions.run(rows, out)
        return out.tobytes()


def _fields_of(columns: Columns, numbers: Sequence[int], fields: int) -> npt.NDArray[np.int32]:
    """The one field that each of the columns is computed from."""
    of: dict[int, frozenset[int]] = {}
    for number, column in enumerate(columns.known[: max(numbers) + 1]):
        own = {column.data} if column.op == "load" else set()
        of[number] = frozenset(own.union(*(of[argument] for argument in column.args)))
    sources_of = [of[number] for number in numbers]
    if any(len(sources) > 1 for sources in sources_of):
        raise NotRecognised("what the trees compare is computed from several fields")
    # A constant column is no field's: any will do, as all rows go the same way.
    return np.asarray([min(sources, default=0) for sources in sources_of], np.int32)
