"""A pickle that cannot be read is explained: another scikit-learn saved it, or its code was in a notebook."""

from __future__ import annotations

import pickle
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import joblib
import pytest
from sklearn.linear_model import LogisticRegression

from estiba.core.errors import BadArtifact
from estiba.model.estimators.old_pickles import sklearn_version
from estiba.model.estimators.saved_files import load_file

MODEL = LogisticRegression().fit([[0.0], [1.0]], [0, 1])


def aged(content: bytes, *changes: tuple[bytes, bytes]) -> bytes:
    """The bytes of a pickle that scikit-learn 1.5.2 could have written."""
    installed = version("scikit-learn").encode()
    for old, new in ((installed, b"1.5.2"), *changes):
        assert old in content
        assert len(old) == len(new)
        content = content.replace(old, new)
    return content


@pytest.mark.parametrize("compress", [0, ("gzip", 3), ("zlib", 3), ("bz2", 3), ("xz", 3), ("lzma", 3)], ids=str)
@pytest.mark.parametrize("protocol", [2, 5])
def test_the_version_is_read_from_the_bytes(compress: object, protocol: int, tmp_path: Path) -> None:
    joblib.dump(MODEL, tmp_path / "m.joblib", compress=compress, protocol=protocol)
    assert sklearn_version(tmp_path / "m.joblib") == version("scikit-learn")


def test_a_file_without_a_version_has_none(tmp_path: Path) -> None:
    (tmp_path / "m.pkl").write_bytes(b"\x1f\x8bbroken")
    assert sklearn_version(tmp_path / "m.pkl") == ""
    joblib.dump([1, 2], tmp_path / "m.pkl")
    assert sklearn_version(tmp_path / "m.pkl") == ""


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"sklearn.linear_model._logistic", b"sklearn.linear_model._gone_away"),
        (b"LogisticRegression", b"LogisticRegressors"),
        (b"sklearn.linear_model._logistic", b"_loss.abcdefghijklmnopqrstuvwx"),
    ],
    ids=["a module of scikit-learn", "a class of scikit-learn", "a compiled module"],
)
def test_both_versions_are_named(old: bytes, new: bytes, tmp_path: Path) -> None:
    new = new.ljust(len(old), b"x")[: len(old)]
    (tmp_path / "m.pkl").write_bytes(aged(pickle.dumps(MODEL), (old, new)))
    with pytest.raises(BadArtifact) as caught:
        load_file(tmp_path / "m.pkl", trust=True)
    assert f"saved with scikit-learn 1.5.2, and scikit-learn {version('scikit-learn')}" in caught.value.message
    assert "scikit-learn==1.5.2" in (caught.value.hint or "")


def test_a_module_of_another_library_is_no_question_of_versions(tmp_path: Path) -> None:
    old = b"sklearn.linear_model._logistic"
    (tmp_path / "m.pkl").write_bytes(aged(pickle.dumps(MODEL), (old, b"companypackage.models.logistic")))
    with pytest.raises(BadArtifact, match="needs the module 'companypackage'"):
        load_file(tmp_path / "m.pkl", trust=True)


def test_a_class_of_a_notebook_is_named_with_the_remedy(tmp_path: Path) -> None:
    script = "import pickle\nclass Clip: pass\npickle.dump(Clip(), open('m.pkl', 'wb'))"
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=True)
    with pytest.raises(BadArtifact, match="'Clip', which was defined in a notebook") as caught:
        load_file(tmp_path / "m.pkl", trust=True)
    assert "estiba.pack(model, ...)" in (caught.value.hint or "")
