"""estiba serve."""

from __future__ import annotations

from typing import Any

import click

from estiba.cli.places import registry_option, server_options, trust_option


@click.command(
    epilog="""\b
Examples:
  estiba serve bankchurn                    the version that production means, or the newest
  estiba serve iris@2 bankchurn@candidate   several models, at chosen versions
  estiba serve ./artifacts/4f1c... --port 0 an artifact directory, on any free port
"""
)
@click.argument("refs", metavar="REF...", nargs=-1, required=True)
@registry_option
@server_options
@click.option("--threads", type=click.IntRange(1), help="Threads of native libraries in each worker.")
@trust_option
def serve(refs: tuple[str, ...], registry: str | None, trust: bool, **server: Any) -> None:
    """Serve models of the registry over HTTP.

    REF is a name, name@version, name@alias, or the path of an artifact directory. An alias that moves is followed.
    Ctrl-C stops.
    """
    from estiba import local
    from estiba.cli import places
    from estiba.cli.up import announce, with_options
    from estiba.serving.options import ServerOptions

    options = with_options(ServerOptions(), server)
    local.serve(refs, options, registry=places.registry(registry), trust=trust, on_ready=announce)
