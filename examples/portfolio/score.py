"""Train all four models, evaluate them more strictly than training does, and write the table of the README.

python score.py            trains, prints the table and writes it into README.md
python score.py --check    writes nothing; exits 1 unless all are the original's data and every figure to beat is beaten
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import adverts
import bankchurn
import carvision
import figures
import iris
import pandas as pd
import telecom

from estiba import EstibaError, Source, Trained

HERE = Path(__file__).parent
BEGIN, END = "<!-- score: begin -->", "<!-- score: end -->"


@dataclass(frozen=True)
class Original:
    """A figure as the systems that this portfolio rebuilds reported it, the result of doing it again on the
    split that we use, what the model of their quick start reaches, and the figure to beat here."""

    claimed: str
    again: str
    served: str
    floor: float | None = None
    ceiling: float | None = None


ORIGINALS = {
    ("bankchurn", "roc_auc"): Original("0.87", "0.866", "0.809", floor=0.866),
    ("bankchurn", "brier"): Original("-", "0.136", "-", ceiling=0.100),
    ("bankchurn", "f1"): Original("0.64", "0.623", "0.460"),
    ("carvision", "rmse"): Original("4,396", "4,050", "6,367", ceiling=3384),
    ("carvision", "mae"): Original("-", "2,566", "3,952"),
    ("carvision", "r2"): Original("0.77", "0.808", "0.588", floor=0.866),
    ("telecom", "roc_auc"): Original("0.84", "0.843", "0.776", floor=0.843),
    ("telecom", "brier"): Original("-", "-", "-"),
    ("telecom", "f1"): Original("0.63", "0.631", "0.596", floor=0.67),
}
"""Not for simulated data, nor for Mercedes adverts. The car figures `again` are of our grouped split; `claimed` and
`served` are of splits that have adverts of one car on both sides."""

TITLES = {
    "accuracy": "accuracy",
    "roc_auc": "ROC-AUC",
    "brier": "Brier score (low is good)",
    "f1": "F1 at the threshold",
    "rmse": "RMSE, $ (low is good)",
    "mae": "MAE, $ (low is good)",
    "r2": "R²",
}


@dataclass(frozen=True)
class Row:
    """One line of the table. `crossed` is (mean, standard deviation) over folds; `interval` is of 95 %."""

    model: str
    figure: str
    value: float | None
    interval: tuple[float, float] | None
    crossed: tuple[float, float] | None


@dataclass(frozen=True)
class Judged:
    model: str
    trained: Trained
    rows: list[Row]
    comparable: bool
    split: str
    remark: str = ""

    @property
    def source(self) -> Source:
        assert self.trained.source is not None
        return self.trained.source


def find(name: str) -> Path | None:
    """A data file, from $ESTIBA_DATA or from data/ beside this file."""
    places = [Path(os.environ["ESTIBA_DATA"])] if os.environ.get("ESTIBA_DATA") else []
    return next((p / name for p in (*places, HERE / "data") if (p / name).is_file()), None)


def judge_iris() -> Judged:
    trained = iris.train()
    m = trained.metrics
    row = Row("iris", "accuracy", None, None, (m["cv_accuracy_mean"], m["cv_accuracy_sd"]))
    split = "5 stratified folds, 10 times; the packed model is fitted on all 150"
    return Judged("iris", trained, [row], False, split)


def judge_binary(name: str, module: ModuleType) -> Judged:
    """bankchurn or telecom."""
    path = find(module.FILE)
    X, y, source = module.load(path)
    trained = module.train({module.FILE: path})
    _, held = module.split(y)
    target, p = y.iloc[held].to_numpy(), trained.model.predict_proba(X.iloc[held])[:, 1]
    _, folds = figures.out_of_fold(module.recipe(), X, y, seed=1, repeats=5)
    crossed = {"roc_auc": [auc for auc, _ in folds], "brier": [brier for _, brier in folds]}
    threshold = trained.threshold
    assert threshold is not None

    def compute(y: Any, p: Any) -> dict[str, float]:
        return figures.binary(y, p, threshold)

    rows = _rows(name, trained, figures.intervals(compute, target, p), crossed)
    split = f"stratified fifth held out: {len(y) - len(held):,} to train on, {len(held):,} to judge by"
    return Judged(name, trained, rows, not source.simulated, split)


def judge_cars() -> Judged:
    path = find(carvision.FILE)
    table, _ = adverts.load(path)
    trained = carvision.train({carvision.FILE: path})
    inside, outside = carvision.split(table)
    held = table.iloc[outside]
    folds = [fold for seed in (1, 2) for fold in carvision.crossed(table, seed=seed)]
    crossed = {figure: [fold[figure] for fold in folds] for figure in folds[0]}
    predicted: Any = trained.model
    pair = held["price"].to_numpy(), predicted.predict(held[carvision.FIELDS])
    rows = _rows("carvision", trained, figures.intervals(figures.prices, *pair), crossed)
    split = (
        f"a fifth of the cars held out with all their adverts: {len(inside):,} adverts to train on, "
        f"{len(outside):,} with a known odometer to judge by"
    )
    return Judged("carvision", trained, rows, path is not None, split, _later(table) if path else "")


def _later(table: pd.DataFrame) -> str:
    """Figures on the newest fifth of the adverts, for cars without earlier adverts, of a model of the older ones."""
    day = table["posted"].quantile(0.8)
    old = table["posted"] < day
    new = table[~old & ~table["car"].isin(table["car"][old]) & table["odometer"].notna()]
    model = carvision.fit(table.loc[old, carvision.FIELDS], table.loc[old, "price"])
    m = figures.prices(new["price"], model.predict(new[carvision.FIELDS]))
    return (
        f" Out of time: trained on adverts before {day:%Y-%m-%d}, judged by {len(new):,} later ones of cars not seen "
        f"before: RMSE ${m['rmse']:,.0f}, MAE ${m['mae']:,.0f}, R² {m['r2']:.3f}."
    )


def _rows(
    name: str, trained: Trained, drawn: dict[str, tuple[float, float]], folds: dict[str, list[float]]
) -> list[Row]:
    """A line for each figure that ORIGINALS knows of this model."""
    rows = []
    for figure in (figure for model, figure in ORIGINALS if model == name):
        spread = tuple(figures.spread(figure, folds[figure]).values()) if figure in folds else None
        crossed = (spread[0], spread[1]) if spread else None
        rows.append(Row(name, figure, trained.metrics[figure], drawn[figure], crossed))
    return rows


def table(judged: list[Judged]) -> str:
    """The Markdown between the markers of the README."""
    lines = [
        "| model | figure | original: claimed | original: done again | original: its quick start "
        "| **ours, held out** (95 % interval) | ours, cross-validated (mean ± sd) |",
        "|---|---|---|---|---|---|---|",
        *(_line(judgement, row) for judgement in judged for row in judgement.rows),
        "",
        *(_about(judgement) for judgement in judged),
    ]
    return "\n".join(lines)


def _line(one: Judged, row: Row) -> str:
    original = ORIGINALS.get((row.model, row.figure)) if one.comparable else None
    theirs = (original.claimed, original.again, original.served) if original else ("-", "-", "-")
    ours = "-" if row.value is None else f"**{_say(row.figure, row.value)}**"
    if row.interval:
        ours += " ({} to {})".format(*(_say(row.figure, v) for v in row.interval))
    crossed = "{} ± {}".format(*(_say(row.figure, v) for v in row.crossed)) if row.crossed else "-"
    cells = [row.model, TITLES[row.figure], *theirs, ours, crossed]
    return "| " + " | ".join(cells) + " |"


def _say(figure: str, value: float) -> str:
    return f"{value:,.0f}" if figure in ("rmse", "mae") else f"{value:.3f}"


def _about(one: Judged) -> str:
    if one.source.simulated:
        what = "**SIMULATED DATA: these figures say nothing about the world**"
    elif one.model == "iris":
        what = "real data"
    else:
        what = "the original's own data" if one.comparable else "real data, but not the original's: no comparison"
    threshold = f"; threshold {one.trained.threshold:.2f}" if one.trained.threshold is not None else ""
    return f"- {one.model}: {one.source.name}, {one.source.rows:,} rows, {what}; {one.split}{threshold}.{one.remark}"


def shortfalls(judged: list[Judged]) -> Iterator[str]:
    """A sentence for each model that was not trained on its CSV file and for each figure that is not beaten."""
    for judgement in judged:
        if judgement.model != "iris" and not judgement.comparable:
            yield f"{judgement.model}: trained on {judgement.source.name}, not on the CSV file that the original used"
            continue
        for row in judgement.rows:
            goal = ORIGINALS.get((row.model, row.figure))
            if goal is None or row.value is None:
                continue
            if goal.floor is not None and row.value < goal.floor:
                yield f"{row.model}: {row.figure} is {row.value:.4f}, below {goal.floor}"
            if goal.ceiling is not None and row.value > goal.ceiling:
                yield f"{row.model}: {row.figure} is {row.value:.4f}, above {goal.ceiling}"


def write(text: str, readme: Path) -> None:
    """Replaces what stands between the markers.

    Raises:
        EstibaError: the file has no markers.
    """
    old = readme.read_text(encoding="utf-8")
    if BEGIN not in old or END not in old:
        raise EstibaError(f"{readme} has no place for the table.", hint=f"Put the lines {BEGIN} and {END} into it.")
    before, after = old.split(BEGIN)[0], old.split(END)[1]
    readme.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}", encoding="utf-8")


@figures.one_thread
def main() -> int:
    parser = argparse.ArgumentParser(description="Score the portfolio's models and write the README's table.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 on other data or a figure missed")
    check = parser.parse_args().check
    judged = [judge_iris(), judge_binary("bankchurn", bankchurn), judge_cars(), judge_binary("telecom", telecom)]
    text = table(judged)
    print(text)
    if not check:
        write(text, HERE / "README.md")
        return 0
    missed = list(shortfalls(judged))
    print("\n".join(missed) or "All data are the original's, and every figure to beat is beaten.", file=sys.stderr)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
