"""Assemble columns into a program for the kernel: only those that lead to the answer, in order, in few slots."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from estiba.model.engines import trees
from estiba.model.engines.columns import Column, Columns
from estiba.model.engines.lower_onnx import Ensemble
from estiba.model.engines.onnx_reader import NotRecognised

MAX_INSTRUCTIONS = 4000
"""Of one program. Beyond that ONNX Runtime's own loops are as fast."""


def assemble(columns: Columns, outputs: Sequence[int], operations: str) -> tuple[Any, ...]:
    """The arguments of `_kernel.Kernel`.

    Args:
        operations: names of the kernel's operations, in its order.

    Raises:
        NotRecognised: the program would be too long.
    """
    writer = _Writer(columns, operations)
    needed = writer.needed(outputs)
    if len(needed) > MAX_INSTRUCTIONS:
        raise NotRecognised("the program would be too long")
    writer.write(needed, outputs)
    return writer.finished(outputs)


class _Writer:
    def __init__(self, columns: Columns, operations: str) -> None:
        self.columns = columns
        self.known = columns.known
        self.numbers = {name: i for i, name in enumerate(operations.split())}
        self.targets: dict[int, list[int]] = defaultdict(list)
        for number, column in enumerate(self.known):
            if column.op == "target":
                self.targets[column.args[0]].append(number)
        self.constants: dict[int, int] = {}
        self.tables: list[float] = []
        self.lists: list[int] = []
        self.code: list[tuple[int, ...]] = []
        self.ensembles: list[tuple[Any, ...]] = []
        self.slots: dict[int, int] = {}
        self.free: list[int] = []
        self.count = 0

    def needed(self, outputs: Iterable[int]) -> list[int]:
        """The columns that lead to the outputs, each after those that it needs; of trees, all of their outputs."""
        found: set[int] = set()
        stack = list(outputs)
        while stack:
            number = stack.pop()
            if number not in found:
                found.add(number)
                stack += [*self.known[number].args, *self.targets.get(number, ())]
        return sorted(found)

    def write(self, needed: Sequence[int], outputs: Iterable[int]) -> None:
        """Write instructions, each with a slot that holds nothing that is still needed."""
        last = {number: number for number in needed}
        for number in needed:
            last.update(dict.fromkeys(self.known[number].args, number))
        last.update(dict.fromkeys(outputs, len(self.known)))
        ending: dict[int, list[int]] = defaultdict(list)
        for number, end in last.items():
            ending[end].append(number)
        for number in needed:
            column = self.known[number]
            if column.op not in ("constant", "target"):
                self._take_slots([number, *self.targets.get(number, ())])
                self._instruction(number, column)
            self.free += [self.slots[n] for n in ending[number] if n in self.slots]

    def _take_slots(self, numbers: Iterable[int]) -> None:
        for number in numbers:
            if not self.free:
                self.free.append(self.count)
                self.count += 1
            self.slots[number] = self.free.pop()

    def finished(self, outputs: Iterable[int]) -> tuple[Any, ...]:
        answers = np.asarray([self._operand(o) for o in outputs], np.int32)
        return (
            len(self.columns.inputs),
            max(self.count, 1),
            np.asarray([self.known[n].data for n in self.constants], np.float64).tobytes(),
            np.asarray(self.tables, np.float64).tobytes(),
            np.asarray(self.lists, np.int32).tobytes(),
            np.asarray(self.code, np.int32).tobytes(),
            answers.tobytes(),
            tuple(self.ensembles),
        )

    def _operand(self, number: int) -> int:
        if self.known[number].op == "constant":
            return -1 - self.constants.setdefault(number, len(self.constants))
        return self.slots[number]

    def _emit(self, name: str, to: int, *operands: int, table: tuple[int, int] = (0, 0), flag: int = 0) -> None:
        padded = (*operands, 0, 0, 0)[:3]
        self.code.append((self.numbers[name], to, *padded, *table, flag))

    def _kept(self, values: Iterable[float]) -> tuple[int, int]:
        """The start and length of a table."""
        start = len(self.tables)
        self.tables += values
        return start, len(self.tables) - start

    def _listed(self, values: Iterable[int]) -> tuple[int, int]:
        start = len(self.lists)
        self.lists += values
        return start, len(self.lists) - start

    def _instruction(self, number: int, column: Column) -> None:
        to = self.slots[number]
        operands = [self._operand(a) for a in column.args]
        if column.op == "load":
            self._emit("load", to, column.data)
        elif column.op == "code":
            nullable = self.columns.nullable(column.category)
            self._emit("code", to, *operands, table=self._kept(column.data.tolist()), flag=int(nullable))
        elif column.op in ("take", "member"):
            self._emit(column.op, to, *operands, table=self._kept(column.data.tolist()))
        elif column.op == "dot":
            weights, _ = self._kept(column.data.tolist())
            self._emit("dot", to, 0, weights, table=self._listed(operands))
        elif column.op == "trees":
            answers = [self.slots[n] for n in (number, *self.targets.get(number, ()))]
            for i, position in enumerate(self._packed(column.data)):
                self._emit("trees", to, position, table=self._listed(answers), flag=int(i > 0))
        elif column.op == "rest":
            limits, ensemble = column.data
            places = self._packed(ensemble)
            self._emit("rest", to, operands[0], self._kept(limits)[0], places[0], table=(0, len(places)))
        else:
            self._emit(column.op, to, *operands)

    def _packed(self, ensemble: Ensemble) -> range:
        """The positions of an ensemble's parts among the kernel's."""
        start = len(self.ensembles)
        for part in ensemble.parts:
            self.ensembles.append(
                trees.pack(part, self.slots.__getitem__, lambda i: self.slots[self.columns.inputs[i]], ensemble.rows)
            )
        return range(start, len(self.ensembles))
