"""Packs one model of the standing lab, and compares what Estiba answers with the original's own predict."""

from __future__ import annotations

import contextlib
import io
import json
import tempfile
import warnings
from dataclasses import asdict, dataclass
from typing import Any

import models_damage
import models_data
import models_made
import numpy as np
import pandas as pd

from estiba.core.errors import BadInput, EstibaError
from estiba.model.inference.load import Model, load_artifact
from estiba.model.packing.pack import pack

ROWS = 120
"""Held-out rows of one model, and as many changed ones."""

SINGLE, TOLERANCE = 2e-6, 1e-8
"""Largest difference that is no fault, absolute below 1 and relative above; XGBoost and float32 columns round more."""


@dataclass
class Result:
    """One line of the lab. `engine` is onnx, python or refused; `fault` is empty where all holds.

    `single`: some columns are float32, in which the original computes on.
    """

    seed: int
    data: str
    changes: str
    estimator: str
    preparation: str
    wrapper: str
    engine: str = ""
    reason: str = ""
    rows: int = 0
    labels: int = 0
    labels_equal: int = 0
    difference: float = 0.0
    stricter: int = 0
    stricter_why: str = ""
    looser: int = 0
    fault: str = ""
    single: bool = False

    def line(self) -> str:
        return json.dumps(asdict(self), ensure_ascii=False)


def examine(seed: int, rows: int = ROWS) -> Result | None:
    """Build the model of a seed, pack it and compare; None where the library itself does not fit such a model.

    Args:
        rows: held-out ones, and as many changed ones.
    """
    from threadpoolctl import threadpool_limits

    with warnings.catch_warnings(), threadpool_limits(1):
        warnings.simplefilter("ignore")
        return _examined(seed, rows)


def _examined(seed: int, count: int) -> Result | None:
    rng = np.random.default_rng(seed)
    data = models_data.draw(rng)
    rows, changes = models_damage.damaged(rng, data.rows)
    name, preparation, wrapper, model = models_made.draw(rng, rows, data.classes)
    result = Result(seed, data.name, ", ".join(changes), name, preparation, wrapper)
    result.single = any(str(dtype).lower() == "float32" for dtype in rows.dtypes)
    cut = len(rows) * 6 // 10
    trained, held_out = rows.iloc[:cut].reset_index(drop=True), rows.iloc[cut:].reset_index(drop=True)
    target = _target(data, name, cut)
    try:
        model.fit(trained, target)
        model.predict(trained)
        asked = models_damage.probes(rng, held_out, trained, count)
    except Exception:  # the library's own refusal, of whatever class
        return None
    with tempfile.TemporaryDirectory() as folder:
        _packed(result, model, trained, asked, folder)
    return result


def _target(data: models_data.Data, name: str, cut: int) -> Any:
    wanted = data.target.iloc[:cut].reset_index(drop=True)
    return pd.factorize(wanted, sort=True)[0] if data.classes and name.startswith("XGB") else wanted


def _packed(result: Result, model: Any, trained: pd.DataFrame, asked: pd.DataFrame, folder: str) -> None:
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):  # pack's report
            packed = pack(model, trained, name="lab", registry=folder)
        manifest = packed.artifact.manifest
        result.engine, result.reason = manifest.engine, manifest.reason
        loaded = load_artifact(packed.artifact, trust=True, threads=1)
    except EstibaError as error:
        result.engine, result.reason = "refused", error.message
        return
    except Exception as error:  # what no user should see
        result.engine, result.fault = "refused", f"traceback in pack: {type(error).__name__}: {error}"
        return
    try:
        _compare(result, model, loaded, asked)
    except Exception as error:
        result.fault = f"traceback in predict: {type(error).__name__}: {error}"


def records(rows: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows as JSON has them: plain values, null for a missing one."""
    columns = {c: [None if pd.isna(v) else _plain(v) for v in rows[c].astype(object)] for c in rows}
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else value


def _compare(result: Result, model: Any, loaded: Model, asked: pd.DataFrame) -> None:
    said = [_own(model, asked.iloc[[i]]) for i in range(len(asked))]
    for i, (record, own) in enumerate(zip(records(asked), said, strict=True)):
        try:
            answer = loaded.predict([record])[0]
        except BadInput as error:
            if own is not None:
                result.stricter += 1
                result.stricter_why = result.stricter_why or error.message
            continue
        if own is None:
            result.looser += 1
            continue
        result.rows += 1
        _one(result, i, own, answer)


def _own(model: Any, row: pd.DataFrame) -> tuple[Any, Any] | None:
    """The label or number of the original's predict, and its probabilities; None where it raises."""
    try:
        label = np.asarray(model.predict(row)).ravel()
        shares = np.asarray(model.predict_proba(row))[0] if hasattr(model, "predict_proba") else None
    except Exception:  # each library has its own
        return None
    return _plain(label[0]) if len(label) == 1 else label.tolist(), shares


def _one(result: Result, i: int, own: tuple[Any, Any], answer: dict[str, Any]) -> None:
    label, shares = own
    limit = SINGLE if result.estimator.startswith("XGB") or result.single else TOLERANCE
    if "label" in answer or "cluster" in answer:
        said = answer["label"] if "label" in answer else answer["cluster"]
        result.labels += 1
        result.labels_equal += (equal := str(said) == str(label))
        if not equal:
            result.fault = result.fault or f"row {i}: the label is {said!r}, and predict says {label!r}"
        if shares is None or "probabilities" not in answer:
            return
        pairs = list(zip(answer["probabilities"].values(), shares.tolist(), strict=True))
    else:
        values = [v for k, v in answer.items() if k.startswith("value")] or list(answer.values())
        pairs = list(zip(values, np.ravel(label).tolist(), strict=True))
    for ours, theirs in pairs:
        if ours is None or not np.isfinite(theirs):
            apart = 0.0 if ours is None and not np.isfinite(theirs) else np.inf
        else:
            apart = abs(ours - theirs) / max(1.0, abs(theirs))
        result.difference = max(result.difference, apart)
        if apart > limit:
            result.fault = result.fault or f"row {i}: answers {ours!r} where the original says {theirs!r}"
