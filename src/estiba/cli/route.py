"""estiba route."""

from __future__ import annotations

import getpass
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from estiba.cli import common_options, completion, terminal
from estiba.cli.common_options import json_option, registry_option
from estiba.core.errors import BadRequest, Conflict, EstibaError, NotFound
from estiba.core.language import translated

if TYPE_CHECKING:
    from collections.abc import Sequence

    from estiba.model.registry.registry import Registry, Version
    from estiba.model.registry.route_record import RouteOptions, StoredRoute


class _Pinned(NamedTuple):
    """A route of the project file, and the line where it is."""

    options: RouteOptions
    line: str


@click.command(
    epilog="""\b
Examples:
  estiba route bankchurn                                  show the route
  estiba route bankchurn production=95 candidate=5        a canary
  estiba route bankchurn production=80 candidate=20 --sticky header:X-User
  estiba route bankchurn production=100 --shadow candidate
  estiba route bankchurn production=100 candidate=0 --when header:X-Beta=1 candidate
  estiba route bankchurn --reset                          one version answers all again
  estiba route bankchurn production=100 --reason "candidate is slow"
  estiba route bankchurn --history                        who changed it, when and why
"""
)
@click.argument("model", shell_complete=completion.refs)
@click.argument("weights", metavar="[TARGET=PERCENT]...", nargs=-1)
@click.option(
    "--sticky",
    default="",
    metavar="BY",
    help="Keep callers with their target: header:NAME, field:NAME, or key for the name of the API key.",
)
@click.option("--shadow", default="", metavar="TARGET", help="Copy requests to this target; nobody gets its answers.")
@click.option(
    "--when",
    "rules",
    nargs=2,
    multiple=True,
    metavar="header:NAME=VALUE TARGET",
    help="Send requests with this header to the target, before the weights; may be repeated.",
)
@click.option("--reset", is_flag=True, help="Remove the route.")
@click.option("--reason", default="", metavar="TEXT", help="Why it is changed, for the history.")
@click.option("--history", is_flag=True, help="Show the latest 20 changes.")
@registry_option
@json_option
def route(model: str, weights: tuple[str, ...], registry: str | None, as_json: bool, **given: Any) -> None:
    """Choose which version of a model answers which requests.

    TARGET is an alias or a version number; the weights add up to 100. Servers follow within a second, once every worker
    has loaded and proven the versions. Without weights, show the route.
    """
    from estiba.model.registry.records import check_name
    from estiba.model.registry.registry import open_registry

    check_name(model)
    location = common_options.registry_location(registry)
    store, pinned = open_registry(location), _pinned(model, location)
    options, reset = _options(weights, given), given["reset"]
    if given["history"]:
        _show_history(store, model, pinned, as_json)
        return
    if options is None and not reset:
        _show(store, model, pinned, as_json)
        return
    if pinned is not None:
        hint = f"Change [gateway.routes.{model}] there; servers take it at their next start or deployment."
        raise Conflict(f"{pinned.line} decides the route of {model}, so it was not changed.", hint=hint)
    _change(store, model, options, given["reason"])
    if as_json or options is not None:
        _show(store, model, None, as_json)
    else:
        terminal.line(f"{model} has no route now: {store.resolve(model)} answers all requests.")


def _options(weights: Sequence[str], given: dict[str, Any]) -> RouteOptions | None:
    """The route that the arguments describe; None without any. Raises BadRequest."""
    from estiba.model.registry.route_record import RouteOptions, read_rule, read_weights

    described = bool(weights or given["sticky"] or given["shadow"] or given["rules"])
    if given["reset"] and described:
        raise click.UsageError("--reset takes nothing else than --reason.")
    if given["history"] and (described or given["reset"] or given["reason"]):
        raise click.UsageError("--history changes nothing, so it takes nothing else.")
    if given["reason"] and not (described or given["reset"]):
        raise click.UsageError("--reason belongs to a change: give weights, or --reset.")
    if not described:
        return None
    if not weights:
        raise BadRequest("The weights are missing.", hint="Give them all, such as: production=95 candidate=5")
    rules = tuple(read_rule(condition, target) for condition, target in given["rules"])
    return RouteOptions(weights=read_weights(weights), sticky=given["sticky"], shadow=given["shadow"], when=rules)


def _change(store: Registry, model: str, options: RouteOptions | None, reason: str) -> None:
    from estiba.model.registry.routes import Change, reset_route, set_route

    change = Change(by=_user(), reason=reason)
    if options is not None:
        set_route(store, model, options, change)
    elif not reset_route(store, model, change):
        raise NotFound(f"{model} has no route.", hint="Nothing was changed.")


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        return ""


def _pinned(model: str, location: str) -> _Pinned | None:
    """The route of the project file, if there is one and it is for this registry."""
    from estiba import project

    try:
        loaded = project.load(project.find())
    except NotFound:
        return None
    if model not in loaded.gateway.routes or loaded.registry != location:
        return None
    return _Pinned(loaded.gateway.routes[model], _line(loaded.file, model))


def _line(file: Path, model: str) -> str:
    """The file and the line of a model's route in it."""
    section = re.compile(rf"\s*\[gateway\.routes\.[\"']?{re.escape(model)}[\"']?\]")
    lines = file.read_text().splitlines()
    line = next((number for number, text in enumerate(lines, start=1) if section.match(text)), None)
    return f"{file}:{line}" if line else str(file)


def _show(store: Registry, model: str, pinned: _Pinned | None, as_json: bool) -> None:
    from estiba.model.registry.routes import current, versions

    stored = None if pinned else current(store, model)
    options = pinned.options if pinned else stored.options if stored else None
    if options is None:
        if as_json:
            terminal.json(
                {"model": model, "decided_by": None, "version": str(store.resolve(model).version), "targets": []}
            )
        else:
            terminal.line(f"{model} has no route: {store.resolve(model)} answers all requests.")
        return
    problem, resolved = "", {}
    try:
        resolved = versions(store, model, options)
    except EstibaError as error:
        problem = error.message
    if as_json:
        terminal.json(_document(model, options, resolved, stored, problem))
        return
    heads = ("target", "version", "percent", "answers")
    terminal.table(heads, _rows(options, resolved), right=("percent",))
    if options.sticky:
        terminal.line(f"Sticky by {options.sticky}.")
    if pinned:
        terminal.line(f"{pinned.line} decides.")
    elif stored is not None:
        changed = f"Change {stored.generation}, {_minute(stored)} UTC"
        terminal.line(f"{changed}, by {stored.by}." if stored.by else f"{changed}.")
        if stored.reason:
            terminal.line(f"Reason: {stored.reason}")
    if problem:
        terminal.warning(f"Servers keep the route that they had: {problem}")


def _minute(stored: StoredRoute) -> str:
    return stored.updated[:16].replace("T", " ")


def _show_history(store: Registry, model: str, pinned: _Pinned | None, as_json: bool) -> None:
    from estiba.model.registry.routes import history

    changes = history(store, model)
    if as_json:
        terminal.json([change.document() for change in changes])
        return
    if changes:
        heads = ("change", "date (UTC)", "by", "route", "reason")
        rows = [(str(each.generation), _minute(each), each.by, _as_arguments(each), each.reason) for each in changes]
        terminal.table(heads, rows, right=("change",))
    else:
        terminal.line(f"The route of {model} was never changed in this registry.")
    if pinned:
        terminal.line(f"{pinned.line} decides.")


def _as_arguments(stored: StoredRoute) -> str:
    """A route as arguments of the command."""
    from estiba.model.registry.route_record import rule_text

    options = stored.options
    if options is None:
        return "--reset"
    arguments = [f"{target}={weight:g}" for target, weight in options.weights.items()]
    arguments += [f"--sticky {options.sticky}"] if options.sticky else []
    arguments += [f"--shadow {options.shadow}"] if options.shadow else []
    arguments += [f"--when {rule_text(rule)} {rule.target}" for rule in options.when]
    return " ".join(arguments)


def _rows(options: RouteOptions, resolved: dict[str, Version]) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for target in options.every:
        version = str(resolved[target].version) if target in resolved else "?"
        rules = [f"{rule.header}: {rule.value}" for rule in options.when if rule.target == target]
        weight = options.weights.get(target, 0)
        uses = [*([translated("its share")] if weight else []), *rules]
        uses += [translated("nobody, as a shadow")] if target == options.shadow else []
        rows.append((target, version, f"{weight:g}" if target in options.weights else "", ", ".join(uses)))
    return rows


def _document(
    model: str, options: RouteOptions, resolved: dict[str, Version], stored: StoredRoute | None, problem: str
) -> dict[str, Any]:
    import msgspec

    def about(target: str) -> dict[str, Any]:
        return {"target": target, "version": str(resolved[target].version) if target in resolved else None}

    record = {"generation": stored.generation, "updated": stored.updated, "by": stored.by} if stored else {}
    record |= {"reason": stored.reason} if stored and stored.reason else {}
    return {
        "model": model,
        "decided_by": "registry" if stored else "file",
        **record,
        "targets": [{**about(target), "weight": options.weights.get(target, 0.0)} for target in options.targets],
        "sticky": options.sticky,
        "shadow": about(options.shadow) if options.shadow else None,
        "when": msgspec.to_builtins(options.when),
        **({"problem": problem} if problem else {}),
    }
