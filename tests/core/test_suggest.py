"""Suggestions for misspelled names."""

from __future__ import annotations

import time

import pytest

from estiba.core.suggest import MAX_NAME_CHARACTERS, did_you_mean, nearest, shortened

KNOWN = ["host", "port", "workers", "max_body", "web", "age"]


@pytest.mark.parametrize(
    ("name", "suggestion"),
    [
        ("prot", "port"),
        ("wokers", "workers"),
        ("max_bdy", "max_body"),
        ("wbe", "web"),
        ("agge", "age"),
        ("port", "port"),
        ("telemetry", ""),
        ("", ""),
    ],
)
def test_the_most_similar_name_is_suggested(name: str, suggestion: str) -> None:
    assert nearest(name, KNOWN) == suggestion


def test_any_iterable_of_names_will_do() -> None:
    assert nearest("prot", {"port": 1}) == nearest("prot", iter(["port"])) == "port"
    assert nearest("prot", ()) == ""


def test_the_end_of_a_sentence() -> None:
    assert did_you_mean("prot", KNOWN) == "; did you mean 'port'?"
    assert did_you_mean("telemetry", KNOWN) == "."
    assert did_you_mean("telemetry", KNOWN, "") == ""


def test_a_long_name_gets_no_suggestion_and_takes_no_time() -> None:
    longest = "x" * MAX_NAME_CHARACTERS
    assert nearest(longest, [longest[:-1]]) == longest[:-1]
    start = time.perf_counter()
    assert nearest("xy" * 500_000, ["xy" * 400_000]) == ""
    assert time.perf_counter() - start < 0.1


def test_a_long_text_keeps_its_ends() -> None:
    assert shortened("x" * 1000) == "x" * 1000
    assert shortened("begin" + "x" * 50_000_000 + "end", 24) == "beginxxxxxxxx ... xxxend"
    assert len(shortened("x" * 1001)) == 1000
