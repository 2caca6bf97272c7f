"""Read and change the route of a model over HTTP: the documents, without the framework."""

from __future__ import annotations

from typing import Any

import msgspec

from estiba.core.errors import BadRequest, Conflict, EstibaError, NotFound, Unavailable
from estiba.model.registry import routes
from estiba.model.registry.registry import open_registry
from estiba.model.registry.route_record import RouteOptions
from estiba.model.registry.routes import Change
from estiba.serving.catalog import Catalog
from estiba.serving.pipeline import Forbidden
from estiba.serving.route_spec import RouteHome, RouteSpec, RouteTarget

_FORM = '{"weights": {"production": 95, "candidate": 5}}'


class PreconditionFailed(EstibaError):
    """The route is not the one that the caller has seen (RFC 9110, section 13.1.1)."""

    status = 412


def describe(catalog: Catalog, name: str, home: RouteHome | None) -> dict[str, Any]:
    """The route that this server follows; without one, its version alone answers. Raises NotFound."""
    route = catalog.route(name)
    spec = route.spec
    about: dict[str, Any] = {"model": name, "decided_by": None, "version": route.primary.model.version}
    if spec is None:
        return {**about, "targets": []}
    pinned = home is not None and name in home.pinned
    shown: dict[str, Any] = {"decided_by": "file" if pinned else "registry"}
    if not pinned:
        shown["generation"] = spec.generation
    return {**about, **shown, **_shares(spec)}


def _shares(spec: RouteSpec) -> dict[str, Any]:
    rules = [{"header": header, "value": value, "target": target} for header, value, target in spec.rules]
    return {
        "targets": [_target(target) for target in spec.targets],
        "sticky": spec.sticky,
        "shadow": None if spec.shadow is None else {"target": spec.shadow.variant, "version": spec.shadow.version},
        "when": rules,
    }


def _target(target: RouteTarget) -> dict[str, Any]:
    return {"target": target.variant, "version": target.version, "weight": target.weight}


def entity_tag(catalog: Catalog, name: str) -> str:
    """The ETag of the route in force; empty without one of the registry."""
    spec = catalog.route(name).spec
    return f'"{spec.generation}"' if spec is not None and spec.generation else ""


def expected_generation(if_match: str | None) -> int | None:
    """The generation of an If-Match header; None for any. Raises BadRequest."""
    if if_match in (None, "*"):
        return None
    number = if_match.strip().strip('"')
    if not (number.isascii() and number.isdigit() and len(number) < 10):
        raise BadRequest(f"{if_match!r} is no ETag of a route.", hint="Send the ETag of GET, or leave If-Match out.")
    return int(number)


def read_options(body: bytes) -> RouteOptions:
    """The route in the body of a PUT; raises BadRequest."""
    try:
        return msgspec.json.decode(body, type=RouteOptions)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise BadRequest(f"The body is no route: {error}.", hint=f"Send JSON such as {_FORM}") from None


def history(home: RouteHome | None, name: str) -> dict[str, Any]:
    """The changes of a served model's route in the registry, the newest first. Blocks; raises Unavailable."""
    if home is None:
        return {"model": name, "changes": []}
    try:
        changes = routes.history(open_registry(home.registry), name)
    except NotFound:  # it is served from a path, or was removed from the registry
        changes = ()
    except EstibaError as error:
        raise Unavailable(error.message, hint=error.hint) from None
    return {"model": name, "changes": [each.document() for each in changes]}


def change(home: RouteHome | None, name: str, options: RouteOptions | None, change: Change) -> int:
    """Set the route of a served model, or remove it for None; the generation of the registry's record. Blocks.

    Raises:
        Forbidden: this server does not take changes. Conflict: the project file decides, or another change was faster.
        BadRequest: the route is not valid. Unavailable: the registry cannot be written.
    """
    if home is not None and name in home.pinned:
        hint = f"Change [gateway.routes.{name}] there, and deploy."
        raise Conflict(f"The project file decides the route of {name}.", hint=hint)
    if home is None or not home.writable:
        hint = "Use: estiba route, on a machine that reaches the registry."
        raise Forbidden("This server asks for no keys, so it takes changes from its own machine only.", hint=hint)
    registry = open_registry(home.registry)
    try:
        if options is None:
            routes.reset_route(registry, name, change)
        else:
            routes.set_route(registry, name, options, change)
        return registry.route_generation(name)
    except NotFound as error:  # of a target: the model itself is served
        raise BadRequest(error.message, hint=error.hint) from None
    except Conflict as error:
        if change.expected is None:
            raise
        raise PreconditionFailed(error.message, hint=error.hint) from None
    except (BadRequest, Unavailable):
        raise
    except EstibaError as error:
        raise Unavailable(error.message, hint=error.hint) from None
