"""Tests lie where the code lies: the tests of src/estiba/FOLDER/ are in tests/FOLDER/."""

from __future__ import annotations

from pathlib import Path

TESTS = Path(__file__).parent
SOURCE = TESTS.parent / "src" / "estiba"

WHOLE = {"support", "examples", "security"}
"""Folders of tests that belong to no folder of the code: helpers, the portfolio, and attacks on whole servers."""


def folders(root: Path, pattern: str) -> dict[str, set[str]]:
    """Folders below `root` by the name of a file in them."""
    by_name: dict[str, set[str]] = {}
    for path in root.rglob(pattern):
        by_name.setdefault(path.stem, set()).add(path.parent.relative_to(root).as_posix())
    return by_name


def test_every_folder_of_the_code_has_tests_and_no_other_folder_has() -> None:
    code = set[str]().union(*(where for name, where in folders(SOURCE, "*.py").items() if name != "__init__"))
    tested = set[str]().union(*folders(TESTS, "test_*.py").values())
    assert code - tested == {"deploy"}, "its one file, target.py, is a protocol: Compose and Kubernetes test it"
    assert {folder for folder in tested - code if folder.split("/")[0] not in WHOLE} == {"serving/pages"}, "a browser's"


def test_a_test_with_the_name_of_a_module_is_in_its_folder() -> None:
    code = folders(SOURCE, "*.py")
    tests = {name.removeprefix("test_"): where for name, where in folders(TESTS, "test_*.py").items()}
    elsewhere = {
        name: sorted(where - code[name])
        for name, where in tests.items()
        if name in code and where - code[name] and not {folder.split("/")[0] for folder in where} & WHOLE
    }
    assert elsewhere == {}
