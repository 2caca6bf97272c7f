"""Resolve the versions of models that the servers of a plan hold."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from estiba.core.errors import BadProject, BadRequest, NotFound
from estiba.deploy.plan.plan import PlannedModel
from estiba.model.registry import routes
from estiba.model.registry.records import PRODUCTION, Ref, Version
from estiba.model.registry.registry import Registry
from estiba.model.registry.route_record import RouteOptions


def resolve(store: Registry, ref: str, hint: str) -> PlannedModel:
    """The version that a reference names now; raises NotFound with the hint, or BadArtifact."""
    try:
        version = store.resolve(ref)
    except NotFound as error:
        raise NotFound(error.message, hint=hint) from None
    return _planned(store, version)


def routed(store: Registry, main: PlannedModel, route: RouteOptions) -> Iterator[PlannedModel]:
    """The versions that a model's route names, beside the one that its name means, which is the first.

    Each has the aliases under which a server has to find it.

    Raises:
        BadProject: the route cannot be followed: a target is missing, or its version has another signature.
    """
    try:
        targets = routes.versions(store, main.name, route)
    except (BadRequest, NotFound) as error:
        raise BadProject(f"gateway.routes.{main.name}: {error.message}", hint=error.hint) from None
    number = int(main.version)
    versions = {number: store.resolve(Ref(main.name, number))} | {each.version: each for each in targets.values()}
    aliases = _aliases(targets, number)
    for each, version in versions.items():
        yield _planned(store, version, aliases[each])


def _aliases(targets: Mapping[str, Version], main: int) -> dict[int, tuple[str, ...]]:
    """By version, its aliases; the model's name means production, as without that alias it would be the newest."""
    by_alias = {target: version.version for target, version in targets.items() if not target.isdigit()}
    by_alias[PRODUCTION] = main
    numbers = {main, *(version.version for version in targets.values())}
    return {number: tuple(sorted(a for a, named in by_alias.items() if named == number)) for number in numbers}


def contents(models: Iterable[PlannedModel]) -> list[str]:
    """The parts of an image's tag that its models are."""
    return [" ".join((model.digest, *_named(model))) for model in models]


def _named(model: PlannedModel) -> tuple[str, ...]:
    """The number and aliases of a version that a route names: an image has another one once they change."""
    return (model.version, *model.aliases) if model.aliases or model.routed else ()


def _planned(store: Registry, version: Version, aliases: tuple[str, ...] | None = None) -> PlannedModel:
    artifact = store.fetch(version)
    manifest = artifact.manifest
    pickled = f"a pickle, {manifest.model_file}" if manifest.format == "joblib" else ""
    return PlannedModel(
        version.name,
        str(version.version),
        artifact.digest,
        artifact.path,
        manifest.engine,
        manifest.libraries,
        sum(entry.bytes for entry in manifest.files),
        manifest.code_summary or pickled,  # whoever writes a manifest may leave out what its pickle holds
        split=bool(manifest.tail),
        aliases=aliases or (),
        routed=aliases is not None,
    )
