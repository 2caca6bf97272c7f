"""The ways in which the standing lab changes columns before training, and rows that it asks about after it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd

_NOTHING = object()

Change = Callable[[np.random.Generator, pd.DataFrame], pd.DataFrame]


def _numbers(rows: pd.DataFrame) -> list[str]:
    return [c for c in rows if pd.api.types.is_numeric_dtype(rows[c]) and not pd.api.types.is_bool_dtype(rows[c])]


def _words(rows: pd.DataFrame) -> list[str]:
    return [c for c in rows if not pd.api.types.is_numeric_dtype(rows[c])]


def _emptied(rng: np.random.Generator, rows: pd.DataFrame, column: str, count: int) -> pd.DataFrame:
    if pd.api.types.is_integer_dtype(rows[column]) and isinstance(rows[column].dtype, np.dtype):
        rows[column] = rows[column].astype(float)
    if pd.api.types.is_bool_dtype(rows[column]) and isinstance(rows[column].dtype, np.dtype):
        rows[column] = rows[column].astype(object)
    rows.loc[rng.choice(len(rows), min(count, len(rows) // 2), replace=False), column] = np.nan
    return rows


def _rare_missing(rng: np.random.Generator, rows: pd.DataFrame) -> pd.DataFrame:
    for column in rng.choice(list(rows), min(3, rows.shape[1]), replace=False):
        rows = _emptied(rng, rows, str(column), int(rng.integers(1, 7)))
    return rows


def _many_missing(rng: np.random.Generator, rows: pd.DataFrame) -> pd.DataFrame:
    for column in rng.choice(list(rows), min(3, rows.shape[1]), replace=False):
        rows = _emptied(rng, rows, str(column), len(rows) // 4)
    return rows


def _single(rng: np.random.Generator, rows: pd.DataFrame) -> pd.DataFrame:
    return rows.astype({c: np.float32 for c in _numbers(rows) if rows[c].dtype.kind == "f" and rng.random() < 0.7})


def _nullable(rng: np.random.Generator, rows: pd.DataFrame) -> pd.DataFrame:
    return rows.convert_dtypes(convert_string=bool(rng.integers(2)))


def _category(rng: np.random.Generator, rows: pd.DataFrame) -> pd.DataFrame:
    return rows.astype(dict.fromkeys(_words(rows), "category"))


def _objects(rng: np.random.Generator, rows: pd.DataFrame) -> pd.DataFrame:
    """Words as SQL and Arrow readers give them: objects, with None where there is nothing."""
    for column in _words(rows):
        rows[column] = pd.Series([None if pd.isna(v) else v for v in rows[column]], dtype=object, index=rows.index)
    return rows


def _codes(rng: np.random.Generator, rows: pd.DataFrame) -> pd.DataFrame:
    """A column of words as numbers that stand for them."""
    for column in _words(rows)[:1]:
        codes, _ = pd.factorize(rows[column])
        rows[column] = np.where(codes < 0, np.nan, codes + 1.0)
    return rows


def _plain(rng: np.random.Generator, rows: pd.DataFrame) -> pd.DataFrame:
    return rows


CHANGES: dict[str, Change] = {
    "as it is": _plain,
    "rare missing": _rare_missing,
    "many missing": _many_missing,
    "float32": _single,
    "nullable": _nullable,
    "category": _category,
    "objects": _objects,
    "codes": _codes,
}


def damaged(rng: np.random.Generator, rows: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """The rows with one or two changes, and their names."""
    names = [str(n) for n in rng.choice(list(CHANGES), int(rng.integers(1, 3)), replace=False)]
    rows = rows.copy()
    for name in names:
        rows = CHANGES[name](rng, rows)
    return rows, names


def probes(rng: np.random.Generator, held_out: pd.DataFrame, trained: pd.DataFrame, count: int) -> pd.DataFrame:
    """Held-out rows, and beside them as many with cells of other rows, missing, unseen, extreme, or an ulp beside."""
    plain = held_out.head(count)
    mixed = pd.concat([plain] * 2, ignore_index=True).head(count)
    for column in mixed:
        if rng.random() < 0.7:
            taken = trained[column].sample(len(mixed), replace=True, random_state=int(rng.integers(1 << 30)))
            mixed[column] = taken.reset_index(drop=True)
    for _ in range(min(len(mixed), 40)):
        row, column = int(rng.integers(len(mixed))), str(rng.choice(list(mixed)))
        value = _strange(rng, trained[column])
        if value is not _NOTHING:
            mixed.loc[row, column] = value
    return pd.concat([plain, mixed], ignore_index=True).astype(trained.dtypes.to_dict())


def _strange(rng: np.random.Generator, column: pd.Series) -> object:
    """A value that the column's type can hold and that training did not have, or the missing value of training.

    `_NOTHING` where there is none.
    """
    seen, kind = column.dropna(), column.dtype
    if rng.random() < 0.3:  # only where training had some: the model may refuse what it has never seen
        return column[column.isna()].iloc[0] if column.isna().any() else _NOTHING
    if pd.api.types.is_bool_dtype(kind) or isinstance(kind, pd.CategoricalDtype) or not len(seen):
        return _NOTHING
    if pd.api.types.is_integer_dtype(kind):
        return int(rng.choice([int(seen.min()) - 1, int(seen.max()) + 1, 0]))
    if pd.api.types.is_float_dtype(kind):
        near = float(rng.choice(seen.to_numpy(float)))
        beside = [np.nextafter(near, -np.inf), np.nextafter(near, np.inf), float(seen.max()) * 10 + 1, -1e6, 0.0]
        return float(rng.choice(beside))
    return str(rng.choice(["Zanzíbar", "zanzíbar", "  ", "x9"])) if isinstance(seen.iloc[0], str) else _NOTHING
