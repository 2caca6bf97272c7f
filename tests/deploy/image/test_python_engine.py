"""An image of a model that could not be converted: its own library goes in, as the build for processors alone."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pandas as pd
import pytest
from images_made import changed, engine, toy_plan
from xgboost import XGBClassifier

import estiba
from estiba.deploy.image import build, build_context
from estiba.deploy.image.build import BuildOptions
from estiba.deploy.image.container_engine import Engine
from estiba.model.artifact import artifact
from estiba.model.artifact.artifact import Artifact
from estiba.model.registry.registry import open_registry

__all__ = ["engine"]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


def packed(folder: Path) -> Artifact:
    """A model on the python engine, as somebody packs it who has XGBoost for graphics cards."""
    draw = np.random.default_rng(0)
    rows = pd.DataFrame({"a": draw.normal(size=200), "b": draw.normal(size=200)})
    model = XGBClassifier(booster="gblinear", n_estimators=3, n_jobs=1).fit(rows, rows["a"] * rows["b"] > 0)
    made = estiba.pack(model, rows, name="churn", registry=folder / "made", engine="python").artifact
    libraries = {name.replace("xgboost-cpu", "xgboost"): version for name, version in made.manifest.libraries.items()}
    files = {entry.path: made.file(entry.path).read_bytes() for entry in made.manifest.files}
    return artifact.write(folder, msgspec.structs.replace(made.manifest, libraries=libraries, files=()), files)


def test_it_answers_as_in_training_without_anything_for_graphics_cards(engine: Engine, tmp_path: Path) -> None:
    open_registry(tmp_path / "registry").push(packed(tmp_path / "packed"))
    plan = toy_plan(tmp_path / "project", tmp_path / "registry")
    (tmp_path / "models").mkdir()
    found = build_context.assemble(plan, plan["models"], tmp_path / "models")
    wheels = {path.name.partition("-")[0] for path in (found.folder / "wheels").iterdir()}
    assert {"xgboost_cpu", "scikit_learn"} <= wheels
    assert not any(name.startswith("nvidia") or name == "xgboost" for name in wheels)
    spec = changed(found.spec, image="estiba-test/models:original")
    made = build_context.BuildContext(found.folder, spec, found.left_out)
    built = build.build_one(engine, made, tmp_path, BuildOptions(), lambda service, doing, detail: None)
    engine.remove(built.image)
    assert built.verified is not None
    assert built.verified.rows > 20
