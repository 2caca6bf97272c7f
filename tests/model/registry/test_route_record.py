"""Routes as they are written, and their ranges: what a change of weights moves."""

from __future__ import annotations

import random
from bisect import bisect_right
from collections.abc import Sequence

import pytest

from estiba.core.errors import BadArtifact, BadRequest
from estiba.model.registry.route_record import (
    HeaderRule,
    Range,
    RouteOptions,
    changed_ranges,
    check,
    decode_route,
    first_ranges,
    read_rule,
    read_weights,
    salt_of,
)


def shares(ranges: Sequence[Range]) -> dict[str, float]:
    found: dict[str, float] = {}
    start = 0.0
    for until, target in ranges:
        assert until > start
        found[target] = found.get(target, 0.0) + until - start
        start = until
    assert start == 1.0
    return found


def owner(ranges: Sequence[Range], where: float) -> str:
    return ranges[bisect_right([each.until for each in ranges[:-1]], where)].target


def test_candidates_are_first_and_production_has_the_rest() -> None:
    ranges = first_ranges({"production": 90, "blue": 6, "candidate": 4})
    assert [each.target for each in ranges] == ["blue", "candidate", "production"]
    assert [each.until for each in ranges] == pytest.approx([0.06, 0.10, 1.0])
    assert first_ranges({"production": 0, "candidate": 100}) == (Range(1.0, "candidate"),)


def test_raising_a_candidate_keeps_those_that_it_had() -> None:
    ranges = first_ranges({"production": 95, "candidate": 5})
    points = [random.Random(i).random() for i in range(20_000)]
    before: set[float] = set()
    for weight in (5, 20, 50, 80, 100):
        ranges = changed_ranges(ranges, {"production": 100 - weight, "candidate": weight})
        now = {point for point in points if owner(ranges, point) == "candidate"}
        assert before <= now
        assert len(now) / len(points) == pytest.approx(weight / 100, abs=0.015)
        before = now


def test_any_history_moves_as_little_as_possible() -> None:
    chance = random.Random(5)
    for _ in range(200):
        ranges: tuple[Range, ...] = ()
        for _ in range(8):
            names = chance.sample(["a", "b", "c", "d"], chance.randint(1, 4))
            drawn = [chance.randint(0, 20) for _ in names]
            drawn[0] += 1
            weights = {name: 100 * each / sum(drawn) for name, each in zip(names, drawn, strict=True)}
            changed = changed_ranges(ranges, weights) if ranges else first_ranges(weights)
            wanted = {name: weight / 100 for name, weight in weights.items()}
            assert shares(changed) == pytest.approx({n: w for n, w in wanted.items() if w}, abs=1e-9)
            if ranges:
                before = shares(ranges)
                least = sum(abs(wanted.get(n, 0) - before.get(n, 0)) for n in wanted | before) / 2
                assert moved(ranges, changed) == pytest.approx(least, abs=1e-9)
            ranges = changed


def moved(old: Sequence[Range], new: Sequence[Range]) -> float:
    """The part of [0, 1) that has another target."""
    ends = sorted({each.until for each in (*old, *new)})
    total, start = 0.0, 0.0
    for end in ends:
        middle = (start + end) / 2
        total += (end - start) * (owner(old, middle) != owner(new, middle))
        start = end
    return total


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weights": {}}, "add up to 0, not to 100: there is none"),
        ({"weights": {"production": 95, "candidate": 4}}, "add up to 99, not to 100: production=95 candidate=4"),
        ({"weights": {"two words": 100}}, "'two words' is neither a version number nor an alias"),
        ({"weights": {"a": 100}, "shadow": "-"}, "'-' is neither"),
        ({"weights": {"a": 100}, "sticky": "cookie:x"}, "'cookie:x' is no kind of stickiness"),
        ({"weights": {"a": 100}, "sticky": "header:a b"}, "'a b' cannot be the name of a header"),
        ({"weights": {"a": 100}, "when": (HeaderRule("X:", "1", "a"),)}, "'X:' cannot be the name of a header"),
        ({"weights": {"a": 100}, "when": (HeaderRule("X", "1\n", "a"),)}, "cannot be the value of the header X"),
        ({"weights": {"a": 100}, "when": (HeaderRule("X", "1", "a"), HeaderRule("x", "1", "b"))}, "Two rules"),
    ],
)
def test_mistakes_are_named(options: dict[str, object], message: str) -> None:
    with pytest.raises(BadRequest, match=message) as caught:
        check(RouteOptions(**options))  # type: ignore[arg-type]
    assert caught.value.message


def test_a_command_line_is_read() -> None:
    assert read_weights(["production=95", "3=5%"]) == {"production": 95, "3": 5}
    assert read_rule("header:X-Beta=a=b", "candidate") == HeaderRule("X-Beta", "a=b", "candidate")
    for wrong in ("production", "=5", "production=", "production=-1", "production=1e3", "production=nan"):
        with pytest.raises(BadRequest, match="is no weight"):
            read_weights([wrong])
    with pytest.raises(BadRequest, match="has two weights"):
        read_weights(["a=50", "a=50"])
    for wrong in ("X-Beta=1", "header:X-Beta", "header:=1", "query:a=1"):
        with pytest.raises(BadRequest, match="is no condition"):
            read_rule(wrong, "candidate")


def test_the_salt_is_another_one_for_each_model_and_experiment() -> None:
    assert len({salt_of("a", 1), salt_of("a", 2), salt_of("b", 1)}) == 3
    assert salt_of("bankchurn", 1) == "f9765b3e787400f6401023736a96d252", "callers would move to other targets"


@pytest.mark.parametrize("content", [b"{", b'{"name": "b", "generation": 1, "options": null}', b"\xff"])
def test_a_damaged_record_names_its_file(content: bytes) -> None:
    with pytest.raises(BadArtifact, match=r"/r/models/a/routes/1\.json"):
        decode_route(content, "/r", "a", 1)
