"""Create small artifacts, and write them from other processes, for tests of artifacts and registries."""

from __future__ import annotations

from pathlib import Path
from threading import Barrier

from estiba.core.errors import Conflict
from estiba.core.stores.files import open_store
from estiba.model.artifact import artifact
from estiba.model.artifact.artifact import Artifact, Manifest, Parity, SourceCard
from estiba.model.registry.registry import open_registry
from estiba.model.schema.signature import Field, Head, Signature

FILES = {"model.onnx": b"not really a model " * 50, "golden/rows.json": b"[[1.0]]", "card.md": b"# iris"}


def manifest(name: str = "iris", **changed: object) -> Manifest:
    settings: dict[str, object] = {
        "name": name,
        "engine": "onnx",
        "model_file": "model.onnx",
        "format": "onnx",
        "framework": "scikit-learn 1.9.0",
        "signature": Signature(
            fields=(Field(name="length", kind="number", minimum=0.0),),
            head=Head(kind="probabilities", classes=("no", "yes")),
        ),
        "metrics": {"accuracy": 0.96, "brier": 0.03},
        "params": {"trees": 100, "criterion": "gini"},
        "parity": Parity(rows=9, max_abs_error={"no": 1e-7}, labels_equal=9, labels_total=9, tolerance=1e-5),
        "libraries": {"onnxruntime": "1.31.0"},
        "python": "3.11.7",
        "source": SourceCard(name="Fisher", rows=150),
    }
    return Manifest(**{**settings, **changed})  # type: ignore[arg-type]


def packed(root: Path, number: int = 0, name: str = "iris") -> Artifact:
    """An artifact that differs from others by its number only."""
    return artifact.write(root, manifest(name, metrics={"number": float(number)}), FILES)


def push_many(url: str, scratch: Path, first: int, count: int, gate: Barrier) -> list[int]:
    """Push versions and set an alias, as one of two concurrent writers."""
    registry = open_registry(url, cache=scratch / "cache")
    made = [packed(scratch, n) for n in range(first, first + count)]
    gate.wait()
    found = [registry.push(one).version for one in made]
    registry.set_alias("iris", "candidate", found[-1])
    return found


def create_many(url: str, writer: int, count: int, gate: Barrier) -> list[int]:
    """The numbers of the files that this one of two writers got; both ask for each at the same moment."""
    won = []
    store = open_store(url)
    for number in range(count):
        gate.wait()
        try:
            store.create(f"race/{number}.json", str(writer).encode())
        except Conflict:
            continue
        won.append(number)
    return won


def push_for_ever(url: str, scratch: Path) -> None:
    """Push versions until the process is killed."""
    number = 0
    while True:
        number += 1
        open_registry(url).push(packed(scratch, number), ["production"])


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())
