"""A plan of models with code of their authors: a project trusts what it has trained."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pandas as pd
import pytest

import estiba
from estiba import project
from estiba.core.errors import BadProject, NotTrusted
from estiba.deploy.image import requirements
from estiba.deploy.image.spec import image_spec
from estiba.model.artifact.artifact import write
from estiba.model.registry.registry import open_registry
from estiba.model.training import fingerprints
from estiba.planning import lower, lower_for_compose

pytestmark = pytest.mark.slow

TOML = '[project]\nname = "p"\nregistry = "registry"\n[models.double]\ntrain = "own:train"\n'


def test_images_hold_code_that_the_project_trained_or_trusts(tmp_path: Path) -> None:
    rows = pd.DataFrame({"a": np.arange(20.0)})
    packed = [
        estiba.pack(lambda f, n=n: f["a"] * n, rows, name="double", registry=tmp_path / "registry", quiet=True)
        for n in (2, 3)
    ]
    file = tmp_path / "estiba.toml"
    file.write_text(TOML)
    with pytest.raises(NotTrusted, match=r"double@2 .*function .*<lambda> of .*") as refused:
        lower(project.load(tmp_path))
    assert "trust = true in [images]" in str(refused.value.hint)
    assert lower(project.load(tmp_path), local=True)["models"].models[0].digest == packed[1].artifact.digest
    for one in reversed(packed):  # also a version before the last that was trained here
        fingerprints.claim(tmp_path, "double", one.artifact.digest)
    plan = lower(project.load(tmp_path))
    assert plan["models"].build is not None
    assert plan["models"].build.trust
    pins = {pin.name: pin.version for pin in requirements.serving(plan["models"].models).pins}
    assert pins["cloudpickle"] == packed[1].artifact.manifest.libraries["cloudpickle"]
    (fingerprints.fingerprint_file(tmp_path, "double").with_suffix(".digest")).unlink()
    file.write_text(f"{TOML}[images]\ntrust = true\n")
    assert lower(project.load(tmp_path)).services


def test_a_server_that_follows_a_registry_trusts_the_versions_of_its_plan_alone(tmp_path: Path) -> None:
    rows = pd.DataFrame({"a": np.arange(20.0)})
    packed = estiba.pack(lambda f: f["a"] * 2, rows, name="double", registry=tmp_path / "registry", quiet=True)
    (tmp_path / "estiba.toml").write_text(f'{TOML}[images]\ntrust = true\nmodels = "registry"\n')
    plan = lower(project.load(tmp_path))
    assert plan["models"].environment == {"ESTIBA_TRUSTED": f"sha256:{packed.artifact.digest}"}
    assert "--trust" not in image_spec(plan, plan["models"]).process.command


def test_a_pickle_whose_manifest_names_no_code_is_not_trusted_either(tmp_path: Path) -> None:
    rows = pd.DataFrame({"a": np.arange(20.0)})
    registry = tmp_path / "registry"
    model = estiba.pack(lambda f: f["a"], rows, name="double", registry=registry, quiet=True)
    held = model.artifact
    files = {entry.path: (held.path / entry.path).read_bytes() for entry in held.manifest.files}
    silent = write(tmp_path, msgspec.structs.replace(held.manifest, by_value=()), files)
    assert not silent.manifest.code_summary
    open_registry(registry).push(silent)
    (tmp_path / "estiba.toml").write_text(TOML)
    with pytest.raises(NotTrusted, match=r"a pickle, model\.pkl"):
        lower(project.load(tmp_path))


def test_a_candidate_with_code_is_trusted_as_the_version_beside_it_is(tmp_path: Path) -> None:
    rows = pd.DataFrame({"a": np.arange(20.0)})
    for n, alias in ((2, "production"), (3, "candidate")):
        packed = estiba.pack(lambda f, n=n: f["a"] * n, rows, name="double", registry=tmp_path / "registry", quiet=True)
        open_registry(tmp_path / "registry").set_alias("double", alias, n - 1)
        if alias == "production":
            fingerprints.claim(tmp_path, "double", packed.artifact.digest)
    route = "[gateway.routes.double]\nweights = { production = 95, candidate = 5 }\n"
    (tmp_path / "estiba.toml").write_text(TOML + route)
    with pytest.raises(NotTrusted, match=r"double@2 "):
        lower(project.load(tmp_path))
    (tmp_path / "estiba.toml").write_text(f'{TOML}{route}[images]\ntrust = true\nmodels = "registry"\n')
    plan = lower(project.load(tmp_path))
    assert plan["models"].environment["ESTIBA_TRUSTED"].count("sha256:") == 2
    settings = image_spec(plan, plan["models"]).contents.settings
    assert settings["gateway"] == {"routes": {"double": {"weights": {"production": 95, "candidate": 5}}}}


def test_containers_refuse_tokens_whose_library_images_do_not_hold(tmp_path: Path) -> None:
    (tmp_path / "estiba.toml").write_text('[gateway.jwt]\nissuer = "https://login.example.com"\naudience = "models"\n')
    loaded = project.load(tmp_path)
    with pytest.raises(BadProject, match=r"gateway\.jwt"):
        lower_for_compose(loaded)
