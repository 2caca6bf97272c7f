"""estiba keys."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Any

import click

from estiba.cli import terminal
from estiba.cli.common_options import json_option, state_option
from estiba.cli.group import Group

if TYPE_CHECKING:
    from estiba.gateway.keys import ApiKey
    from estiba.state.database import Database

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


class Duration(click.ParamType):  # type: ignore[type-arg]
    """A number with a unit, such as 90d; converted to seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        found = re.fullmatch(r"(\d{1,6})([smhdw])", value)
        if found is None or int(found[1]) == 0:
            self.fail(f"{value!r} is no duration: give a whole number above 0 and s, m, h, d or w, such as 90d.")
        return float(int(found[1]) * _UNITS[found[2]])


@click.group(
    cls=Group,
    epilog="""\b
Examples:
  estiba keys create ada                                a key that may ask every model
  estiba keys create shop --model bankchurn --expires 90d
  estiba keys create prometheus --role read             may read metrics, and ask no model
  estiba keys list
  estiba keys revoke shop
""",
)
def keys() -> None:
    """Make, list and revoke API keys.

    A key is shown once, when it is made; the state store keeps a hash. Servers follow changes within a second.
    """


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
@state_option
@json_option
def create(
    name: str, roles: tuple[str, ...], models: tuple[str, ...], expires: float | None, state: str | None, as_json: bool
) -> None:
    """Make a key and print it. It cannot be shown again."""
    from estiba.gateway.keys import KeyRequest
    from estiba.gateway.keys import create as make

    request = KeyRequest(name, roles or ("predict",), models, expires)
    secret, key = make(_store(state), request)
    if as_json:
        terminal.json({"key": secret, **_about(key)})
        return
    click.echo(secret)
    allowed, expiry = ", ".join(key.models) or "all", _time(key.expires) or "never"
    rights = f"roles: {', '.join(key.roles)}; models: {allowed}; expires: {expiry}"
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
        heads = ("name", "state", "roles", "models", "created (UTC)", "expires (UTC)", "hash")
        terminal.table(heads, [_row(key) for key in every])


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
        "hash": key.digest.hex()[:8],
    }


def _row(key: ApiKey) -> tuple[str, ...]:
    models = ", ".join(key.models) or "all"
    return (
        key.name, key.state, ", ".join(key.roles), models, _time(key.created), _time(key.expires), key.digest.hex()[:8]
    )  # fmt: skip


def _time(seconds: int | None) -> str:
    return "" if seconds is None else time.strftime("%Y-%m-%d %H:%M", time.gmtime(seconds))
