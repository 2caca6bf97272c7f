"""estiba build, export and scan: what they print, and what they refuse before anything is built."""

from __future__ import annotations

from pathlib import Path

import pytest
from command_line import Estiba

pytestmark = pytest.mark.slow


@pytest.fixture
def project(tmp_path: Path, toy_registry: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with one toy model and a service that trains, and no container engine or scanner on PATH."""
    (tmp_path / "estiba.toml").write_text(
        f'[project]\nname = "toys"\nregistry = "{toy_registry}"\n[models.churn]\ntrain = "a:b"\n'
        '[services.training]\ncommand = "estiba train"\nkind = "training"\nprofile = "training"\n'
        'include = ["estiba.toml"]\n'
    )
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    return tmp_path


def test_a_dockerfile_is_printed_and_nothing_is_built(project: Path, estiba: Estiba) -> None:
    ran = estiba("build", "-C", str(project), "--print")
    assert ran.code == 0, ran.err
    assert "FROM scratch" in ran.out
    assert "training" not in ran.out
    assert sorted(path.name for path in project.iterdir()) == ["bin", "estiba.toml"]


def test_a_style_and_a_profile_are_chosen(project: Path, estiba: Estiba) -> None:
    ran = estiba("build", "-C", str(project), "--print", "--style", "slim", "--profile", "training")
    assert "FROM scratch" not in ran.out
    assert 'CMD ["estiba", "train"]' in ran.out


def test_an_image_for_training_needs_no_trained_model(project: Path, estiba: Estiba) -> None:
    text = (project / "estiba.toml").read_text()
    (project / "estiba.toml").write_text(text.replace("models.churn", "models.never"))
    assert estiba("build", "training", "-C", str(project), "--print").code == 0
    assert "There is no model 'never'" in estiba("build", "models", "-C", str(project), "--print").err


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("build",), 4, "No container engine works here (docker: not installed;"),
        (("build", "model"), 2, "There is no service 'model'; did you mean 'models'?"),
        (("build", "--builder", "podman"), 4, "podman: not installed"),
        (("build", "--style", "tiny"), 2, "'tiny' is not one of"),
        (("build", "--offline", "all.tar.gz"), 4, "Cannot read all.tar.gz"),
        (("scan",), 4, "No image was built on this machine yet."),
        (("scan", "models"), 4, "There is no bill of materials of models."),
    ],
)
def test_what_cannot_be_done_says_so(
    project: Path, estiba: Estiba, words: tuple[str, ...], code: int, message: str
) -> None:
    ran = estiba(*words, "-C", str(project))
    assert (ran.code, message in ran.err) == (code, True), ran.err
    assert "Traceback" not in ran.err
