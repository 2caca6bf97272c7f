"""Run requests for models of tensors: those of equal shapes together, where the model takes many records at once."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import cast

import numpy as np

from estiba.core.errors import EstibaError
from estiba.core.log import Log
from estiba.model.coding.tensor_coder import CodedTensors, Part
from estiba.model.inference.load import TensorModel
from estiba.model.schema.rows import Prediction
from estiba.serving.batcher import MAX_BATCH_ROWS, Batcher, ModelFailed, Run
from estiba.serving.exchange import Answer, Exchange
from estiba.serving.telemetry.metrics import Metrics

MAX_BATCH_ELEMENTS = 2**22
"""Elements of the inputs of requests that run together; a larger request runs alone."""


class TensorBatcher(Batcher):
    """The queue of one loaded model of tensors. The model runs in a thread, as one run may take long.

    Policies that observe batches are not called: they read rows of a table.
    """

    def __init__(self, model: TensorModel, metrics: Metrics, max_queued_rows: int, log: Log) -> None:
        super().__init__(model, metrics, max_queued_rows, log)
        self.tensors = model
        self._thread = self._thread or ThreadPoolExecutor(1, model.name)
        self._joins = model.signature.head.batch == "free"

    def run_large(self, exchange: Exchange) -> Answer:
        coded = cast(CodedTensors, exchange.coded)
        predictions, began_at, ended_at = self._run_tensors(coded)
        return Answer(predictions, (), began_at, ended_at)

    def _answer(self, exchanges: list[Exchange]) -> list[Answer | EstibaError]:
        answers: dict[int, Answer | EstibaError] = {}
        for positions in self._groups(exchanges):
            group = [exchanges[i] for i in positions]
            answers.update(zip(positions, self._answer_together(group), strict=True))
        return [answers[i] for i in range(len(exchanges))]

    def _answer_together(self, exchanges: list[Exchange]) -> list[Answer | EstibaError]:
        """An answer or an error for each exchange of one group."""
        try:
            coded = [cast(CodedTensors, exchange.coded) for exchange in exchanges]
            predictions, began_at, ended_at = self._run_tensors(coded[0] if len(coded) == 1 else _join(coded))
        except Exception as error:
            if len(exchanges) > 1:  # one request's values must not make others fail
                return [self._answer_together([exchange])[0] for exchange in exchanges]
            if isinstance(error, EstibaError):
                return [error]
            failure = ModelFailed(f"{type(error).__name__}: {error}")
            failure.__cause__ = error
            return [failure]
        return list(_split(exchanges, predictions, began_at, ended_at))

    def _run_tensors(self, coded: CodedTensors) -> tuple[list[Prediction], float, float]:
        """Predictions, and when the model began and ended."""
        began_at = time.perf_counter()
        predictions = self.tensors.run(coded)
        ended_at = time.perf_counter()
        self._runs.append(Run(len(coded), ended_at - began_at, (), ()))
        return predictions, began_at, ended_at

    def _groups(self, exchanges: list[Exchange]) -> Iterator[list[int]]:
        """Positions of exchanges that run together: each a single part, all of equal shapes, and not too many."""
        groups: dict[object, list[int]] = {}
        for i, exchange in enumerate(exchanges):
            coded = cast(CodedTensors, exchange.coded)
            alone = not self._joins or len(coded.parts) > 1
            groups.setdefault(i if alone else _shapes(coded.parts[0]), []).append(i)
        for positions in groups.values():
            first = cast(CodedTensors, exchanges[positions[0]].coded)
            each = sum(array.size for array in first.parts[0].values()) // first.counts[0]
            most = max(1, min(MAX_BATCH_ROWS, MAX_BATCH_ELEMENTS // max(each, 1)))
            yield from _limited(positions, [exchanges[i].count for i in positions], most)


def _limited(positions: list[int], counts: list[int], most: int) -> Iterator[list[int]]:
    """Consecutive positions with at most so many records together, but at least one position each."""
    taken: list[int] = []
    rows = 0
    for position, count in zip(positions, counts, strict=True):
        if taken and rows + count > most:
            yield taken
            taken, rows = [], 0
        taken.append(position)
        rows += count
    yield taken


def _shapes(part: Part) -> tuple[tuple[int, ...], ...]:
    return tuple(array.shape[1:] for array in part.values())


def _join(coded: list[CodedTensors]) -> CodedTensors:
    """One part of all records; each request has one, of equal shapes."""
    parts = [each.parts[0] for each in coded]
    part = {name: np.concatenate([each[name] for each in parts]) for name in parts[0]}
    count = sum(map(len, coded))
    return CodedTensors(np.empty((count, 0)), parts=(part,), counts=(count,))


def _split(
    exchanges: list[Exchange], predictions: list[Prediction], began_at: float, ended_at: float
) -> Iterator[Answer]:
    start = 0
    for exchange in exchanges:
        yield Answer(predictions[start : start + exchange.count], (), began_at, ended_at)
        start += exchange.count
