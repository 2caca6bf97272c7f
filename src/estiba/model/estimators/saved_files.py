"""Detect, read and write saved model files, without running foreign code unasked.

XGBoost, LightGBM and CatBoost read their own formats in C++ that runs nothing of the file, but does not survive every
damaged one: such a file can end the process. Inside an artifact a digest stands before it.
"""

from __future__ import annotations

import io
import json
import pickle
import warnings
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from estiba.core.errors import BadArtifact, EstibaError, MissingExtra, NotFound, NotTrusted
from estiba.model.artifact.artifact import Format
from estiba.model.estimators import catboost_files, skops
from estiba.model.estimators.object_graph import framework, libraries, reachable
from estiba.model.estimators.old_pickles import unreadable_pickle

__all__ = [
    "FORMATS",
    "Loaded",
    "detect",
    "dumps",
    "framework",
    "libraries",
    "load_file",
    "open_file",
]

FORMATS: dict[Format, str] = {
    "skops": "skops (.skops)",
    "onnx": "ONNX (.onnx)",
    "xgboost": "XGBoost (.ubj, .json)",
    "lightgbm": "LightGBM text (.txt)",
    "catboost": "CatBoost (.cbm)",
    "joblib": "joblib or pickle (.joblib, .pkl)",
}
"""Every format that Estiba reads, as shown to users."""

_SUFFIXES: dict[str, Format] = {
    ".skops": "skops",
    ".onnx": "onnx",
    ".ubj": "xgboost",
    ".xgb": "xgboost",
    ".lgb": "lightgbm",
    ".cbm": "catboost",
    ".joblib": "joblib",
    ".pkl": "joblib",
    ".pickle": "joblib",
}

_PICKLES = (
    *(bytes([0x80, protocol]) for protocol in range(2, 6)),
    b"\x1f\x8b",  # gzip
    b"\x78\x01",  # zlib, by level
    b"\x78\x5e",
    b"\x78\x9c",
    b"\x78\xda",
    b"BZh",
    b"\xfd7zXZ\x00",
    b"\x5d\x00\x00",  # lzma
    b"\x04\x22\x4d\x18",  # lz4
)
"""The first bytes of a pickle, and of the compressions that joblib uses."""

_CLASS = "estiba_class"
"""The key in an XGBoost file under which the Python class that wrote it is recorded."""

_XGBOOST = ("Booster", "XGBClassifier", "XGBRegressor", "XGBRanker", "XGBRFClassifier", "XGBRFRegressor")

_PROTOCOL = 5


@dataclass(frozen=True)
class Loaded:
    """A model read from a file. `model` is an estimator or booster; for ONNX it is the file's bytes.

    `notes` are sentences for the person who packs it, such as that another scikit-learn version saved it.
    """

    model: Any
    format: Format
    notes: tuple[str, ...] = ()


def detect(path: Path) -> Format:
    """The format of a saved model, by its content, or by its suffix where the content does not tell.

    Raises:
        NotFound: there is no such file. EstibaError: it is in no format that Estiba reads.
    """
    if not path.is_file():
        raise NotFound(f"There is no file {path}.", hint="Check the path of the saved model.")
    format = _by_content(path) or _SUFFIXES.get(path.suffix.lower())
    if format is None:
        supported = ", ".join(FORMATS.values())
        raise EstibaError(f"{path} is not in a model format that Estiba reads.", hint=f"It reads: {supported}.")
    return format


def _by_content(path: Path) -> Format | None:
    with path.open("rb") as file:
        head = file.read(64)
        if head.startswith(b"PK\x03\x04"):
            return _zipped(path)
        if head.startswith(b"CBM1"):
            return "catboost"
        if head.startswith((b"tree\n", b"tree\r\n")):
            return "lightgbm"
        if head.lstrip().startswith(b"{") and b"learner" in head:
            return "xgboost"
        if head.startswith(_PICKLES):
            return "joblib"
        return "onnx" if _is_onnx(file, path.stat().st_size) else None


def _zipped(path: Path) -> Format | None:
    try:
        with zipfile.ZipFile(path) as archive:
            return "skops" if "schema.json" in archive.namelist() else None
    except zipfile.BadZipFile:
        return None


def _is_onnx(file: BinaryIO, size: int) -> bool:
    """Check for protobuf whose top level reads as ModelProto: known fields only, a graph (7) among them."""
    fields = set()
    position = 0
    while position < size:
        file.seek(position)
        key, start = _varint(file)
        number, wire = key >> 3, key & 7
        length, after = _varint(file) if wire in (0, 2) else (0, 0)
        if number not in (*range(1, 9), 14, 20, 25, 26) or wire not in (0, 2) or not (start and after):
            return False
        position += start + after + (length if wire == 2 else 0)
        fields.add(number)
    return position == size and 7 in fields


def _varint(file: BinaryIO) -> tuple[int, int]:
    """A protobuf number and how many bytes it took; 0 bytes where it has no end."""
    value = 0
    for count in range(10):
        byte = file.read(1)
        if not byte:
            break
        value |= (byte[0] & 127) << (7 * count)
        if byte[0] < 128:
            return value, count + 1
    return value, 0


def load_file(path: Path, *, trust: bool = False) -> Any:
    """The model in a saved file: `open_file` without its notes."""
    return open_file(path, trust=trust).model


def open_file(path: Path, format: Format | None = None, *, trust: bool = False) -> Loaded:
    """Read a saved model.

    Args:
        format: the known format of the file; by default it is detected.
        trust: allow reading to run code of the file (pickles) or to use types unknown to skops.

    Raises:
        NotTrusted: reading it could run code, and trust is False. MissingExtra: its library is not installed.
        NotFound, BadArtifact: there is no such file, or it cannot be read.
    """
    format = format or detect(path)
    if format == "joblib" and not trust:
        raise NotTrusted(
            f"{path} is a pickle, and a pickle can run any code while it is read.",
            hint="If you trust its author, load it with --trust (trust=True in Python); "
            "or save the model with skops or as ONNX, which run no code.",
        )
    with _explained(path, format), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = _read(path, format, trust)
    return Loaded(model, format, tuple(dict.fromkeys(_skews(path, caught))))


def _read(path: Path, format: Format, trust: bool) -> Any:
    if format == "skops":
        return skops.loads(path.read_bytes(), str(path), trust=trust)
    return _READ[format](path)


@contextmanager
def _explained(path: Path, format: Format) -> Iterator[None]:
    try:
        yield
    except EstibaError:
        raise
    except Exception as error:  # each library has its own errors for a file that is damaged
        if format == "joblib" and (cause := unreadable_pickle(path, error)) is not None:
            raise cause from error
        _explain(path, format, error)


def _explain(path: Path, format: Format, error: Exception) -> NoReturn:
    """Raise a sentence for what a library raised."""
    if isinstance(error, ModuleNotFoundError):
        name = (error.name or "").partition(".")[0]
        extra = {"sklearn": "train", "skops": "train", "joblib": "train"}.get(name, name)
        if extra in ("train", "xgboost", "lightgbm", "catboost"):
            raise MissingExtra(name, extra) from error
        hint = "Install the library that provides it, in the version of training."
        raise BadArtifact(f"{path} needs the module {error.name!r}, which is not installed.", hint=hint) from error
    name = FORMATS[format]
    hint = "The file may be damaged or from another version: save the model again."
    raise BadArtifact(f"{path} cannot be read as {name}: {type(error).__name__}: {error}", hint=hint) from error


def _skews(path: Path, caught: list[warnings.WarningMessage]) -> Iterator[str]:
    for entry in caught:
        told: Any = entry.message
        if type(told).__name__ == "InconsistentVersionWarning":
            yield (
                f"{path.name} was saved with scikit-learn {told.original_sklearn_version}, and "
                f"{told.current_sklearn_version} is installed: it may answer differently."
            )


def _read_onnx(path: Path) -> bytes:
    import onnx

    proto = onnx.load_model(str(path))  # brings in what the file keeps beside it
    return bytes(proto.SerializeToString(deterministic=True))


def _read_joblib(path: Path) -> Any:
    import joblib

    return joblib.load(path)


def _read_xgboost(path: Path) -> Any:
    import xgboost

    content = bytearray(path.read_bytes())
    booster = xgboost.Booster(model_file=content)
    name = booster.attr(_CLASS) or _xgboost_class(booster.attr("scikit_learn"))
    if name == "Booster" or name not in _XGBOOST:
        return booster
    model = getattr(xgboost, name)()
    model.load_model(content)
    return model


def _xgboost_class(told: str | None) -> str:
    """The class that XGBoost's own wrapper recorded in the file."""
    kind = json.loads(told).get("_estimator_type", "") if told else ""
    return {"classifier": "XGBClassifier", "regressor": "XGBRegressor", "ranker": "XGBRanker"}.get(kind, "Booster")


def _read_lightgbm(path: Path) -> Any:
    import lightgbm

    text = path.read_text(encoding="utf-8")
    if "\nend of trees" not in text:  # LightGBM itself would answer with the trees that are left
        raise BadArtifact(f"{path} ends before its last tree.", hint="Copy or save the model again.")
    return lightgbm.Booster(model_str=text)


_READ: dict[Format, Callable[[Path], Any]] = {
    "onnx": _read_onnx,
    "joblib": _read_joblib,
    "xgboost": _read_xgboost,
    "lightgbm": _read_lightgbm,
    "catboost": catboost_files.read,
}


def dumps(model: Any) -> tuple[Format, str, bytes]:
    """A fitted model as (format, file name, bytes), the same bytes for equal models in any process.

    Boosters go into their library's own format where that keeps everything that an answer depends on, other models into
    skops, and what skops does not know into joblib.

    Raises:
        EstibaError: no format can hold it, for instance because it holds a lambda.
    """
    native: dict[str, Callable[[Any], tuple[Format, str, bytes] | None]] = {
        "xgboost": _dump_xgboost,
        "lightgbm": _dump_lightgbm,
        "catboost": _dump_catboost,
    }
    written = native.get(type(model).__module__.partition(".")[0], lambda _: None)(model)
    if written is not None:
        return written
    if any(catboost_files.is_fragile(item) for item in reachable(model)):
        return "joblib", "model.pkl", _dump_pickle(model)
    model = without_timestamps(model)
    return _dump_skops(model) or ("joblib", "model.pkl", _dump_pickle(model))


def _dump_xgboost(model: Any) -> tuple[Format, str, bytes] | None:
    name = type(model).__name__
    bare = name == "Booster"
    # The file lacks what the wrapper adds to its booster: another marker for missing values, a custom loss.
    if name not in _XGBOOST or not (bare or (model.missing != model.missing and not callable(model.objective))):
        return None
    booster = (model if bare else model.get_booster()).copy()
    booster.set_attr(**{_CLASS: name})
    return "xgboost", "model.ubj", bytes(booster.save_raw("ubj"))


def _dump_lightgbm(model: Any) -> tuple[Format, str, bytes] | None:
    if type(model).__name__ != "Booster":
        return None  # the text knows neither class labels nor which wrapper it was
    return "lightgbm", "model.txt", model.model_to_string().encode()


def _dump_catboost(model: Any) -> tuple[Format, str, bytes] | None:
    content = catboost_files.dump(model)
    return None if content is None else ("catboost", "model.cbm", content)


def without_timestamps(model: Any, pickled: Callable[[Any], bytes] | None = None) -> Any:
    """The model itself, or a copy without CatBoost's timestamps where a CatBoost model is inside.

    Args:
        pickled: the pickler that can hold the model; by default pickle's own.
    """
    pickled = pickled or _pickled
    items = [item for item in reachable(model) if type(item).__name__ in catboost_files.CLASSES]
    if not items or any(map(catboost_files.is_fragile, items)):
        return model
    copied = pickle.loads(pickled(model))  # of what is in this process anyway
    for item in reachable(copied):
        if type(item).__name__ in catboost_files.CLASSES and item.is_fitted():
            catboost_files.strip(item)
    return pickle.loads(pickled(copied))


def _dump_skops(model: Any) -> tuple[Format, str, bytes] | None:
    try:
        content = skops.dumps(model)
        again = skops.loads(content, "model.skops", trust=True)
        return ("skops", "model.skops", content) if skops.dumps(again) == content else None
    except Exception:  # whatever skops cannot hold or give back, joblib may
        return None


def _dump_pickle(model: Any) -> bytes:
    try:
        return _pickled(model)
    except Exception as error:  # pickling fails in as many ways as there are classes
        raise EstibaError(
            f"The model cannot be saved: {type(error).__name__}: {error}",
            hint="Replace lambdas and nested functions by functions of an installed module.",
        ) from error


class _Pickler(pickle.Pickler):
    """A pickler whose bytes do not depend on uninitialised memory."""

    def reducer_override(self, item: Any) -> Any:
        if hasattr(item, "dtype") and getattr(item.dtype, "names", None) and hasattr(item, "shape"):
            return skops.unpadded(item).__reduce_ex__(_PROTOCOL)
        return NotImplemented


def _pickled(model: Any) -> bytes:
    buffer = io.BytesIO()
    _Pickler(buffer, protocol=_PROTOCOL).dump(model)
    return buffer.getvalue()
