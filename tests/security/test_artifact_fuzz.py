"""Artifacts that somebody changed and sealed again: a damaged one is BadArtifact with a sentence, whatever was changed.

ESTIBA_MUTANTS makes more of them, ESTIBA_FUZZ_SEED chooses which.
"""

from __future__ import annotations

import copy
import hashlib
import json
import os
import random
import shutil
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pandas as pd
import pytest
from sklearn.ensemble import RandomForestClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from tensor_toys import two_outputs

import estiba
from estiba.core.errors import BadArtifact, BadInput
from estiba.model.artifact import artifact as artifacts
from estiba.model.inference.load import load_artifact

MUTANTS = int(os.environ.get("ESTIBA_MUTANTS", "400"))
SEED = int(os.environ.get("ESTIBA_FUZZ_SEED", "1"))

pytestmark = [pytest.mark.slow, pytest.mark.timeout(60 + MUTANTS)]

Files = dict[str, bytes]

ODD: tuple[Any, ...] = (
    None, True, 0, -1, 1, 2**63, -(2**70), 1e308, 0.5, "", "a", "/", "../x", "[", "(" * 99, "nan", "float32", "O",
    "x" * 10_000, [], [[]], {}, {"": None}, [0], ["a", "a"], [None] * 100, "tensor", "python", "several", "values",
)  # fmt: skip


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Files]:
    """The files of a model of every form, by name."""
    registry = tmp_path_factory.mktemp("fuzz") / "registry"
    rng = np.random.default_rng(0)
    rows = pd.DataFrame({"x": rng.normal(size=60), "n": rng.integers(0, 9, 60), "c": rng.choice(list("abc"), 60)})
    numbers = rows[["x", "n"]]
    several = np.column_stack([rows["x"] > 0, rows["n"] > 4]).astype(int)
    texts = pd.DataFrame({"t": [f"good {i} film" if i % 2 else f"bad {i} film" for i in range(60)]})
    label = [i % 2 for i in range(60)]
    words = make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(texts["t"], label)
    models: dict[str, tuple[Any, Any]] = {
        "classes": (RandomForestClassifier(3, random_state=0).fit(numbers, rows["c"]), numbers),
        "value": (LinearRegression().fit(numbers, rows["x"]), numbers),
        "several": (RandomForestClassifier(3, random_state=0).fit(numbers, several), numbers),
        "texts": (words, texts),
        "tensors": (two_outputs(), {"x": np.ones((2, 3), np.float32)}),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        packed = {
            name: estiba.pack(model, sample, name=name, registry=registry) for name, (model, sample) in models.items()
        }
    folders = {name: registry / "artifacts" / each.artifact.digest for name, each in packed.items()}
    return {
        name: {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        for name, folder in folders.items()
    }


def places(item: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Paths of all values in JSON."""
    pairs = item.items() if isinstance(item, dict) else enumerate(item) if isinstance(item, list) else ()
    return [path, *(place for key, value in pairs for place in places(value, (*path, key)))]


def mutated(content: bytes, chosen: random.Random) -> bytes:
    """JSON with one value removed, repeated, or replaced by another of any type."""
    item = json.loads(content)
    path = chosen.choice([place for place in places(item) if place])
    parent = item
    for key in path[:-1]:
        parent = parent[key]
    key = path[-1]
    way = chosen.randrange(5)
    if way == 0:
        del parent[key]
    elif way == 1 and isinstance(parent, list):
        parent.insert(key, copy.deepcopy(parent[key]))
    elif way == 2 and isinstance(parent[key], (int, float)):
        parent[key] = chosen.choice([-parent[key], parent[key] + 1, parent[key] * 1e9, str(parent[key])])
    elif way == 3 and isinstance(parent[key], str):
        parent[key] = parent[key][:-1] + chosen.choice(["", "\u0000", '"', "é", "9"])
    else:
        parent[key] = copy.deepcopy(chosen.choice(ODD))
    return json.dumps(item).encode()


def with_terms(content: bytes, chosen: random.Random) -> bytes:
    """An ONNX file with a change in its description of texts."""
    model = onnx.load_from_string(content)
    (terms,) = [prop for prop in model.metadata_props if prop.key == "estiba.terms"]
    terms.value = mutated(terms.value.encode(), chosen).decode()
    return bytes(model.SerializeToString())


def sealed(files: Files, folder: Path) -> Path:
    """Write the files, with their digests in the manifest where it still has a list of files."""
    manifest = json.loads(files[artifacts.MANIFEST])
    entries = manifest.get("files") if isinstance(manifest, dict) else None
    for entry in entries if isinstance(entries, list) else ():
        if isinstance(entry, dict) and isinstance(entry.get("path"), str) and entry["path"] in files:
            entry["sha256"] = hashlib.sha256(files[entry["path"]]).hexdigest()
            entry["bytes"] = len(files[entry["path"]])
    content = json.dumps(manifest).encode()
    target = folder / hashlib.sha256(content).hexdigest()
    for name, data in {**files, artifacts.MANIFEST: content}.items():
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        (target / name).write_bytes(data)
    return target


def use(folder: Path) -> str:
    """Load an artifact and use all of it; the kind of its end."""
    try:
        model = load_artifact(artifacts.read(folder), threads=1)
        _ = model.profile, model._repr_html_(), repr(model)
        try:
            model.predict([model.example])
        except BadInput:
            return "loads, and refuses its example"
        finally:
            model.engine.close()
    except BadArtifact as error:
        return type(error).__name__ if " " in error.message and len(error.message) < 5000 else f"{error.message[:5000]}"
    return "loads"


def test_changed_artifacts_are_refused_with_a_sentence(originals: dict[str, Files], tmp_path: Path) -> None:
    chosen = random.Random(SEED)
    ends: Counter[str] = Counter()
    for number in range(MUTANTS):
        name = chosen.choice(list(originals))
        files = dict(originals[name])
        victim = chosen.choice([path for path in files if path.endswith(".json")] + [artifacts.MANIFEST] * 3)
        if name == "texts" and number % 3 == 0:
            victim = "model.onnx"
            files[victim] = with_terms(files[victim], chosen)
        else:
            files[victim] = mutated(files[victim], chosen)
        folder = sealed(files, tmp_path)
        try:
            ends[use(folder)] += 1
        except Exception as error:
            text = f"mutant {number} of {name}, {victim}: {type(error).__name__}: {error}"
            raise AssertionError(text) from error
        shutil.rmtree(folder)
    print(dict(ends))
    assert set(ends) <= {"BadArtifact", "ParityError", "NotTrusted", "loads", "loads, and refuses its example"}
    assert ends["loads"] < MUTANTS / 2
    assert ends["BadArtifact"] > MUTANTS / 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"engine": "python"}, "does not run a model file in the format onnx"),
        ({"signature.head.classes": ["a", "a", "b"]}, "'a' appears twice"),
        ({"signature.head.classes": []}, "has 0 classes"),
        ({"signature.head.classes": ["a", "b"]}, "shape"),
        ({"signature.fields.1.name": "x"}, "'x' appears twice"),
        ({"signature.fields.0.kind": "category"}, "no levels"),
        ({"files": []}, "is not one of its files"),
    ],
)
def test_contradictions_are_named(
    originals: dict[str, Files], tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    files = dict(originals["classes"])
    manifest = json.loads(files[artifacts.MANIFEST])
    for path, value in change.items():
        item = manifest
        *parents, last = [int(key) if key.isdigit() else key for key in path.split(".")]
        for key in parents:
            item = item[key]
        item[last] = value
    files[artifacts.MANIFEST] = json.dumps(manifest).encode()
    with pytest.raises(BadArtifact, match=message):
        load_artifact(artifacts.read(sealed(files, tmp_path)))
