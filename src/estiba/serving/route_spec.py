"""Routes as the processes of a server pass them on: versions and their shares of a model's requests."""

from __future__ import annotations

import msgspec


class RouteTarget(msgspec.Struct, frozen=True):
    """A version that a route names.

    Args:
        variant: the alias or number by which it names it.
        weight: its share of the requests, relative to those of the other targets.
    """

    variant: str
    version: str
    weight: float = 0.0


class RouteSpec(msgspec.Struct, frozen=True):
    """The shares of a model's versions in its requests.

    Args:
        targets: that answer requests; the one with the largest weight represents the model.
        ranges: upper ends of parts of [0, 1), each with its variant; by default as the weights say, in order.
        sticky: `header:NAME`, `field:NAME` or `key`; empty to draw each request anew.
        salt: hexadecimal digits that callers' points in [0, 1) depend on.
        shadow: a version that gets a copy of the requests.
        rules: headers in lower case, their values, and the variant that gets such requests before the weights.
        generation: of the registry's record; 0 where the project file decides.
    """

    name: str
    targets: tuple[RouteTarget, ...]
    ranges: tuple[tuple[float, str], ...] = ()
    sticky: str = ""
    salt: str = ""
    shadow: RouteTarget | None = None
    rules: tuple[tuple[str, str, str], ...] = ()
    generation: int = 0

    @property
    def every(self) -> tuple[RouteTarget, ...]:
        """All targets, with the shadow."""
        return self.targets if self.shadow is None else (*self.targets, self.shadow)


class RouteHome(msgspec.Struct, frozen=True):
    """The registry of the routes that a server follows.

    Args:
        registry: folder or URL.
        pinned: models whose route the project file decides.
        writable: clients may change routes: only where they need a key, or are on this machine.
    """

    registry: str
    pinned: tuple[str, ...] = ()
    writable: bool = False
