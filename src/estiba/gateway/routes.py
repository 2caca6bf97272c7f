"""Find the route that a server follows, in the registry or in the project file, and the versions that it means."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from estiba.core.errors import BadProject, BadRequest
from estiba.core.suggest import did_you_mean
from estiba.model.registry import routes
from estiba.model.registry.records import PRODUCTION, Ref, Version
from estiba.model.registry.registry import Registry
from estiba.model.registry.route_record import Range, RouteOptions, check, first_ranges, salt_of
from estiba.serving.route_spec import RouteSpec, RouteTarget

SECTION = "gateway.routes"


def check_pinned(pinned: Mapping[str, RouteOptions], models: Iterable[str]) -> None:
    """Check `[gateway.routes]` of the project file; raises BadProject."""
    known = list(models)
    for name, options in pinned.items():
        if name not in known:
            hint = f"Models: {', '.join(known) or 'none'}."
            raise BadProject(f"{SECTION}.{name}: there is no model {name!r}{did_you_mean(name, known)}", hint=hint)
        try:
            check(options)
        except BadRequest as error:
            raise BadProject(f"{SECTION}.{name}: {error.message}", hint=error.hint) from None


def follows_route(ref: str) -> bool:
    """Return True if a server of this reference follows the model's route: for a bare name and the alias production."""
    return "/" not in ref and Ref.parse(ref).selector in (None, PRODUCTION)


def route_of(
    registry: Registry, name: str, pinned: Mapping[str, RouteOptions]
) -> tuple[RouteSpec, dict[str, Version]] | None:
    """The route of a model and the versions of its targets now; None if it has none.

    Raises:
        NotFound, BadRequest, BadArtifact: it cannot be followed. EstibaError: the registry cannot be read.
    """
    if name in pinned:
        options = pinned[name]
        versions = routes.versions(registry, name, options)
        return _spec(name, options, first_ranges(options.weights), versions, salt_of(name, 0)), versions
    stored = registry.route(name)
    if stored is None or stored.options is None:
        return None
    versions = routes.versions(registry, name, stored.options)
    spec = _spec(name, stored.options, stored.ranges, versions, stored.salt, stored.generation)
    return spec, versions


def _spec(
    name: str,
    options: RouteOptions,
    ranges: Iterable[Range],
    versions: Mapping[str, Version],
    salt: str,
    generation: int = 0,
) -> RouteSpec:
    def target(variant: str) -> RouteTarget:
        return RouteTarget(variant, str(versions[variant].version), options.weights.get(variant, 0.0))

    return RouteSpec(
        name=name,
        targets=tuple(target(variant) for variant in options.targets),
        ranges=tuple((part.until, part.target) for part in ranges),
        sticky=options.sticky,
        salt=salt,
        shadow=target(options.shadow) if options.shadow else None,
        rules=tuple((rule.header.lower(), rule.value, rule.target) for rule in options.when),
        generation=generation,
    )
