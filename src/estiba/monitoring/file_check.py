"""Compare a file of rows with the profile of a model, without a server."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np

from estiba.core.errors import EstibaError
from estiba.model.inference.load import Model
from estiba.model.inference.score_files import PLAIN_SOURCE, SourceOptions, coded_rows
from estiba.monitoring.comparison import GROUPS
from estiba.monitoring.layout import Counted, Layout
from estiba.monitoring.options import DriftOptions
from estiba.monitoring.report import VersionReport, described
from estiba.monitoring.windows import Gathered, Reference, judge, reference_of

SLICE_ROWS = 50
"""Rows of a slice, of which windows are put together."""


def check_file(
    model: Model, source: Path, options: DriftOptions, sources: SourceOptions = PLAIN_SOURCE, *, at: int = 0
) -> VersionReport:
    """Compare the rows of a file, as one window, with the profile of a model.

    A single window decides here. Answers are compared where the profile has those to held-out rows.

    Args:
        at: the time of the check, in microseconds since 1970.

    Raises:
        EstibaError: the model has no profile, or the file cannot be used.
    """
    if model.signature.is_tensors or model.profile is None:
        reason = "is a model of tensors" if model.signature.is_tensors else "was packed before there were profiles"
        raise EstibaError(f"{model.name} {reason}, so there is nothing to compare with.", hint="Pack the model again.")
    reference = reference_of(model.profile, model.signature, at)
    window = _count(model, source, sources, reference, at)
    rows = window.rows(reference.parts)
    if rows < options.min_rows:
        raise EstibaError(
            f"{source} has {rows:,} rows, too few to compare: differences would be chance.",
            hint=f"Use at least {options.min_rows:,} rows (--min-rows).",
        )
    result = judge(window, reference, None, options, options.ignored(model.name))
    parts = {name: msgspec.structs.replace(part, detected=part.flagged, since=0) for name, part in result.parts.items()}
    about = VersionReport(model.version, model.digest, "ok", 0, (), ())
    return described(about, reference, msgspec.structs.replace(result, parts=parts), window.total)


def _count(model: Model, source: Path, sources: SourceOptions, reference: Reference, at: int) -> Gathered:
    layout = Layout(reference.parts, model.signature)
    counted = []
    for coded in coded_rows(model, source, sources):
        groups = max(GROUPS, len(coded) // SLICE_ROWS)
        group = np.arange(len(coded)) * groups // len(coded)
        raw = None if reference.output_source == "pending" else model.answer(coded)
        counted.append(layout.count(coded, raw, group, groups))
    if not counted:
        raise EstibaError(f"{source} has no rows.")
    cells, sums = (np.concatenate([getattr(each, name) for each in counted]) for name in ("cells", "sums"))
    return Gathered(at, at, Counted(cells, sums))
