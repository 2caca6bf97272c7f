"""estiba models."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from estiba.cli import common_options, completion, model_table, terminal
from estiba.cli.common_options import json_option, registry_option
from estiba.cli.group import Group
from estiba.core.language import translated

if TYPE_CHECKING:
    from estiba.model.artifact.artifact import Manifest
    from estiba.model.artifact.profile import Profile
    from estiba.model.registry.registry import Registry
    from estiba.model.schema.signature import Signature
    from estiba.model.schema.tensor_types import TensorOutput

MAX_SHOWN_OUTPUTS = 20


@click.group(
    cls=Group,
    invoke_without_command=True,
    epilog="""\b
Examples:
  estiba models                                  every model, version and alias
  estiba models --json                           the same for scripts
  estiba models show bankchurn                   all facts about a model
  estiba models alias bankchurn@3 production     serve version 3 from now on
  estiba models export bankchurn@3 bank.estiba   one file, for another machine
""",
)
@registry_option
@json_option
@click.pass_context
def models(context: click.Context, registry: str | None, as_json: bool) -> None:
    """List, show, copy and remove models of the registry."""
    below = context.invoked_subcommand
    if below is None:
        context.invoke(list_, registry=registry, as_json=as_json)
    elif registry is not None or as_json:
        option = "--json" if as_json else "--registry"
        raise click.UsageError(f"Put {option} behind the command: estiba models {below} {option}", context)


@models.command("list", epilog="\b\nExamples:\n  estiba models list\n  estiba models list --json")
@registry_option
@json_option
def list_(registry: str | None = None, as_json: bool = False) -> None:
    """List every model, its versions and aliases."""
    store = _store(registry)
    listed = {name: (store.versions(name), store.aliases(name)) for name in store.list()}
    if as_json:
        terminal.json(
            [{"name": n, "versions": versions, "aliases": aliases} for n, (versions, aliases) in listed.items()]
        )
        return
    rows = []
    for name, (versions, aliases) in listed.items():
        for version in reversed(versions):
            named = ", ".join(alias for alias, number in sorted(aliases.items()) if number == version.version)
            created = version.created[:16].replace("T", " ")
            cells = (
                name,
                str(version.version),
                named,
                created,
                version.digest[:12],
                model_table.metrics(version.metrics),
            )
            rows.append(cells)
    if rows:
        terminal.table(("model", "version", "alias", "created (UTC)", "digest", "metrics"), rows)
    else:
        terminal.line(f"There is no model in {store.url} yet.")


@models.command(epilog="\b\nExamples:\n  estiba models show bankchurn\n  estiba models show bankchurn@2 --json")
@click.argument("ref", shell_complete=completion.refs)
@registry_option
@json_option
def show(ref: str, registry: str | None, as_json: bool) -> None:
    """Show the fields, answer, metrics, proof, data and libraries of a model."""
    from estiba.model.artifact import profile
    from estiba.serve import find

    artifact, version = find(ref, _store(registry))
    manifest, kept = artifact.manifest, profile.read(artifact)
    if as_json:
        short = (
            {"source": kept.source, "rows": kept.rows, "background_rows": len(kept.background.rows)} if kept else None
        )
        digest = f"sha256:{artifact.digest}"
        terminal.json({"version": version, "digest": digest, "manifest": manifest, "profile": short})
        return
    terminal.line(f"{manifest.name}@{version}", bold=True)
    terminal.line(f"sha256:{artifact.digest}")
    if manifest.description:
        terminal.line(manifest.description)
    model_table.warn_simulated([manifest])
    _show_fields(manifest)
    _show_facts(manifest, kept)
    terminal.line(f"Model card: {artifact.file('card.md')}")


def _show_fields(manifest: Manifest) -> None:
    from estiba.model.schema.values import expected

    rows = []
    for field in manifest.signature.fields:
        accepted = ", ".join(map(str, field.levels[:6])) + (", ..." if len(field.levels) > 6 else "")
        accepted = accepted or _range(field.minimum, field.maximum)
        if field.kind == "tensor":
            accepted = expected(field)
        missing = "may be missing" if field.nullable else ""
        rows.append((field.name, field.kind, missing, accepted, "" if field.example is None else str(field.example)))
    terminal.line()
    terminal.table(("field", "kind", "", "accepted", "example"), rows)


def _tensor(tensor: TensorOutput) -> str:
    from estiba.model.schema.tensor_types import shape_text

    return f"{tensor.name} {tensor.dtype} {shape_text(tensor.shape)}"


def _range(minimum: float | None, maximum: float | None) -> str:
    if minimum is not None and maximum is not None:
        return f"{minimum:g} to {maximum:g}"
    if minimum is not None:
        return f"from {minimum:g}"
    return "" if maximum is None else f"up to {maximum:g}"


def _show_facts(manifest: Manifest, profile: Profile | None) -> None:
    head, source = manifest.signature.head, manifest.source
    origin = f"{source.name}, {model_table.data(manifest)}" if source else "not stated"
    facts = _answers(manifest.signature)
    facts += [("engine", manifest.engine_summary), ("proof", model_table.parity(manifest)), ("data", origin)]
    facts += [("why python", manifest.reason)] if manifest.reason else []
    facts += [("profile", "none; tensors have no distribution by field" if head.tensors else _profile(profile))]
    facts += [("made with", f"{manifest.framework}, Python {manifest.python}")]
    facts += [("libraries", ", ".join(f"{name} {version}" for name, version in manifest.libraries.items()))]
    lines = [(translated(name), translated(value)) for name, value in facts]
    lines += [(name, f"{value:.6g}") for name, value in manifest.metrics.items()]  # names of the user
    terminal.line()
    terminal.table(("fact", "value"), lines)


def _answers(signature: Signature) -> list[tuple[str, str]]:
    """The outputs of a model, and the meaning of each part of an answer."""
    from estiba.model.schema.answer_text import part_texts

    outputs = signature.each
    lines = []
    for output in outputs[:MAX_SHOWN_OUTPUTS]:
        head = output.signature.head
        kind = f"{head.kind} of clusters" if head.clusters else head.kind
        of = ", ".join(map(str, head.classes or head.names or map(_tensor, head.tensors)))
        lines.append((f"output {output.name}" if output.name else "answer", f"{kind}: {of}" if of else kind))
        lines += [(f"  {part.name}", part.text) for part in part_texts(output.signature)]
    more = len(outputs) - MAX_SHOWN_OUTPUTS
    return [*lines, ("and", f"{more} more outputs")] if more > 0 else lines


def _profile(profile: Profile | None) -> str:
    if profile is None:
        return "none; it was packed by an Estiba that kept none"
    rows = "held-out rows" if profile.source == "holdout" else "rows of the sample"
    return f"of {profile.rows:,} {rows}, with {len(profile.background.rows)} background rows"


@models.command(epilog="\b\nExamples:\n  estiba models alias bankchurn@3 production")
@click.argument("ref", metavar="NAME@VERSION", shell_complete=completion.refs)
@click.argument("alias")
@registry_option
def alias(ref: str, alias: str, registry: str | None) -> None:
    """Point an alias at a version. A running server follows within a second."""
    store = _store(registry)
    found = store.resolve(ref)
    store.set_alias(found.name, alias, found.version)
    terminal.line(f"{found.name}@{alias} is {found} now.")


@models.command(epilog="\b\nExamples:\n  estiba models export bankchurn@3 bankchurn.estiba")
@click.argument("ref", shell_complete=completion.refs)
@click.argument("file", type=click.Path(path_type=Path))
@registry_option
def export(ref: str, file: Path, registry: str | None) -> None:
    """Write a version to one file."""
    version = _store(registry).export(ref, file)
    terminal.line(f"{version} is in {file}.")


@models.command("import", epilog="\b\nExamples:\n  estiba models import bankchurn.estiba --alias candidate")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--alias", "aliases", multiple=True, help="Alias to set on the version; may be repeated.")
@registry_option
def import_(file: Path, aliases: tuple[str, ...], registry: str | None) -> None:
    """Register a model from a file of `estiba models export`, after verifying its content."""
    version = _store(registry).import_(file, aliases)
    terminal.line(f"{version} sha256:{version.digest}")


@models.command(
    epilog="""\b
Examples:
  estiba models pull bankchurn@3 --to /srv/models
  estiba models pull bankchurn@3@sha256:4f1c... --registry s3://shop/models --to /registry
  estiba models pull bankchurn@3 bankchurn@4 --alias bankchurn@4 candidate --to /srv/models
"""
)
@click.argument("refs", metavar="REF...", nargs=-1, required=True, shell_complete=completion.refs)
@registry_option
@click.option(
    "--to",
    "target",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    metavar="DIR",
    help="Folder to copy to.",
)
@click.option(
    "--alias",
    "aliases",
    nargs=2,
    multiple=True,
    metavar="NAME@VERSION ALIAS",
    help="Point an alias at one of the copies; may be repeated.",
)
@click.option(
    "--timeout",
    type=click.FloatRange(0, min_open=True),
    default=600.0,
    show_default=True,
    metavar="SECONDS",
    help="Time limit for all copies together.",
)
def pull(
    refs: tuple[str, ...], registry: str | None, target: Path, aliases: tuple[tuple[str, str], ...], timeout: float
) -> None:
    """Copy versions, with their numbers, to a folder that a server can use as its registry.

    If a reference ends in @sha256:DIGEST, the version must have that digest. Init containers of pods run this command.
    """
    from estiba.core.errors import Unavailable
    from estiba.model.registry import mirror as pulling
    from estiba.serving.workers.store_query import StoreQuery

    location = common_options.registry_location(registry)
    # A bucket that hangs must not hang the pod that asks it.
    query = StoreQuery(lambda: list(pulling.pull(location, refs, target, aliases)), timeout)
    query.wait()
    if query.timed_out:
        hint = "Check the network, and raise --timeout if the models are large."
        raise Unavailable(f"{location} did not answer within {timeout:g} seconds.", hint=hint)
    for version in query.result():
        terminal.line(f"{version} sha256:{version.digest}")


@models.command(epilog="\b\nExamples:\n  estiba models remove bankchurn@1")
@click.argument("ref", metavar="NAME@VERSION", shell_complete=completion.refs)
@click.option("--force", is_flag=True, help="Also remove the aliases that point at it.")
@registry_option
def remove(ref: str, force: bool, registry: str | None) -> None:
    """Remove a version. Its number is not used again."""
    from estiba.model.registry.registry import Ref

    parsed = Ref.parse(ref)
    if not isinstance(parsed.selector, int):
        raise click.BadParameter("name the version by its number, such as bankchurn@1", param_hint="NAME@VERSION")
    _store(registry).remove(parsed.name, parsed.selector, force=force)
    terminal.line(f"{ref} is removed.")


def _store(named: str | None) -> Registry:
    from estiba.model.registry.registry import open_registry

    return open_registry(common_options.registry_location(named))
