"""Choose the rows on which a packed model is compared with the original, and compare them."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

import msgspec
import numpy as np
import numpy.typing as npt

from estiba.core.errors import ParityError
from estiba.model.artifact import golden_rows, made_rows, profile
from estiba.model.artifact.artifact import Parity
from estiba.model.coding.coder import Coded, Matrix
from estiba.model.engines.exact import open_exact
from estiba.model.engines.onnx import runner
from estiba.model.engines.onnx_reader import NotRecognised
from estiba.model.packing.candidate import Candidate, check_rebuilt, contradiction
from estiba.model.packing.converted import Converted
from estiba.model.packing.split import with_tail

Rows = Literal["sample", "made"]


LARGE_GRAPH_BYTES = 50_000_000
"""Size of a graph that ONNX Runtime needs 15 times the memory for, which the kernel does not."""


def fast_runner(onnx: bytes, candidate: Candidate) -> golden_rows.Predict:
    """A function that runs a graph with ONNX Runtime, or a large one with the kernel where that knows all of it."""
    if len(onnx) > LARGE_GRAPH_BYTES:
        signature = candidate.signature
        with suppress(NotRecognised):
            return open_exact(onnx, signature.fields, signature.head.width).predict
    return runner(onnx)


@dataclass(frozen=True)
class Chosen:
    """Golden rows, and the composed rows that they were chosen from; None where it was the sample."""

    golden: Coded
    base: Coded | None = None


def composed(candidate: Candidate) -> Coded:
    """Rows in place of the sample that are nobody's."""
    known = profile.distributions(candidate.signature.fields, candidate.coded)
    return made_rows.compose(candidate.coder, known, candidate.coded)


def choose(candidate: Candidate, predict: golden_rows.Predict | None, apart: float) -> Chosen:
    """Choose golden rows of the sample; `predict` and `apart` as `golden_rows.choose` takes them."""
    return Chosen(golden_rows.choose(candidate.coder, candidate.coded, predict, apart))


def choose_made(
    candidate: Candidate, predict: golden_rows.Predict | None, apart: float, holdout: Coded | None = None
) -> Chosen:
    """Choose golden rows that are composed, and differ from each row of the sample and from the held-out rows.

    Few fields of few values have few different rows, and many people have each of them: where hardly a composed row
    differs from all of the sample, all are taken.
    """
    own = candidate.coded if holdout is None else golden_rows.join([candidate.coded, holdout])
    rows = composed(candidate)
    base = made_rows.without_rows_of(own, rows)
    few = len(base) < made_rows.MIN_DIFFERENT_ROWS
    base = rows if few else base
    chosen = golden_rows.choose(candidate.coder, base, predict, apart, made_rows.THRESHOLD_PAIRS)
    return Chosen(chosen if few else made_rows.without_rows_of(own, chosen), base)


class Proof:
    """Compares packed forms of a model with the original on golden rows and on the caller's own sample rows.

    Args:
        chosen: the golden rows.
        sample: positions of the sample rows, and the original's answers to them.
    """

    def __init__(
        self,
        candidate: Candidate,
        chosen: Chosen,
        sample: tuple[npt.NDArray[np.int_], Matrix],
        tolerance: float,
    ) -> None:
        self._candidate, self._tolerance = candidate, tolerance
        self._rows, self._direct = sample
        self.golden, self.base, self.answers = chosen.golden, chosen.base, candidate.original(chosen.golden)
        self._expected = np.concatenate([self.answers, self._direct])
        kind = "golden rows" if chosen.base is None else "made golden rows"
        self._note = f"{len(chosen.golden)} {kind} and {len(self._rows)} rows of the sample"

    def contradiction(self) -> str:
        """A sentence where the original's own predict says another label than its answers; else empty."""
        return contradiction(self._candidate, self._candidate.sample.iloc[self._rows], self._direct) or contradiction(
            self._candidate, self._candidate.coder.frame(self.golden), self.answers
        )

    def of_original(self) -> Parity:
        """The proof of the python engine, which hands the original rows that are rebuilt from their coded form."""
        rebuilt = check_rebuilt(self._candidate, self._rows, self._direct)
        return self._compare(np.concatenate([self.answers, rebuilt]))[0]

    def of_converted(self, form: Converted, parity: Parity, *, must_hold: bool) -> tuple[Parity, str]:
        """The proof of the converted model and why it fails; `parity`, of the original, and a reason where it does.

        Raises:
            ParityError: it answers differently, and `must_hold`.
        """
        sample = self._candidate.coded.take(self._rows)
        rows = golden_rows.join([self.golden, sample])
        try:
            answers = form.predict(rows)
        except ValueError as error:
            if form.tail is None:
                raise
            return parity, with_tail(form.reason, str(error))  # the converted steps refuse what is handed over
        compared, broken = self._compare(answers)
        if broken is None:
            return compared, ""
        where = self._shown(rows, broken)
        reason = (
            f"The converted model is off by up to {max(compared.max_abs_error.values()):.3g} and agrees on "
            f"{compared.labels_equal} of {compared.labels_total} labels; "
            f"first on {where}."
        )
        if must_hold:
            raise ParityError(reason, hint="Raise tolerance if that is acceptable, or use engine = 'auto'.")
        return parity, reason

    def _compare(self, got: Matrix) -> tuple[Parity, int | None]:
        signature, tolerance = self._candidate.signature, self._tolerance
        return golden_rows.compare(signature, self._expected, got, tolerance=tolerance, note=self._note)

    def _shown(self, rows: Coded, row: int) -> str:
        """A row as JSON; of the sample only where its rows may be stored, as the artifact keeps the reason."""
        if self.base is not None and row >= len(self.golden):
            return "a row of the sample"
        return msgspec.json.encode(self._candidate.coder.rows(rows.take(np.asarray([row])))[0]).decode()
