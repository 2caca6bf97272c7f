"""The size report adds layers up, assigns every byte to a category, and enforces size budgets."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from estiba.core.errors import EstibaError
from estiba.deploy.image import size_report
from estiba.deploy.image.size_report import Contents
from estiba.deploy.image.slim.trim_packages import OWNERS, REPORT

SITE = "usr/local/lib/python3.11/site-packages"


def contents() -> Contents:
    found = Contents()
    owners = json.dumps(
        {"google": "protobuf", "numpy.libs": "numpy", "ns/a": "ns_a", "ns/b.py": "ns-b", "usr/local/bin/uv": "uv"}
    ).encode()
    listing = b"/bin/dash\n/usr/share/doc/dash\n"
    gone = json.dumps([["numpy", "tests", 5000], ["numpy", "tests", 10], ["idna", "types", 0]]).encode()
    found.add(
        [
            ("usr/bin/dash", 100, None),
            ("var/lib/dpkg/info/dash.list", len(listing), listing),
            ("usr/local/lib/libpython3.11.so.1.0", 50, None),
            ("usr/local/lib/python3.11/os.py", 7, None),
            ("tmp/later", 1, None),
        ]
    )
    found.add(
        [
            (f"{SITE}/google/protobuf/a.py", 20, None),
            (f"{SITE}/numpy.libs/b.so", 30, None),
            (f"{SITE}/numpy-2.0.dist-info/METADATA", 3, None),
            (f"{SITE}/__pycache__/six.cpython-311.pyc", 2, None),
            (f"{SITE}/six.py", 5, None),
            (f"{SITE}/ns/a/c.py", 11, None),
            (f"{SITE}/ns/__pycache__/b.cpython-311.pyc", 12, None),
            ("usr/local/bin/uv", 13, None),
            (f"{OWNERS}/x.json", len(owners), owners),
            (f"{REPORT}/packages.json", len(gone), gone),
            ("usr/lib/libssl.so.3", 9, None),
            ("tmp/.wh.later", 0, None),
        ]
    )
    found.add([("models/artifacts/a", 4, None), ("app/main.py", 6, None), ("usr/local/lib/python3.11/os.py", 8, None)])
    return found


def test_every_byte_is_of_something() -> None:
    weight = size_report.weigh(contents())
    assert weight.bytes == sum(weight.packages.values())
    expected = {
        "dash (Debian)": 100,
        "Python": 58,
        "protobuf": 20,
        "numpy": 33,
        "six": 7,
        "ns-a": 11,
        "ns-b": 12,
        "uv": 13,
        "libssl (system library)": 9,
        "models": 4,
        "the application": 6,
    }
    assert {name: weight.packages[name] for name in expected} == expected


def test_what_a_layer_hides_counts_in_the_total_only() -> None:
    weight = size_report.weigh(contents())
    assert weight.total - weight.bytes == 1 + 7
    assert len(weight.layers) == 3


def test_an_opaque_folder_hides_all_below_it() -> None:
    found = contents()
    found.add([(f"{SITE}/google/.wh..wh..opq", 0, None)])
    assert "protobuf" not in size_report.weigh(found).packages


def test_what_was_left_out_is_added_up() -> None:
    assert size_report.weigh(contents()).left_out == (("numpy", "tests", 5010),)


def test_a_budget_names_the_heaviest() -> None:
    weight = size_report.weigh(contents())
    size_report.check_budget(weight, None, "p/web:1")
    size_report.check_budget(weight, weight.total, "p/web:1")
    with pytest.raises(EstibaError, match=r"more than its budget of 0 MB: .*dash \(Debian\) 0\.0") as error:
        size_report.check_budget(weight, weight.total - 1, "p/web:1")
    assert "--explain" in str(error.value)


def test_what_is_no_image(tmp_path: Path) -> None:
    (tmp_path / "image.tar").write_bytes(b"nothing of the kind")
    with pytest.raises(EstibaError, match="not an archive of an image"):
        size_report.archive(tmp_path / "image.tar")
