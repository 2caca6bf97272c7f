"""The choice of a target: shares, callers that stay, rules."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any, cast

import pytest

from estiba.serving.exchange import Exchange
from estiba.serving.http.request import Request
from estiba.serving.routing import Shares, chooser, header_unit, key_unit, point, weighed

SALT = bytes(range(16))
REQUESTS = 200_000


def exchange(caller: str = "", **headers: str) -> Exchange:
    pairs = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    made = Exchange(cast(Any, None), Request(b"POST", b"/predict", b"", pairs), "id")
    made.caller = caller
    return made


def is_within_three_sigma(count: int, share: float, total: int) -> bool:
    return abs(count - share * total) <= 3 * math.sqrt(total * share * (1 - share))


def test_weights_are_right_within_three_sigma() -> None:
    choose = chooser(Shares(weighed({"a": 95, "b": 4, "c": 1})), None, SALT, [])
    one = exchange()
    counts = Counter(choose(one) for _ in range(REQUESTS))
    for name, share in (("a", 0.95), ("b", 0.04), ("c", 0.01)):
        assert is_within_three_sigma(counts[name], share, REQUESTS), counts


def test_callers_are_spread_as_evenly_and_stay() -> None:
    choose = chooser(Shares(weighed({"b": 5, "a": 95})), header_unit("X-User"), SALT, [])
    chosen = {i: choose(exchange(x_user=f"user-{i}")) for i in range(REQUESTS)}
    assert is_within_three_sigma(list(chosen.values()).count("b"), 0.05, REQUESTS)
    assert all(choose(exchange(x_user=f"user-{i}")) == chosen[i] for i in range(0, REQUESTS, 1000))
    more = chooser(Shares(weighed({"b": 20, "a": 80})), header_unit("x-user"), SALT, [])
    kept = [more(exchange(x_user=f"user-{i}")) for i, target in chosen.items() if target == "b"]
    assert set(kept) == {"b"}, "raising 5 to 20 keeps the first 5"


def test_points_stay_as_they_are() -> None:
    assert point(b"header\0ada", SALT) == pytest.approx(0.319924351, abs=1e-9), "callers would move to other targets"
    assert 0 <= point(b"", SALT) < 1


def test_unknown_callers_are_drawn() -> None:
    for unit in (header_unit("x-user"), key_unit):
        choose = chooser(Shares(weighed({"a": 50, "b": 50})), unit, SALT, [])
        counts = Counter(choose(exchange()) for _ in range(2000))
        assert 800 < counts["a"] < 1200


def test_the_name_of_a_key_decides() -> None:
    choose = chooser(Shares(weighed({"a": 50, "b": 50})), key_unit, SALT, [])
    by_key = {name: {choose(exchange(name)) for _ in range(20)} for name in ("ada", "bob", "eve", "kim", "lea")}
    assert all(len(targets) == 1 for targets in by_key.values())
    assert {target for targets in by_key.values() for target in targets} == {"a", "b"}


def test_rules_come_first() -> None:
    choose = chooser(Shares(weighed({"a": 100})), None, SALT, [(b"x-beta", b"1", "b"), (b"x-old", b"yes", "c")])
    assert choose(exchange(x_beta="1")) == "b"
    assert choose(exchange(x_old="yes", x_beta="2")) == "c"
    assert choose(exchange(x_beta="0")) == "a"
    assert choose(exchange()) == "a"
