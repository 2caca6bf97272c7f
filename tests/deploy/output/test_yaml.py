"""YAML that every reader understands alike."""

from __future__ import annotations

from typing import Any

import pytest
import yaml as reader
from hypothesis import given
from hypothesis import strategies as st

from estiba.deploy.output import yaml

TRICKY = [
    "",
    "yes",
    "No",
    "null",
    "~",
    "1.5",
    ".5",
    ".inf",
    "0x1f",
    "1e3",
    "12:30",
    "2024-01-01",
    "a: b",
    "a #b",
    "- x",
]
NUMBERS = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
SCALARS = st.none() | st.booleans() | NUMBERS | st.text() | st.sampled_from(TRICKY)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4)
)


@pytest.mark.slow
@given(st.dictionaries(st.text(), VALUES, max_size=5))
def test_what_is_written_is_read_again(value: dict[str, Any]) -> None:
    assert reader.safe_load(yaml.render(value)) == value


@pytest.mark.parametrize("text", ["one\ntwo\n", "one\ntwo", "a: 1\n\nb: |\n  x\n", "tab\there\nthere\n"])
def test_a_text_of_lines_stays_readable(text: str) -> None:
    written = yaml.render({"config": text})
    assert reader.safe_load(written) == {"config": text}
    assert written.startswith("config: |")


def test_several_documents() -> None:
    assert list(reader.safe_load_all(yaml.render_all([{"a": 1}, {"b": [{"c": 2}]}]))) == [{"a": 1}, {"b": [{"c": 2}]}]
