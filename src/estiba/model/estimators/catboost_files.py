"""Read and write CatBoost's own format, `.cbm`.

A model with text or embedding columns is read from a file and never from memory, and written in a process of its own:
a copy of it, or one that was read from memory, ends the process that uses it (CatBoost 1.2).

`python -m estiba.model.estimators.catboost_files FROM TO CLASS` reads a file and writes it without its time and name.
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Any

from estiba.core import shell
from estiba.core.errors import EstibaError
from estiba.core.stores.disk import temporary

CLASSES = ("CatBoost", "CatBoostClassifier", "CatBoostRegressor", "CatBoostRanker")

CLASS_KEY = "estiba_class"
"""The key under which the Python class that wrote a model is recorded in its file."""

_CLASSIFIES = ("Logloss", "CrossEntropy", "MultiClass", "MultiClassOneVsAll")

WRITING_SECONDS = 600.0
"""The limit on the time that the process which writes a model may take."""


def read(path: Path) -> Any:
    """The model of a file, as an object of the class that wrote it."""
    import catboost

    model = catboost.CatBoost().load_model(str(path))
    name = dict(model.get_metadata()).get(CLASS_KEY)
    if name not in CLASSES:
        loss = str(model.get_all_params().get("loss_function", "")).partition(":")[0]
        name = "CatBoostClassifier" if loss in _CLASSIFIES else "CatBoostRegressor"
    if is_fragile(model):
        return getattr(catboost, name)().load_model(str(path))
    return getattr(catboost, name)().load_model(blob=path.read_bytes())  # which keeps the order of the parameters


def dump(model: Any) -> bytes | None:
    """The bytes of a model's file; None for a class that is not CatBoost's own.

    Raises:
        EstibaError: CatBoost crashed in the process that writes a model with text or embedding columns.
    """
    name = type(model).__name__
    if name not in CLASSES:
        return None
    if is_fragile(model):
        return _dumped_apart(model, name)
    copy = model.copy()
    strip(copy)
    copy.get_metadata()[CLASS_KEY] = name
    # CatBoost orders the metadata of a model that it read differently from that of a trained one. Reading it once more
    # makes the bytes the same for both.
    return _bytes(type(model)().load_model(blob=_bytes(copy)))


def is_fragile(model: Any) -> bool:
    """Tell if this is a CatBoost model with text or embedding columns, a copy of which ends the process."""
    if type(model).__name__ not in CLASSES or not model.is_fitted():
        return False
    return bool(model.get_text_feature_indices() or model.get_embedding_feature_indices())


def strip(model: Any) -> None:
    """Remove the time of training and the random name that CatBoost writes into each model."""
    metadata = model.get_metadata()
    for key in ("train_finish_time", "model_guid"):
        if key in metadata.keys():  # noqa: SIM118 - it is no mapping
            del metadata[key]


def _bytes(model: Any) -> bytes:
    with temporary("catboost") as folder:
        path = folder / "model.cbm"
        model.save_model(str(path))
        return path.read_bytes()


def _dumped_apart(model: Any, name: str) -> bytes:
    with temporary("catboost") as folder:
        source, target = folder / "model.cbm", folder / "written.cbm"
        model.save_model(str(source))
        command = [sys.executable, "-P", "-m", "estiba.model.estimators.catboost_files"]
        ended = shell.run([*command, str(source), str(target), name], timeout=WRITING_SECONDS)
        if ended.code == 0:
            return target.read_bytes()
        how = f"was killed by {signal.Signals(-ended.code).name}" if ended.code < 0 else f"failed: {ended.said}"
    raise EstibaError(
        f"CatBoost cannot write this model: the process in which it did so {how}.",
        hint="Its text and embedding columns are the usual reason. Try another version of CatBoost, or turn them into "
        "numbers before the model.",
    )


def main() -> None:
    source, target, name = sys.argv[1:]
    import catboost

    written = []
    for _ in range(2):  # each reading turns the order of the parameters around
        model = getattr(catboost, name)().load_model(source)
        strip(model)
        model.get_metadata()[CLASS_KEY] = name
        model.save_model(target)
        written.append(Path(target).read_bytes())
        source = target
    Path(target).write_bytes(min(written))


if __name__ == "__main__":
    main()
