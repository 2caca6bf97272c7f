"""Hints name the place that Estiba was installed from."""

from __future__ import annotations

import json
from typing import Any

import pytest

from estiba.core.installation import Origin, install_command, origin, read

COMMIT = "0123456789" * 4


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ({}, Origin("index")),
        ({"url": "file:///work/a%20b", "dir_info": {"editable": True}}, Origin("folder", "/work/a b", True)),
        ({"url": "file:///src", "dir_info": {}}, Origin("folder", "/src")),
        (
            {"url": "https://a.org/estiba", "vcs_info": {"vcs": "git", "commit_id": COMMIT}, "subdirectory": "py"},
            Origin("git", f"git+https://a.org/estiba@{COMMIT}#subdirectory=py"),
        ),
        (
            {"url": "https://a.org/estiba.whl", "archive_info": {"hashes": {"sha256": "ab"}}},
            Origin("url", "https://a.org/estiba.whl#sha256=ab"),
        ),
    ],
)
def test_each_record_of_an_installer_is_understood(record: dict[str, Any], expected: Origin) -> None:
    assert read(json.dumps(record)) == expected


def test_a_damaged_record_is_none() -> None:
    assert read("{").kind == "index"


def test_the_hint_names_the_folder_of_this_clone() -> None:
    found = origin()
    assert found.kind == "folder"
    assert install_command("train") == f"pip install --editable '{found.location}[train]'"
