"""Choose the target of a route for each request: by a rule for a header, by the caller's point, or at random.

A caller's point in [0, 1) is the BLAKE2b hash of what identifies it, keyed with the route's salt (RFC 7693). A target
answers the callers whose points are in its ranges. So a caller stays with its target while the ranges do.
"""

from __future__ import annotations

import hashlib
import math
import random
import struct
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from typing import Generic, TypeVar

from estiba.model.coding.coder import Coded
from estiba.model.inference.load import Model
from estiba.serving.exchange import Exchange

Choice = TypeVar("Choice")

Unit = Callable[[Exchange], bytes]
"""The bytes that identify the caller of a request; empty if it is not known: then the request is drawn at random."""

_DIGEST_BYTES = 8


def point(unit: bytes, salt: bytes) -> float:
    """The point of a caller in [0, 1)."""
    digest = hashlib.blake2b(unit, digest_size=_DIGEST_BYTES, key=salt).digest()
    return (int.from_bytes(digest) >> 11) / 2.0**53  # 53 bits, or the largest would round up to 1


class Shares(Generic[Choice]):
    """Targets by their ranges of [0, 1)."""

    def __init__(self, ranges: Sequence[tuple[float, Choice]]) -> None:
        """Take the upper ends of the ranges, rising up to 1, with their targets."""
        self._ends = [until for until, _ in ranges[:-1]]
        self._choices = [choice for _, choice in ranges]

    def at(self, where: float) -> Choice:
        return self._choices[bisect_right(self._ends, where)]

    def draw(self, exchange: Exchange) -> Choice:
        """Draw a target by weight."""
        return self._choices[bisect_right(self._ends, random.random())]


def weighed(weights: Mapping[str, float]) -> tuple[tuple[float, str], ...]:
    """Ranges of weights, in order."""
    total, end, ranges = sum(weights.values()), 0.0, []
    for name, weight in weights.items():
        end += weight / total
        ranges.append((end, name))
    return tuple(ranges)


def chooser(
    shares: Shares[Choice], unit: Unit | None, salt: bytes, rules: Sequence[tuple[bytes, bytes, Choice]]
) -> Callable[[Exchange], Choice]:
    """The function that chooses a target, with no more steps than the route has.

    Args:
        unit: identifies what a route is sticky by; None for a route that is not.
        rules: headers, their values and targets.
    """
    choose = shares.draw if unit is None else _sticky(shares, unit, salt)
    return _ruled(choose, rules) if rules else choose


def _sticky(shares: Shares[Choice], unit: Unit, salt: bytes) -> Callable[[Exchange], Choice]:
    def choose(exchange: Exchange) -> Choice:
        known = unit(exchange)
        return shares.at(point(known, salt)) if known else shares.draw(exchange)

    return choose


def _ruled(
    choose: Callable[[Exchange], Choice], rules: Sequence[tuple[bytes, bytes, Choice]]
) -> Callable[[Exchange], Choice]:
    targets = {(header, value): choice for header, value, choice in rules}

    def choose_by_rule(exchange: Exchange) -> Choice:
        for header in exchange.request.headers:
            if header in targets:
                return targets[header]
        return choose(exchange)

    return choose_by_rule


def header_unit(name: str) -> Unit:
    """Identify callers by the first header of that name."""
    wanted = name.lower().encode()
    prefix = b"header\0"

    def unit(exchange: Exchange) -> bytes:
        value = exchange.request.header(wanted)
        return prefix + value if value else b""

    return unit


def key_unit(exchange: Exchange) -> bytes:
    """Identify callers by the name of their API key."""
    return b"key\0" + exchange.caller.encode() if exchange.caller else b""


def field_unit(name: str, model: Model) -> Unit:
    """Identify callers by a value of the first row, once it is decoded: of a field, or one that the model keeps."""
    signature = model.signature
    if name not in signature.names:
        return lambda exchange: _plain(_kept(model, exchange, name))
    index = signature.names.index(name)
    if signature.fields[index].kind == "text":
        return lambda exchange: _plain(_coded(model, exchange).texts[name][0])
    if signature.fields[index].kind == "category":
        return lambda exchange: _plain(next(iter(model.coder.values(_coded(model, exchange))))[index])
    return lambda exchange: _number(float(_coded(model, exchange).matrix[0, index]))


def _coded(model: Model, exchange: Exchange) -> Coded:
    if exchange.coded is None:
        return model.coder.pack(exchange.records[:1])
    return exchange.coded


def _kept(model: Model, exchange: Exchange, name: str) -> object:
    coded = exchange.coded
    values = model.coder.kept(exchange.records[:1]) if coded is None else coded.kept
    return values[name][0]


def _number(value: float) -> bytes:
    """One form for a number, whatever the protocol sent; empty for a missing one."""
    return b"" if math.isnan(value) else b"field\0" + struct.pack("=d", value + 0.0)  # -0.0 becomes 0.0


def _plain(value: object) -> bytes:
    if value is None or value != value:
        return b""
    if isinstance(value, int | float):  # also booleans; 1 and 1.0 are one caller
        return _number(float(value))
    return b"field\0" + str(value).encode(errors="surrogatepass")
