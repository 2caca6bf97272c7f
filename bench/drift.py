"""Measure the rule of drift: false alarms in windows without drift, and how many windows of each fault are caught.

    python bench/drift.py [--windows 1000] [--cars vehicles_us.csv]

The rows are those of tests/support/drift_rows.py: ten fields of every kind, a reference of 5,000 rows. With the file of
used cars (51,525 rows), half of it is the reference.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "support"))

from drift_rows import HEAVY, LOGNORMAL, NORMAL, SMALL, TWO_PEAKS, UNIFORM, Matrix, Watch, draw

from estiba.model.artifact.profile import build
from estiba.model.coding.coder import Coded, Coder
from estiba.model.schema.infer import infer
from estiba.model.schema.signature import UNSEEN, Head
from estiba.monitoring.comparison import GROUPS
from estiba.monitoring.layout import Layout
from estiba.monitoring.options import DriftOptions
from estiba.monitoring.windows import Gathered, WindowResult, judge, reference_of

Change = Callable[[Matrix, np.random.Generator], None]

ROWS = 1_000
WINDOWS_OF_A_FAULT = 100


def line(name: str, results: list[WindowResult]) -> None:
    flagged = sum(any(part.flagged for part in each.parts.values()) for each in results) / len(results)
    reported = sum(bool(each.detected) for each in results[1:]) / max(1, len(results) - 1)
    effect = np.mean([each.design_effect for each in results])
    fields = sorted({name for each in results for name, part in each.parts.items() if part.detected})
    print(
        f"| {name} | {len(results):,} | {flagged:.1%} | {reported:.1%} | {effect:.2f} | {', '.join(fields[:6])} |",
        flush=True,
    )


def made_up(windows: int) -> None:
    random = np.random.default_rng(20)

    def run(name: str, count: int, make: Callable[[], Matrix]) -> None:
        watch = Watch(random)
        line(name, [watch.window(make()) for _ in range(count)])

    def changed(change: Change) -> Matrix:
        rows = draw(ROWS, random)
        change(rows, random)
        return rows

    for rows in (200, ROWS, 5_000):
        run(f"no drift, {rows:,} rows", windows, partial(draw, rows, random))
    run("no drift, each row 4 times", windows, lambda: np.repeat(draw(ROWS // 4, random), 4, axis=0))
    for name, change in FAULTS.items():
        run(name, WINDOWS_OF_A_FAULT, partial(changed, change))


def swap(rows: Matrix, random: np.random.Generator) -> None:
    rows[:, [NORMAL, TWO_PEAKS]] = rows[:, [TWO_PEAKS, NORMAL]]


def some(column: int, share: float, value: float) -> Change:
    def change(rows: Matrix, random: np.random.Generator) -> None:
        rows[random.random(len(rows)) < share, column] = value

    return change


def moved(column: int, factor: float, amount: float = 0.0) -> Change:
    def change(rows: Matrix, random: np.random.Generator) -> None:
        rows[:, column] = rows[:, column] * factor + amount

    return change


FAULTS: dict[str, Change] = {
    "0.1 sd (below the floor)": moved(NORMAL, 1, 0.1),
    "0.2 sd": moved(NORMAL, 1, 0.2),
    "0.3 sd": moved(NORMAL, 1, 0.3),
    "scale x 1.3": moved(NORMAL, 1.3),
    "another unit, x 1.609": moved(LOGNORMAL, 1.609),
    "a class +10 points": some(SMALL, 0.125, 2),
    "missing 5 to 10 %": some(HEAVY, 0.053, np.nan),
    "unseen 4 %": some(SMALL, 0.04, UNSEEN),
    "a constant": some(UNIFORM, 1, 0.5),
    "two columns swapped": swap,
}


def cars(path: Path, windows: int) -> None:
    import pandas as pd

    frame = pd.read_csv(path).drop(columns=["Unnamed: 0"], errors="ignore")
    frame["date_posted"] = pd.to_datetime(frame["date_posted"])
    frame = frame.sort_values("date_posted", kind="stable").reset_index(drop=True)
    day = frame.pop("date_posted")
    frame["model"] = frame["model"].str.split().str[0]
    signature = infer(None, frame, Head(kind="values", names=("none",)))
    coder = Coder(signature)
    random = np.random.default_rng(21)

    def coded(rows: pd.DataFrame) -> Coded:
        return coder.check(rows.astype(object).where(rows.notna(), None).to_dict("records"))

    def watch(base: pd.DataFrame) -> Callable[[pd.DataFrame], WindowResult]:
        rows = coded(base)
        profile = build(signature, rows, lambda asked: np.zeros((len(asked), 1)), "holdout")
        reference = reference_of(profile, signature, 0)
        layout = Layout(reference.parts, signature)
        last: list[WindowResult] = []

        def window(part: pd.DataFrame) -> WindowResult:
            own = coded(part)
            group = np.arange(len(own)) * GROUPS // len(own)
            counted = layout.count(own, np.zeros((len(own), 1)), group, GROUPS)
            last.append(judge(Gathered(0, 1, counted), reference, last[-1] if last else None, DriftOptions()))
            return last[-1]

        return window

    half = random.permutation(len(frame))
    base, other = frame.iloc[half[: len(frame) // 2]], frame.iloc[half[len(frame) // 2 :]]
    compare = watch(base)
    line("cars, random windows", [compare(other.sample(ROWS, random_state=i)) for i in range(windows)])
    early = day < day.min() + pd.DateOffset(months=3)
    compare, later = watch(frame[early]), frame[~early]
    line("cars, by date after 3 months", [compare(later[i : i + ROWS]) for i in range(0, len(later) - ROWS, ROWS)])
    old = other[other["model_year"] < 2012]
    compare = watch(base)
    line("cars before 2012", [compare(old.sample(ROWS, random_state=i)) for i in range(20)])
    kilometres = other.assign(odometer=(other["odometer"] * 1.609).round())
    compare = watch(base)
    line("cars, kilometres for miles", [compare(kilometres.sample(ROWS, random_state=i)) for i in range(20)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--windows", type=int, default=1_000)
    parser.add_argument("--cars", type=Path)
    options = parser.parse_args()
    started = time.perf_counter()
    print("| rows | windows | with an alarm | reported | design effect | reported fields |\n|---|---|---|---|---|---|")
    made_up(options.windows)
    if options.cars:
        cars(options.cars, options.windows)
    print(f"\n{time.perf_counter() - started:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
