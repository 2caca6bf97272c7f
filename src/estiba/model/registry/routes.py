"""Change the route of a model in a registry, and find the versions that it means now."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from estiba.core.errors import BadArtifact, BadRequest, Conflict
from estiba.core.suggest import did_you_mean
from estiba.model.registry.records import Ref, Version, now
from estiba.model.registry.registry import Registry
from estiba.model.registry.route_record import (
    RouteOptions,
    StoredRoute,
    changed_ranges,
    check,
    check_reason,
    first_ranges,
    main_target,
)
from estiba.model.schema.signature import Signature
from estiba.model.schema.signature_difference import differences, listed


class Change(NamedTuple):
    """The circumstances of a change.

    Args:
        by: name of the key or user. expected: the generation that the caller has seen; None for any.
        reason: in the words of who changes it.
    """

    by: str = ""
    expected: int | None = None
    reason: str = ""


NO_CHANGE = Change()


def current(registry: Registry, name: str) -> StoredRoute | None:
    """The route of a model; None if it has none.

    Raises:
        NotFound: there is no such model. BadArtifact: the record is damaged; names the file.
    """
    route = registry.route(name)
    if route is None or route.options is None:
        registry.resolve(Ref(name))
        return None
    return route


def history(registry: Registry, name: str) -> tuple[StoredRoute, ...]:
    """The changes of a model's route that are kept, the newest first; raises NotFound where there is no such model."""
    registry.resolve(Ref(name))
    return registry.route_history(name)


def set_route(registry: Registry, name: str, options: RouteOptions, change: Change = NO_CHANGE) -> StoredRoute:
    """Give a model another route. Callers stay with their target as far as the weights allow.

    Raises:
        BadRequest: the options are not valid, or the versions have different signatures. NotFound: no such model,
            version or alias. Conflict: the route was changed meanwhile. EstibaError: the registry cannot be written.
    """
    versions(registry, name, check(options))
    reason = check_reason(change.reason)
    before, generation = _before(registry, name, change)
    if before is None or before.options is None:
        ranges, experiment = first_ranges(options.weights), generation + 1
    else:
        ranges, experiment = changed_ranges(before.ranges, options.weights), before.experiment
    route = StoredRoute(
        name=name,
        generation=generation + 1,
        options=options,
        ranges=ranges,
        experiment=experiment,
        updated=now(),
        by=change.by,
        reason=reason,
    )
    _put(registry, route)
    return route


def reset_route(registry: Registry, name: str, change: Change = NO_CHANGE) -> bool:
    """Remove the route of a model, also one whose record is damaged; False if it has none.

    Raises:
        NotFound: there is no such model. Conflict: the route was changed meanwhile. BadRequest: a reason of two lines.
    """
    registry.resolve(Ref(name))
    reason = check_reason(change.reason)
    before, generation = _before(registry, name, change)
    if not generation or (before is not None and before.options is None):
        return False
    after = StoredRoute(name=name, generation=generation + 1, options=None, updated=now())
    _put(registry, msgspec.structs.replace(after, by=change.by, reason=reason))
    return True


def _before(registry: Registry, name: str, change: Change) -> tuple[StoredRoute | None, int]:
    """The record before a change, None if it cannot be read, and its generation."""
    try:
        before = registry.route(name)
        generation = 0 if before is None else before.generation
    except BadArtifact:
        before, generation = None, registry.route_generation(name)
    if change.expected not in (None, generation):
        raise _changed(name)
    return before, generation


def _put(registry: Registry, route: StoredRoute) -> None:
    try:
        registry.put_route(route)
    except Conflict:
        raise _changed(route.name) from None


def _changed(name: str) -> Conflict:
    hint = f"Look at it (estiba route {name}), and try again."
    return Conflict(f"The route of {name} was changed by somebody else meanwhile; this change was not made.", hint=hint)


def versions(registry: Registry, name: str, options: RouteOptions) -> dict[str, Version]:
    """The version of each target of a route, that of the shadow included.

    Raises:
        NotFound: no such model, version or alias. BadRequest: signatures differ, or there is no field to be sticky by.
    """
    registry.resolve(Ref(name))
    by_target = {target: registry.resolve(Ref.parse(f"{name}@{target}")) for target in options.every}
    main = main_target(options.weights)
    signature = registry.manifest(by_target[main]).signature
    for target, version in by_target.items():
        if version.digest == by_target[main].digest:
            continue
        other = differences(signature, registry.manifest(version).signature)
        if other:
            raise BadRequest(
                f"{target} ({version}) has another signature than {main} ({by_target[main]}): {listed(other)}.",
                hint="A route shares requests between versions that take the same rows and answer in the same form.",
            )
    _check_sticky(name, options.sticky, signature)
    return by_target


def _check_sticky(name: str, sticky: str, signature: Signature) -> None:
    kind, _, field = sticky.partition(":")
    if kind != "field":
        return
    if signature.is_tensors:
        raise BadRequest(f"{name} takes tensors, which have no field to be sticky by.", hint="Use header:NAME or key.")
    known = [*signature.names, *signature.keep]
    if field not in known:
        raise BadRequest(
            f"{name} has no field {field!r} to be sticky by{did_you_mean(field, known)}",
            hint=f"Fields: {', '.join(known)}. A value that is no input is read if the model keeps it: keep = [...].",
        )
