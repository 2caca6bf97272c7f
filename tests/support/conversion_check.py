"""Compare a converted model with its original on difficult rows."""

from __future__ import annotations

import contextlib
import io
import math
import tempfile
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from conversion_cases import Case
from output_cases import HELD_OUT, SAMPLE, OutputCase

import estiba
from estiba.model.coding.coder import Coded, Coder
from estiba.model.convert import Converted, NotConvertible, convert
from estiba.model.estimators.outputs import answer
from estiba.model.schema.signature import UNSEEN, Field, Head, Signature

PROBES = 3000


@dataclass(frozen=True)
class Verdict:
    """`difference` is the largest absolute one; `agree` of `rows` labels are the original's."""

    name: str
    engine: str
    difference: float = math.nan
    agree: int = 0
    rows: int = 0
    labels: bool = True
    reason: str = ""


def fields_of(sample: pd.DataFrame, missing: bool, unseen: bool) -> tuple[Field, ...]:
    return tuple(_field(str(c), sample[c], missing, unseen) for c in sample)


def _field(name: str, column: pd.Series, missing: bool, unseen: bool) -> Field:
    dtype = column.dtype
    common: dict[str, Any] = {"name": name, "nullable": missing and dtype.kind not in "ib", "dtype": str(dtype)}
    if dtype.kind in "fiub":
        return Field(kind={"f": "number", "b": "boolean"}.get(dtype.kind, "integer"), **common)
    levels = list(dtype.categories) if hasattr(dtype, "categories") else sorted(column.dropna().unique())
    return Field(kind="category", levels=tuple(levels), unseen="other" if unseen else "error", **common)


def coded_rows(sample: pd.DataFrame, fields: tuple[Field, ...], converted: Converted) -> np.ndarray:
    """Rows of the sample with cells put at tree thresholds or one step beside them, missing, unseen, any level."""
    rng = np.random.default_rng(5)
    splits = _splits(converted)
    matrix = np.empty((PROBES, len(fields)))
    for i, field in enumerate(fields):
        column = sample.iloc[:, i]
        if field.kind == "category":
            matrix[:, i] = rng.integers(0, len(field.levels), PROBES)
            if field.unseen == "other":
                matrix[rng.random(PROBES) < 0.1, i] = UNSEEN
        else:
            values = column.dropna().to_numpy(float)
            near = values if field.kind != "number" else np.concatenate([values, _beside(splits.get(i, values[:50]))])
            matrix[:, i] = rng.choice(near, PROBES)
        if field.nullable:
            matrix[rng.random(PROBES) < 0.1, i] = np.nan
    return matrix


def _splits(converted: Converted) -> dict[int, np.ndarray]:
    import onnx

    found: dict[int, list[float]] = {}
    for node in onnx.load_from_string(converted.onnx).graph.node:
        if node.op_type == "TreeEnsemble":
            given = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
            values = onnx.numpy_helper.to_array(given["nodes_splits"]).astype(float)
            for feature, value in zip(given["nodes_featureids"], values, strict=True):
                found.setdefault(int(feature), []).append(float(value))
    return {f: np.asarray([s for s in v if math.isfinite(s)][:400]) for f, v in found.items()}


def _beside(values: np.ndarray) -> np.ndarray:
    """The values, and the next numbers to either side in float64 and in float32."""
    single = values.astype(np.float32)
    steps = [np.nextafter(values, -np.inf), np.nextafter(values, np.inf), single]
    steps += [np.nextafter(single, np.float32(-np.inf)), np.nextafter(single, np.float32(np.inf))]
    beside = np.concatenate([values, *(s.astype(float) for s in steps)])
    return beside[np.isfinite(beside)]


def run(onnx: bytes, matrix: np.ndarray) -> np.ndarray:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])
    result: np.ndarray = session.run(["y"], {"x": matrix})[0]
    return result


def labels(matrix: np.ndarray, head: Head) -> np.ndarray:
    """Labels as the signature defines them."""
    classes = np.asarray(head.classes, object)
    if head.kind == "outlier":
        return classes[(matrix[:, 0] >= 0).astype(int)]
    if head.kind == "scores" and head.width == 1:
        return classes[(matrix[:, 0] > 0).astype(int)]
    return classes[matrix.argmax(axis=1)]


def judge(case: Case) -> Verdict:
    """Fit, convert and compare a model on one thread, which is fastest for so few rows."""
    from threadpoolctl import threadpool_limits

    with warnings.catch_warnings(), threadpool_limits(1):
        warnings.simplefilter("ignore")
        model, sample = case.fit()
        fields = fields_of(sample, case.missing, case.unseen)
        try:
            converted = convert(model, fields, sample)
        except NotConvertible as error:
            return Verdict(case.name, "python", reason=error.message)
        matrix = coded_rows(sample, fields, converted)
        frame = Coder(Signature(fields=fields, head=converted.head)).frame(Coded(matrix))
        expected = answer(model, frame, converted.head)
        found = np.concatenate([run(converted.onnx, matrix[:1]), run(converted.onnx, matrix[1:])])
        difference = float(np.abs(found - expected).max())
        if converted.head.kind == "values":
            return Verdict(case.name, "onnx", difference, rows=PROBES, labels=False)
        said = np.asarray(model.predict(frame)).ravel()
        agree = int((labels(found, converted.head) == said).sum())
    return Verdict(case.name, "onnx", difference, agree, PROBES)


def judge_output(name: str, case: OutputCase) -> Verdict:
    """Fit, convert and compare a model with several outputs, quantiles or clusters, on rows that it has not seen."""
    from threadpoolctl import threadpool_limits

    with warnings.catch_warnings(), threadpool_limits(1):
        warnings.simplefilter("ignore")
        model = case.fit()
        try:
            converted = convert(model, fields_of(SAMPLE, False, False), SAMPLE)
        except NotConvertible as error:
            return Verdict(name, "python", reason=error.message)
        expected = answer(model, HELD_OUT, converted.head)
        found = run(converted.onnx, HELD_OUT.to_numpy())
    difference = float(np.abs(found - expected).max())
    positions = sum(each.kind == "label" for each in converted.head.heads or (converted.head,))
    if converted.head.kind == "label":
        return Verdict(name, "onnx", difference, int((found == expected).sum()), len(HELD_OUT) * positions)
    return Verdict(name, "onnx", difference, rows=len(HELD_OUT), labels=False)


def judge_text(name: str, model: Any) -> Verdict:
    """Fit, pack and compare a model of texts, which the kernel answers from the texts themselves."""
    from text_cases import numbers, target, texts

    sample = texts(300, 1)
    wanted = target(sample)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(sample, (wanted == "spam") * 1.0 if name.endswith("ridge") else wanted)
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            manifest = estiba.pack(model, sample, name="texts", registry=folder).artifact.manifest
        if manifest.engine == "python":
            return Verdict(name, "python", reason=manifest.reason)
        asked = texts(500, 2)
        said = estiba.load("texts", registry=folder).predict(asked)
        found, expected = numbers(said, model, asked)
    difference = float(np.abs(found - expected).max())
    if "label" not in said[0]:
        return Verdict(name, "onnx", difference, rows=len(asked), labels=False)
    agree = sum(a["label"] == b for a, b in zip(said, model.predict(asked).tolist(), strict=True))
    return Verdict(name, "onnx", difference, agree, len(asked))
