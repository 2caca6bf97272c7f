"""estiba serve."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from estiba.cli import completion
from estiba.cli.common_options import registry_option, server_options, state_option, trust_option
from estiba.core.errors import EstibaError
from estiba.core.variables import KEYS, SERVER_KEY_FILE, TRUSTED

if TYPE_CHECKING:
    from estiba.gateway.options import GatewayOptions
    from estiba.monitoring.options import MonitoringOptions
    from estiba.serving.options import ServerOptions


class Serve(click.Command):
    """Take the arguments from $ESTIBA_SERVE if there are none: SageMaker starts images with just `serve`.

    Where several containers share an address, SageMaker gives each a port in $SAGEMAKER_BIND_TO_PORT.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args:
            port = os.environ.get("SAGEMAKER_BIND_TO_PORT")
            args = shlex.split(os.environ.get("ESTIBA_SERVE", "")) + (["--port", port] if port else [])
        return super().parse_args(ctx, args)


@click.command(
    cls=Serve,
    epilog="""\b
Examples:
  estiba serve bankchurn                    the version with the alias production, or the newest
  estiba serve iris@2 bankchurn@candidate   several models, at chosen versions
  estiba serve ./artifacts/4f1c... --port 0 an artifact directory, on any free port
""",
)
@click.argument("refs", metavar="REF...", nargs=-1, required=True, shell_complete=completion.refs)
@registry_option
@server_options
@click.option("--unix", type=click.Path(dir_okay=False), metavar="PATH", help="Listen on a Unix socket instead.")
@click.option(
    "--certificate",
    type=click.Path(dir_okay=False),
    metavar="FILE",
    help="Speak HTTPS with the certificate in this PEM file; a renewed one is used within seconds.",
)
@click.option("--certificate-key", type=click.Path(dir_okay=False), metavar="FILE", help="PEM file of its private key.")
@click.option("--threads", type=click.IntRange(1), help="Threads of native libraries in each worker.")
@click.option(
    "--settings",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Keys of [server] as JSON, with [gateway] and [monitoring] as members; options given here come first.",
)
@click.option(
    "--keys",
    type=click.Choice(("auto", "required", "off")),
    envvar=KEYS,
    help="Require an API key with each request; auto, the default: where other machines reach the server. "
    f"Also ${KEYS}.",
)
@click.option(
    "--key-file",
    type=click.Path(dir_okay=False),
    metavar="FILE",
    envvar=SERVER_KEY_FILE,
    help=f"File with an API key to admit, under the name deployment. Also ${SERVER_KEY_FILE}.",
)
@click.option("--log", is_flag=True, help="Keep input and output of each prediction in the state store.")
@click.option("--drift", is_flag=True, help="Compare what models are asked with what they were trained on.")
@state_option
@trust_option
@click.option(
    "--trust-digest",
    "digests",
    multiple=True,
    metavar="DIGEST",
    envvar=TRUSTED,
    help=f"As --trust, for the artifact with this digest alone; repeat it for others. Also ${TRUSTED}.",
)
def serve(refs: tuple[str, ...], settings: Path | None, trust: bool, digests: tuple[str, ...], **given: Any) -> None:
    """Serve models of the registry over HTTP.

    REF is a name, name@version, name@alias, or the path of an artifact directory. The server follows an alias
    that moves. Without arguments, those in $ESTIBA_SERVE are used. Ctrl-C stops the server.
    """
    from estiba import serve as serving
    from estiba.cli import common_options
    from estiba.cli.up import announce, with_options
    from estiba.gateway.jwks import check_jwt
    from estiba.gateway.options import gateway_of

    registry, state, keys, log, watched = (given.pop(name) for name in ("registry", "state", "keys", "log", "drift"))
    key_file = given.pop("key_file") or ""
    read = read_settings(settings)
    options = with_options(read.server, given)
    gateway = with_options(
        read.gateway, {"keys": keys, "log": with_options(read.gateway.log, {"enabled": log or None})}
    )
    check_jwt(gateway.jwt)
    drift = with_options(read.monitoring.drift, {"enabled": watched or None})
    policies = gateway_of(gateway, options, "")
    if policies.has_policies or drift.enabled:
        policies = gateway_of(gateway, options, common_options.state_location(state), key_file)
    location = common_options.registry_location(registry)
    stores = serving.Stores(location, trust or trusted_digests(digests), policies, drift)
    serving.serve(refs, options, stores, on_ready=announce)


def trusted_digests(texts: Sequence[str]) -> Callable[[], frozenset[str]]:
    """The digests of the artifacts that are trusted, as `serving.serve` takes them; raises EstibaError for others."""
    digests = frozenset(text.removeprefix("sha256:") for text in texts)
    for digest in digests:
        if not re.fullmatch(r"[0-9a-f]{64}", digest):
            hint = "Give all 64 digits, which the refusal of a model and the name of its folder have."
            raise EstibaError(f"{digest!r} is not the digest of an artifact.", hint=hint)
    return lambda: digests


class Settings(NamedTuple):
    """The settings of a server: `[server]`, `[gateway]` and `[monitoring]` of the project file."""

    server: ServerOptions
    gateway: GatewayOptions
    monitoring: MonitoringOptions


def read_settings(file: Path | None) -> Settings:
    """Read the settings of a server from a JSON file; without a file, return the defaults.

    Raises:
        NotFound: there is no such file. BadProject: a mistake in it, named by its path.
    """
    import msgspec

    from estiba.core import options
    from estiba.core.errors import BadProject
    from estiba.core.stores.disk import explained
    from estiba.gateway.options import GatewayOptions
    from estiba.monitoring.options import MonitoringOptions
    from estiba.serving.options import ServerOptions

    if file is None:
        return Settings(ServerOptions(), GatewayOptions(), MonitoringOptions())
    with explained("read", file):
        content = file.read_bytes()
    try:
        members = msgspec.json.decode(content, type=dict[str, Any])
        gateway = options.read(members.pop("gateway", {}), GatewayOptions)
        monitoring = options.read(members.pop("monitoring", {}), MonitoringOptions)
        return Settings(options.read(members, ServerOptions), gateway, monitoring)
    except msgspec.MsgspecError as error:
        raise BadProject(f"{file}: not JSON: {error}") from None
