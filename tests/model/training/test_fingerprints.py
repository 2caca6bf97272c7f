"""Fingerprints list the files that a training read.

Each test runs in a process of its own, because an audit hook cannot be removed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from estiba.model.training import fingerprints
from estiba.model.training.runner import ModelOptions

WATCHED = """
import json, os, sys
from pathlib import Path
from estiba.model.training import fingerprints
from estiba.model.training.fingerprints import Reads

reads = Reads(fingerprints.roots(Path.cwd()))
{code}
reads.stop()
print(json.dumps([reads.files(), reads.folders()]))
"""


def watch(folder: Path, code: str, **environment: str) -> tuple[dict[str, str], dict[str, str]]:
    """The files and folders that some code reads in a folder."""
    import os

    done = subprocess.run(
        [sys.executable, "-c", WATCHED.format(code=code)],
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    found: list[Any] = json.loads(done.stdout)
    return found[0], found[1]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a.txt", "data/one.csv", "data/two.csv", ".hidden/b.txt", "lib/site-packages/c.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    return tmp_path


READS = [
    ("open('a.txt').close()", ["a.txt"]),
    ("Path('a.txt').read_bytes()", ["a.txt"]),
    ("os.close(os.open(b'a.txt', os.O_RDONLY))", ["a.txt"]),
    ("open(os.path.abspath('data/../a.txt')).close()", ["a.txt"]),
    ("open('.hidden/b.txt').close(); open('lib/site-packages/c.txt').close()", []),
    ("open('/etc/hostname').close()", []),
    ("open('a.txt', 'w').close(); open('a.txt').close()", []),
    ("import pandas; pandas.read_csv('data/one.csv')", ["data/one.csv"]),
]


@pytest.mark.slow
@pytest.mark.parametrize(("code", "expected"), READS)
def test_what_is_read_below_the_project_is_noted(folder: Path, code: str, expected: list[str]) -> None:
    assert sorted(watch(folder, code)[0]) == expected


def test_a_file_that_was_looked_for_in_vain_is_noted_as_missing(folder: Path) -> None:
    code = "try:\n    open('late.txt')\nexcept OSError:\n    pass"
    assert watch(folder, code)[0] == {"late.txt": fingerprints.MISSING}


def test_a_file_that_changes_while_it_is_read_equals_nothing(folder: Path) -> None:
    code = "open('a.txt').close()\nos.system('echo more >> a.txt')"
    assert watch(folder, code)[0] == {"a.txt": fingerprints.UNSTABLE}


def test_a_listed_folder_is_noted_by_its_names(folder: Path) -> None:
    _, folders = watch(folder, "sorted(Path('data').glob('*.csv'))")
    assert folders == {"data": fingerprints.digest_folder(folder / "data")}
    (folder / "data/three.csv").write_text("")
    assert folders != {"data": fingerprints.digest_folder(folder / "data")}


def test_shared_data_is_noted_by_the_name_of_its_variable(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    shared = tmp_path_factory.mktemp("shared")
    (shared / "big.csv").write_text("x")
    files, _ = watch(folder, "open(os.environ['ESTIBA_DATA'] + '/big.csv').close()", ESTIBA_DATA=str(shared))
    assert list(files) == ["$ESTIBA_DATA/big.csv"]


def test_modules_of_the_project_count_even_when_python_cached_them(folder: Path) -> None:
    (folder / "mine.py").write_text("import json\n")
    code = "sys.path.insert(0, ''); import mine"
    watch(folder, code)
    assert list(watch(folder, code)[0]) == ["mine.py"]


def test_a_stamp_that_cannot_be_read_is_no_stamp(folder: Path) -> None:
    fingerprint = fingerprints.Fingerprint(version=1, digest="d", section=fingerprints.digest_options(ModelOptions()))
    fingerprints.write(folder, "a", fingerprint)
    assert fingerprints.read(folder, "a") == fingerprint
    fingerprints.fingerprint_file(folder, "a").write_text("{")
    assert fingerprints.read(folder, "a") is None
    assert fingerprints.read(folder, "b") is None
