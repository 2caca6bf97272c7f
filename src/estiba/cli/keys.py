"""estiba keys."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from estiba.cli import terminal
from estiba.cli.common_options import json_option, state_option
from estiba.cli.group import Group
from estiba.core.durations import seconds

if TYPE_CHECKING:
    from estiba.gateway.keys import ApiKey
    from estiba.gateway.options import Limit
    from estiba.state.database import Database

Command = TypeVar("Command", bound=Callable[..., Any])


class Duration(click.ParamType):  # type: ignore[type-arg]
    """A number with a unit, such as 90d; converted to seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        length = seconds(value)
        if length is None:
            self.fail(f"{value!r} is no duration: give a whole number above 0 and s, m, h, d or w, such as 90d.")
        return length


@click.group(
    cls=Group,
    epilog="""\b
Examples:
  estiba keys create ada                                a key that may ask every model
  estiba keys create shop --model bankchurn --expires 90d
  estiba keys create prometheus --role read             may read metrics, and ask no model
  estiba keys create shop --rate 100 --burst 300 --rows-per-day 1000000
  estiba keys limit shop --rate 50                      replace its limits
  estiba keys list
  estiba keys revoke shop
""",
)
def keys() -> None:
    """Make, limit, list and revoke API keys.

    A key is shown once, when it is made; the state store keeps a hash. Servers follow changes within a second.
    """


def limit_options(command: Command) -> Command:
    """Add the options of a key's limits."""
    for name, kind, metavar, text in reversed(
        (
            ("--rate", click.FloatRange(0, 1e6, min_open=True), "N", "Requests a second, over time."),
            ("--burst", click.IntRange(1, 10**6), "N", "Requests that may arrive at once; by default one second's."),
            ("--concurrent", click.IntRange(1, 10**6), "N", "Requests that are answered at the same time."),
            ("--rows-per-day", click.IntRange(1, 10**12), "N", "Rows from midnight to midnight (UTC)."),
        )
    ):
        command = click.option(name, type=kind, metavar=metavar, help=text)(command)
    return command


@keys.command(epilog="\b\nExamples:\n  estiba keys create ada\n  estiba keys create ci --json | jq -r .key")
@click.argument("name")
@click.option(
    "--role",
    "roles",
    multiple=True,
    metavar="ROLE",
    help="predict (the default): ask models; read: metrics and status; admin: everything. May be repeated.",
)
@click.option("--model", "models", multiple=True, metavar="NAME", help="Allow only this model. May be repeated.")
@click.option("--expires", type=Duration(), metavar="DURATION", help="Time until the key expires, such as 12h or 90d.")
@limit_options
@state_option
@json_option
def create(
    name: str,
    roles: tuple[str, ...],
    models: tuple[str, ...],
    expires: float | None,
    state: str | None,
    as_json: bool,
    **limits: Any,
) -> None:
    """Make a key and print it. It cannot be shown again."""
    from estiba.gateway.keys import KeyRequest
    from estiba.gateway.keys import create as make
    from estiba.gateway.options import Limit

    request = KeyRequest(name, roles or ("predict",), models, expires, Limit(**limits))
    secret, key = make(_store(state), request)
    if as_json:
        terminal.json({"key": secret, **_about(key)})
        return
    click.echo(secret)
    allowed, expiry = ", ".join(key.models) or "all", _time(key.expires) or "never"
    rights = f"roles: {', '.join(key.roles)}; models: {allowed}; expires: {expiry}"
    if shown := _limits(key.limits):
        rights += f"; limits: {shown}"
    click.echo(f"The key of {key.name} ({rights}) is not shown again: keep it where secrets are kept.", err=True)


@keys.command("list", epilog="\b\nExamples:\n  estiba keys list\n  estiba keys list --json")
@state_option
@json_option
def list_(state: str | None, as_json: bool) -> None:
    """List the keys: names and rights, never the keys."""
    from estiba.gateway.keys import listed

    every = listed(_store(state))
    if as_json:
        terminal.json([_about(key) for key in every])
    elif not every:
        terminal.line("There is no key yet. Make one: estiba keys create NAME")
    else:
        heads = ("name", "state", "roles", "models", "limits", "created (UTC)", "expires (UTC)", "hash")
        terminal.table(heads, [_row(key) for key in every])


@keys.command(
    epilog="""\b
Examples:
  estiba keys limit shop --rate 50 --concurrent 4
  estiba keys limit shop                             none of its own
""",
)
@click.argument("name")
@limit_options
@state_option
@json_option
def limit(name: str, state: str | None, as_json: bool, **limits: Any) -> None:
    """Replace the limits of a key. Without options it has none of its own, but those of [gateway.limits]."""
    from estiba.gateway.keys import limit as replace
    from estiba.gateway.options import Limit

    own = Limit(**limits)
    replace(_store(state), name, own)
    if as_json:
        terminal.json({"name": name, "limits": own})
    elif shown := _limits(own):
        terminal.line(f"The limits of {name}: {shown}.")
    else:
        terminal.line(f"The key {name} has no limits of its own.")


@keys.command(epilog="\b\nExamples:\n  estiba keys revoke shop")
@click.argument("name")
@state_option
@json_option
def revoke(name: str, state: str | None, as_json: bool) -> None:
    """Revoke a key. Every server that uses this state store refuses it within a second."""
    from estiba.gateway.keys import revoke as end

    end(_store(state), name)
    if as_json:
        terminal.json({"name": name, "state": "revoked"})
    else:
        terminal.line(f"The key {name} is revoked.")


def _store(named: str | None) -> Database:
    from estiba.cli.common_options import state_location
    from estiba.state.store import open_state

    return open_state(state_location(named))


def _about(key: ApiKey) -> dict[str, Any]:
    return {
        "name": key.name,
        "state": key.state,
        "roles": key.roles,
        "models": key.models,
        "created": key.created,
        "expires": key.expires,
        "limits": key.limits,
        "hash": key.digest.hex()[:8],
    }


def _row(key: ApiKey) -> tuple[str, ...]:
    models = ", ".join(key.models) or "all"
    return (
        key.name, key.state, ", ".join(key.roles), models, _limits(key.limits), _time(key.created), _time(key.expires),
        key.digest.hex()[:8],
    )  # fmt: skip


def _limits(limit: Limit) -> str:
    """The limits of a key in words; empty if it has none of its own."""
    parts = []
    if limit.rate is not None:
        burst = "" if limit.burst is None else f", {limit.burst} at once"
        parts.append(f"{limit.rate:g}/s{burst}")
    if limit.concurrent is not None:
        parts.append(f"{limit.concurrent} at a time")
    if limit.rows_per_day is not None:
        parts.append(f"{limit.rows_per_day} rows a day")
    return "; ".join(parts)


def _time(seconds: int | None) -> str:
    return "" if seconds is None else time.strftime("%Y-%m-%d %H:%M", time.gmtime(seconds))
