"""`make up` installs a part of what `make test` does, at the same versions and hashes."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent


def pinned(name: str) -> dict[tuple[str, str], set[str]]:
    """By name and version, the hashes of a lock file."""
    text = re.sub(r" *\\\n *", " ", (ROOT / name).read_text())
    lines = [line for line in text.splitlines() if line and line.lstrip()[0] != "#"]
    found = {}
    for line in lines:
        distribution, version = re.split("==| ", line)[:2]
        found[distribution, version] = set(re.findall(r"--hash=(\S+)", line))
    return found


def test_what_make_up_installs_is_a_part_of_what_make_test_installs() -> None:
    small, whole = pinned("requirements-up.lock"), pinned("requirements.lock")
    assert {"numpy", "onnxruntime", "scikit-learn", "skl2onnx"} <= {name for name, _ in small}
    assert len(small) < len(whole) / 3
    for pin, hashes in small.items():
        assert hashes
        assert hashes == whole[pin]
