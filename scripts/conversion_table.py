"""Fits every model of the conversion matrix, converts it, and writes docs/reference/conversion.md.

python scripts/conversion_table.py           # write the page
python scripts/conversion_table.py --check   # fail if an engine or an agreement on the page is no longer so
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "reference" / "conversion.md"
sys.path.insert(0, str(ROOT / "tests" / "support"))

import output_cases  # noqa: E402
import text_cases  # noqa: E402
from conversion_cases import cases  # noqa: E402
from conversion_check import PROBES, Verdict, judge, judge_output, judge_text  # noqa: E402

HEAD = """# What converts to ONNX, and how exactly

Written by `python scripts/conversion_table.py`; do not edit. Each model is fitted on 400 seeded rows, converted, and
asked together with its original about {probes} rows: training values in new combinations, every level of a category,
cells exactly at tree thresholds and one float64 or float32 step to either side, and, where the model takes them,
missing values and levels that were never seen.

- **Engine**: `onnx` where an exact graph exists, otherwise `python`: the original estimator.
- **Difference**: the largest absolute difference of any probability, score or value.
- **Labels**: rows whose label is what the original's `predict` says.

Libraries: {versions}.

| Model | Engine | Difference | Labels | Why not, or what to know |
|---|---|---|---|---|
"""

TABLE = """
| Model | Engine | Difference | Labels | Why not, or what to know |
|---|---|---|---|---|
"""

OUTPUTS = f"""
## Several outputs, quantiles and clusters

Fitted on 360 rows, and asked about 140 others. [How they answer](../guides/several-outputs.md).
{TABLE}"""

TEXTS = f"""
## Texts

Pipelines from a vectorizer to an answer, fitted on 300 texts of words, accents, scripts and signs, packed, and asked
about 500 others. The texts are read by Estiba's kernel, without scikit-learn.
{TABLE}"""

TAIL = """
## Tensors

An ONNX file of a model of [tensors](../guides/tensor-models.md) is not converted at all: it is served byte for byte, by
ONNX Runtime, and its answers are equal to the bit. `tests/serving/protocols/test_tensor_models.py` compares those of
magika, silero-vad and rapidocr.

## How to read the differences

Trees are compared as the library compares them: scikit-learn, XGBoost and CatBoost round their input to float32,
LightGBM and HistGradientBoosting do not. Sums are taken in the library's order. What is left, around 1e-16, is the
last bit of `exp` and of matrix products. XGBoost answers in float32; its 6e-8 is the last bit of that.

The labels here are those of the largest score. `SVC` with three classes breaks a tie of votes by the order of the
classes instead, so a packed one carries the label of its votes as a column of its own, and answers as `predict` does.
"""


def versions() -> str:
    from importlib.metadata import version

    names = ("scikit-learn", "xgboost-cpu", "lightgbm", "catboost", "onnxruntime")
    return ", ".join(f"{name} {version(name)}" for name in names)


def line(verdict: Verdict) -> str:
    """One row of the table."""
    if verdict.engine == "python":
        return f"| {verdict.name} | python | | | {verdict.reason} |"
    labels = f"{verdict.agree}/{verdict.rows}" if verdict.labels else ""
    difference = "0" if verdict.difference == 0 else f"{verdict.difference:.0e}"
    return f"| {verdict.name} | onnx | {difference} | {labels} | {verdict.reason} |"


def verdicts_of(page: str) -> dict[str, tuple[str, str]]:
    """Engine and label agreement by model, which is what must not change unnoticed."""
    rows = re.findall(r"^\| (.+?) \| (onnx|python) \|[^|]*\|([^|]*)\|", page, re.MULTILINE)
    return {name: (engine, labels.strip()) for name, engine, labels in rows}


def outputs() -> Iterator[Verdict]:
    """Models with several outputs, quantiles or clusters."""
    for name, case in output_cases.CASES.items():
        yield judge_output(name, case)


def of_texts() -> Iterator[Verdict]:
    for name, make in text_cases.MODELS.items():
        yield judge_text(f"texts: {name}", make())


def main() -> int:
    parts = [HEAD.format(probes=PROBES, versions=versions())]
    for title, verdicts in (("", map(judge, cases())), (OUTPUTS, outputs()), (TEXTS, of_texts())):
        parts.append(title)
        for verdict in verdicts:
            parts.append(line(verdict) + "\n")
            print(parts[-1], end="", flush=True)
    page = "".join(parts) + TAIL
    if "--check" not in sys.argv[1:]:
        PAGE.write_text(page)
        return 0
    kept, now = (verdicts_of(text) for text in (PAGE.read_text() if PAGE.exists() else "", page))
    stale = [name for name in sorted(kept.keys() | now.keys()) if kept.get(name) != now.get(name)]
    for name in stale:
        print(f"{name}: the page says {kept.get(name)}, it is {now.get(name)}", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
