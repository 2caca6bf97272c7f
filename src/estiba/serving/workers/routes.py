"""Build the routes of a catalog from a configuration. A route that has not changed is used again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, cast

from estiba.serving.batcher import Batcher
from estiba.serving.catalog import Deployment, Route, Target
from estiba.serving.field_split import FieldSplit
from estiba.serving.pipeline import Pipeline
from estiba.serving.route_spec import RouteSpec
from estiba.serving.routing import Shares, Unit, chooser, field_unit, header_unit, key_unit, weighed
from estiba.serving.shadow import Shadow


class BuiltRoute(NamedTuple):
    """A route in force, and what it was built from. `members` are the deployments that it names, by version."""

    spec: RouteSpec
    members: Mapping[str, Deployment]
    route: Route
    shadow: Shadow | None = None

    @property
    def split(self) -> FieldSplit | None:
        """Chooses by a field, for a route that is sticky by one."""
        batchers: Iterable[object] = (endpoint.batcher for endpoint in self.route.endpoints.values())
        return next((batcher for batcher in batchers if isinstance(batcher, FieldSplit)), None)

    def attach(self, pipeline: Pipeline) -> None:
        """Let the shadow see the batches of the versions that answer, after all other observers."""
        for deployment in self.members.values():
            observe = pipeline.observe
            if self.shadow is not None and deployment is not self.shadow.deployment:
                observe = (*observe, self.shadow.observe)
            deployment.batcher.pipeline = pipeline.of(deployment.model)._replace(observe=observe)
        if self.split is not None:
            self.split.use(pipeline)


def build_route(spec: RouteSpec, members: Mapping[str, Deployment]) -> Route:
    """The route that a specification describes."""
    ordered = sorted(spec.targets, key=lambda target: -target.weight)
    targets = {
        each.variant: Target(members[each.version], members[each.version].endpoints_of(each.variant))
        for each in ordered
    }
    shadow = members[spec.shadow.version] if spec.shadow is not None else None
    main, every = targets[ordered[0].variant], tuple(targets.values())
    shares = _shares(spec, targets)
    rules = [(name.encode(), value.encode(), targets[variant]) for name, value, variant in spec.rules]
    kind, _, name = spec.sticky.partition(":")
    if len(shares) == 1 and not rules:
        only = shares[0][1]
        return Route(spec.name, every, only.endpoints, None, shadow, spec)
    unit = _unit(kind, name, main)
    choose = chooser(Shares(shares), unit if len(shares) > 1 else None, bytes.fromhex(spec.salt), rules)
    if kind == "field":
        split = FieldSplit(main.deployment.model, every, choose)
        before = main.deployment.endpoints_before(cast(Batcher, split))
        return Route(spec.name, every, before, None, shadow, spec)
    return Route(spec.name, every, main.deployment.endpoints, choose, shadow, spec)


def _shares(spec: RouteSpec, targets: Mapping[str, Target]) -> Sequence[tuple[float, Target]]:
    ranges = spec.ranges or weighed({each.variant: each.weight for each in spec.targets if each.weight})
    return [(until, targets[variant]) for until, variant in ranges]


def _unit(kind: str, name: str, main: Target) -> Unit | None:
    match kind:
        case "header":
            return header_unit(name)
        case "key":
            return key_unit
        case "field":
            return field_unit(name, main.deployment.model)
    return None
