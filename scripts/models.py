"""Builds and packs models as people have them, on public data, and compares the answers with the originals' own.

python scripts/models.py --models 60 --seed 1   # the models of 60 seeds, from seed 1
python scripts/models.py --hours 3 --write      # three hours of them, and docs/reference/models.md
python scripts/models.py --only 1234            # one model again, with all that is known of it
python scripts/models.py --page FILE --hours 3  # the page of a run of three hours, from the lines that --lines wrote

Each seed draws a data set, changes to its columns (rare missing values, codes, nullable types), a preparation, an
estimator and a wrapper. The original is asked about each held-out row, and about rows with unseen, missing and extreme
values, one by one; so is the packed model, by its records as JSON has them. Exit code 1 where an answer differs, or
where a user would have seen a traceback.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter, defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "reference" / "models.md"
sys.path.insert(0, str(ROOT / "tests" / "support"))

from models_check import ROWS, Result, examine  # noqa: E402

HEAD = """# Models of all kinds, packed and compared

Written by `python scripts/models.py --hours {hours:g} --seed {seed} --write`; do not edit. Each model was drawn at
random: a public data set (of the wheels of scikit-learn, plotly and statsmodels) or a made one, changes to its columns
(rare and many missing values, float32, pandas' nullable types, categories, objects with None, codes for words), a
preparation, an estimator and a wrapper around all of it. It was fitted on 60 of 100 rows and packed with them. Then
Estiba and the original's own `predict` and `predict_proba` were asked, row by row, about up to {rows} held-out rows and
as many with cells of other rows, unseen, missing and extreme values and numbers one float64 step beside.

- **{models} models** of seeds {seed} to {last}: {onnx} converted to ONNX, {python} on the python engine, {refused}
  refused.
- **{compared} rows** answered by both; **{labels_equal} of {labels} labels** are those of `predict`.
- **{faults} faults**: an answer that differs, or a traceback. {fault_lines}
- Estiba refuses {stricter} rows that the original answers: the field may not be missing, or the word was never seen and
  the signature says `unseen = "error"`. It answers {looser} rows that the original refuses.

Libraries: {versions}.
"""

TABLE = """| {} | Models | ONNX | Python | Refused | Rows | Labels equal | Worst difference |
|---|---|---|---|---|---|---|---|
"""


def main() -> int:
    arguments = _arguments()
    if arguments.only is not None:
        result = examine(arguments.only)
        print(json.dumps(vars(result), indent=1, ensure_ascii=False) if result else "The library itself refuses this.")
        return int(bool(result and result.fault))
    if arguments.page is not None:
        results = _read(arguments.page)
        arguments.write, arguments.seed, last = True, results[0].seed, results[-1].seed
    else:
        results, last = _run(arguments)
    if arguments.write:
        PAGE.write_text(page(results, arguments.hours, arguments.seed, last))
    faults = [r for r in results if r.fault]
    engines = Counter(r.engine for r in results)
    print(f"{len(results)} models {dict(engines)}, {sum(r.rows for r in results)} rows, {len(faults)} faults")
    for fault in faults:
        print(f"  --only {fault.seed}: {fault.fault} ({fault.wrapper} {fault.estimator}; {fault.preparation})")
    return int(bool(faults))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=int, default=0, help="number of seeds; 0 for no limit but the time")
    parser.add_argument("--hours", type=float, default=0.0, help="stop after so many hours; 0 for no limit")
    parser.add_argument("--seed", type=int, default=1, help="the first seed")
    parser.add_argument("--only", type=int, help="one seed, with all that is known of it")
    parser.add_argument("--write", action="store_true", help="write docs/reference/models.md")
    parser.add_argument("--lines", type=Path, help="append each result to this file as a line of JSON")
    parser.add_argument("--page", type=Path, help="write the page of the results in such a file, and run nothing")
    arguments = parser.parse_args()
    if not arguments.models and not arguments.hours:
        arguments.models = 60
    return arguments


def _run(arguments: argparse.Namespace) -> tuple[list[Result], int]:
    end = time.monotonic() + arguments.hours * 3600 if arguments.hours else float("inf")
    results: list[Result] = []
    seed = arguments.seed
    while time.monotonic() < end and (not arguments.models or seed < arguments.seed + arguments.models):
        result = examine(seed)
        if result is not None:
            results.append(result)
            _tell(result, arguments.lines)
        seed += 1
    return results, seed - 1


def _read(lines: Path) -> list[Result]:
    """The results of a file of lines by seed; of a seed that was run again, the last."""
    found = [Result(**json.loads(line)) for line in lines.read_text().splitlines()]
    return sorted({result.seed: result for result in found}.values(), key=lambda result: result.seed)


def _tell(result: Result, lines: Path | None) -> None:
    if lines is not None:
        with lines.open("a") as file:
            file.write(result.line() + "\n")
    if result.fault or sys.stdout.isatty():
        print(
            f"{result.seed} {result.engine} {result.wrapper} {result.estimator}: {result.fault or 'equal'}", flush=True
        )


def page(results: list[Result], hours: float, seed: int, last: int) -> str:
    """The page of a run."""
    engines = Counter(r.engine for r in results)
    faults = [r for r in results if r.fault]
    head = HEAD.format(
        hours=hours, seed=seed, last=last, rows=ROWS, models=len(results), versions=_versions(),
        onnx=engines["onnx"], python=engines["python"], refused=engines["refused"],
        compared=sum(r.rows for r in results), labels=sum(r.labels for r in results),
        labels_equal=sum(r.labels_equal for r in results), faults=len(faults),
        fault_lines=" ".join(f"Seed {r.seed}: {r.fault}." for r in faults),
        stricter=sum(r.stricter for r in results), looser=sum(r.looser for r in results),
    )  # fmt: skip
    parts = [head, _table("Estimator", results, lambda r: r.estimator), _table("Wrapper", results, lambda r: r.wrapper)]
    parts.append(_table("Step before it", results, lambda r: r.preparation))
    parts.append(_table("Columns", results, lambda r: r.changes))
    parts += [_reasons(results, "python", "Why the python engine"), _reasons(results, "refused", "What was refused")]
    return "\n".join(parts)


def _table(title: str, results: list[Result], key) -> str:  # type: ignore[no-untyped-def]
    groups: dict[str, list[Result]] = defaultdict(list)
    for result in results:
        for name in key(result).split(", ") if title in ("Step before it", "Columns") else [key(result)]:
            groups[name or "(none)"].append(result)
    lines = []
    for name, group in sorted(groups.items()):
        engines = Counter(r.engine for r in group)
        labels = f"{sum(r.labels_equal for r in group)}/{sum(r.labels for r in group)}"
        worst = max(r.difference for r in group)
        counts = f"{len(group)} | {engines['onnx']} | {engines['python']} | {engines['refused']}"
        lines.append(f"| {name} | {counts} | {sum(r.rows for r in group)} | {labels} | {worst:.0e} |")
    return TABLE.format(title) + "\n".join(lines) + "\n"


def _reasons(results: list[Result], engine: str, title: str) -> str:
    """Reasons by number of models, numbers and names of columns taken out."""
    import re

    counted = Counter(
        re.sub(r"; first on .*", "", re.sub(r"'[^']*'", "'...'", re.sub(r"\d[\d.e+-]*", "N", r.reason)))
        for r in results
        if r.engine == engine
    )
    lines = [f"| {count} | {reason} |" for reason, count in counted.most_common(40)]
    return f"## {title}\n\n| Models | Reason |\n|---|---|\n" + "\n".join(lines) + "\n"


def _versions() -> str:
    from importlib.metadata import version

    names = ("scikit-learn", "xgboost-cpu", "lightgbm", "catboost", "imbalanced-learn", "pandas", "onnxruntime")
    return ", ".join(f"{name} {version(name)}" for name in names)


if __name__ == "__main__":
    sys.exit(main())
