"""Read, check and keep the routes of models, which share requests between versions.

Ranges of the interval [0, 1), not weights, decide which target answers: a request or a caller falls on a fixed point of
it. A change of weights moves as few points as possible, so raising a candidate from 5 to 20 keeps those that it had.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Annotated, Any, NamedTuple

import msgspec
from msgspec import Meta

from estiba.core.errors import BadArtifact, BadRequest, EstibaError
from estiba.model.registry.records import PRODUCTION, check_alias, numbers

HASH_VERSION = 1
"""The version of the function from a caller to its point, which must not change for a route that is in use."""

KEPT_GENERATIONS = 20
"""Records of a route that are kept, with the current one."""

MAX_REASON_CHARACTERS = 500

MAX_RULES = 20
"""Header rules of one route."""

_TOLERANCE = 1e-6
_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_STICKY_HINT = 'Write "header:NAME", "field:NAME", or "key" for the name of the API key.'


class HeaderRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A rule that comes before the weights: requests with this header and value go to the target."""

    header: str
    value: str
    target: str


class Range(NamedTuple):
    """A part of [0, 1), from the end of the one before it up to `until`, exclusive."""

    until: float
    target: str


class RouteOptions(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """A route as it is asked for: by `estiba route`, in the body of a PUT, or as `[gateway.routes.MODEL]`.

    Args:
        weights: percent by target, an alias or a version number; they add up to 100.
        sticky: `header:NAME`, `field:NAME` or `key`: the same caller always gets the same target. By default each
            request is drawn anew.
        shadow: a target that gets a copy of the requests after they are answered; its answers are never sent.
        when: requests with a header of this value go to the rule's target, before the weights.
    """

    weights: dict[str, Annotated[float, Meta(ge=0, le=100)]]
    sticky: str = ""
    shadow: str = ""
    when: Annotated[tuple[HeaderRule, ...], Meta(max_length=MAX_RULES)] = ()

    @property
    def targets(self) -> tuple[str, ...]:
        """The targets that answer requests: those with a weight, and those of rules."""
        return tuple(dict.fromkeys((*self.weights, *(rule.target for rule in self.when))))

    @property
    def every(self) -> tuple[str, ...]:
        """All targets, with that of the shadow."""
        return tuple(dict.fromkeys((*self.targets, *([self.shadow] if self.shadow else []))))


class StoredRoute(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A route of the registry.

    Args:
        generation: counts the changes of this model's route. options: None once the route was removed.
        ranges: which target has which part of [0, 1).
        experiment: the generation in which this route began; the points of callers depend on it.
        hash: HASH_VERSION of its time.
        updated: RFC 3339 in UTC. by: name of the key or user that changed it. reason: in their words.
    """

    name: str
    generation: int
    options: RouteOptions | None
    ranges: tuple[Range, ...] = ()
    experiment: int = 0
    hash: int = HASH_VERSION
    updated: str = ""
    by: str = ""
    reason: str = ""

    def document(self) -> dict[str, Any]:
        """Describe the change for JSON: to which route, by whom, when and why."""
        shown = None if self.options is None else msgspec.to_builtins(self.options)
        about = {"generation": self.generation, "updated": self.updated, "by": self.by, "reason": self.reason}
        return {**about, "route": shown}

    @property
    def salt(self) -> str:
        """Hexadecimal digits that callers' points depend on: others for each model and each experiment."""
        return salt_of(self.name, self.experiment)


def salt_of(name: str, experiment: int) -> str:
    return hashlib.sha256(f"{name}\0{experiment}".encode()).hexdigest()[:32]


def route_file(name: str, generation: int) -> str:
    return f"models/{name}/routes/{generation}.json"


def newest_route(files: Iterable[str]) -> int:
    """The newest generation among the files of a folder; 0 if there is none."""
    return max(numbers(files), default=0)


def encode_route(route: StoredRoute) -> bytes:
    """The record of a route; targets stay in their order."""
    return msgspec.json.format(msgspec.json.encode(route), indent=2) + b"\n"


def decode_route(data: bytes, url: str, name: str, generation: int) -> StoredRoute:
    """The record of a route in a registry at `url`. Raises BadArtifact, which names the file."""
    where = f"{url}/{route_file(name, generation)}"
    hint = f"Set the route of {name} again: estiba route {name} --reset"
    try:
        route = msgspec.json.decode(data, type=StoredRoute)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise BadArtifact(f"{where} is damaged: {error}", hint=hint) from error
    if (route.name, route.generation) != (name, generation):
        raise BadArtifact(f"{where} is the record of another route: {route.name}, {route.generation}.", hint=hint)
    if route.hash != HASH_VERSION:
        raise BadArtifact(f"{where} was written by a newer Estiba.", hint="Update Estiba.")
    return route


def sound_routes(files: Mapping[str, bytes], url: str, name: str) -> tuple[StoredRoute, ...]:
    """The records of a folder that are not damaged, the newest first."""
    found = []
    for generation in sorted(numbers(files), reverse=True):
        with suppress(BadArtifact):
            found.append(decode_route(files[f"{generation}.json"], url, name, generation))
    return tuple(found)


# Options


def check(options: RouteOptions) -> RouteOptions:
    """The same options, if a registry could have such a route.

    Raises:
        BadRequest: weights that do not add up, a target that cannot be one, an unknown kind of stickiness.
    """
    for target in options.every:
        check_target(target)
    total = sum(options.weights.values())
    if not options.weights or abs(total - 100) > _TOLERANCE:
        listed = " ".join(f"{target}={weight:g}" for target, weight in options.weights.items())
        raise BadRequest(
            f"The weights add up to {total:g}, not to 100: {listed or 'there is none'}.",
            hint="Weights are percent of the requests, such as production=95 candidate=5.",
        )
    check_sticky(options.sticky)
    seen: dict[tuple[str, str], str] = {}
    for rule in options.when:
        if not _HEADER.fullmatch(rule.header):
            raise BadRequest(f"{rule.header!r} cannot be the name of a header.")
        if rule.value != rule.value.strip() or not rule.value.isprintable() or not rule.value.isascii():
            raise BadRequest(f"{rule.value!r} cannot be the value of the header {rule.header}.")
        pair = (rule.header.lower(), rule.value)
        if pair in seen:
            raise BadRequest(f"Two rules are for {rule.header}={rule.value}.", hint="Keep one of them.")
        seen[pair] = rule.target
    return options


def check_reason(reason: str) -> str:
    """The reason for a change, without blanks around it; raises BadRequest where it is no line of text."""
    reason = reason.strip()
    if len(reason) > MAX_REASON_CHARACTERS or not reason.isprintable():
        raise BadRequest(f"A reason is one line of at most {MAX_REASON_CHARACTERS} characters.")
    return reason


def check_target(target: str) -> None:
    """Raise BadRequest unless `target` can be an alias or a version number."""
    if re.fullmatch(r"[1-9][0-9]{0,8}", target):
        return
    try:
        check_alias(target)
    except EstibaError as error:
        raise BadRequest(error.message, hint=error.hint) from None


def check_sticky(sticky: str) -> None:
    """Raise BadRequest for an unknown kind of stickiness."""
    kind, _, name = sticky.partition(":")
    if sticky in ("", "key") or (kind == "field" and name):
        return
    if kind == "header" and name:
        if not _HEADER.fullmatch(name):
            raise BadRequest(f"{name!r} cannot be the name of a header.", hint=_STICKY_HINT)
        return
    raise BadRequest(f"{sticky!r} is no kind of stickiness.", hint=_STICKY_HINT)


def read_weight(text: str) -> tuple[str, float]:
    """Read a weight such as `candidate=5`; raises BadRequest."""
    target, equals, number = text.partition("=")
    number = number.removesuffix("%")
    if not (target and equals and re.fullmatch(r"\d{1,3}(\.\d{1,9})?", number)):
        raise BadRequest(f"{text!r} is no weight.", hint="Write TARGET=PERCENT, such as candidate=5.")
    return target, float(number)


def read_weights(texts: Sequence[str]) -> dict[str, float]:
    """Read weights, one for each target; raises BadRequest."""
    weights: dict[str, float] = {}
    for text in texts:
        target, weight = read_weight(text)
        if target in weights:
            raise BadRequest(f"{target} has two weights.", hint="Give one weight for each target.")
        weights[target] = weight
    return weights


def read_rule(condition: str, target: str) -> HeaderRule:
    """Read a rule such as `header:X-Beta=1` for a target; raises BadRequest."""
    kind, _, rest = condition.partition(":")
    header, equals, value = rest.partition("=")
    if kind != "header" or not header or not equals:
        hint = "Write header:NAME=VALUE and the target, such as: --when header:X-Beta=1 candidate"
        raise BadRequest(f"{condition!r} is no condition.", hint=hint)
    return HeaderRule(header, value, target)


def rule_text(rule: HeaderRule) -> str:
    """The condition of a rule as `read_rule` takes it."""
    return f"header:{rule.header}={rule.value}"


# Ranges


def first_ranges(weights: Mapping[str, float]) -> tuple[Range, ...]:
    """Ranges without a history: candidates from 0 upwards in their order, and last `production`, or the first named."""
    total = sum(weights.values())
    base = PRODUCTION if PRODUCTION in weights else next(iter(weights))
    order = [target for target in weights if target != base] + [base]
    return _joined((weights[target] / total, target) for target in order)


def main_target(weights: Mapping[str, float]) -> str:
    """The target with the largest weight, the first one of several."""
    return max(weights, key=lambda target: weights[target])


def changed_ranges(old: Sequence[Range], weights: Mapping[str, float]) -> tuple[Range, ...]:
    """Ranges for other weights, in which as little as possible of [0, 1) changes its target.

    A target that shrinks gives up the upper end of what it has; those that grow take it, in the order of their names.
    """
    total = sum(weights.values())
    wanted = {target: weight / total for target, weight in weights.items()}
    kept: list[tuple[float, str | None]] = []  # widths; None is free
    left = dict(wanted)
    start = 0.0
    for until, target in old:
        width, start = until - start, until
        keep = min(width, left.get(target, 0.0))
        if target in left:
            left[target] -= keep
        kept += [(keep, target), (width - keep, None)]
    growing = [(target, share) for target, share in sorted(left.items()) if share > 0]
    pieces: list[tuple[float, str]] = []
    for width, owner in kept:
        if owner is not None:
            pieces.append((width, owner))
            continue
        while width > 0 and growing:
            target, share = growing[0]
            part = min(width, share)
            pieces.append((part, target))
            width -= part
            growing[0] = (target, share - part)
            if share - part <= 0:
                growing.pop(0)
    return _joined(pieces)


def _joined(pieces: Iterable[tuple[float, str]]) -> tuple[Range, ...]:
    """Ranges of these widths, neighbours of one target joined; rounding goes to the last one, which ends at 1."""
    ranges: list[Range] = []
    end = 0.0
    for width, target in pieces:
        if width <= 1e-12:
            continue
        end += width
        if ranges and ranges[-1].target == target:
            ranges.pop()
        ranges.append(Range(end, target))
    return (*ranges[:-1], Range(1.0, ranges[-1].target))
