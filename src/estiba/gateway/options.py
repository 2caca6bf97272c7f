"""`[gateway]` of the project file."""

from __future__ import annotations

from typing import Literal

import msgspec

from estiba.core.addresses import is_loopback
from estiba.core.errors import EstibaError
from estiba.serving.options import ServerOptions


class GatewayOptions(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """`[gateway]` of the project file.

    Args:
        keys: `required`: every request but health checks needs an API key; `off`: none does; `auto`: they are required
            where other machines can reach the server, unless it is `insecure`.
    """

    keys: Literal["auto", "required", "off"] = "auto"


def needs_keys(options: GatewayOptions, server: ServerOptions) -> bool:
    """Return True if requests to this server need a key.

    Raises:
        EstibaError: other machines could use the models without one, and `insecure` does not allow it.
    """
    if options.keys == "required":
        return True
    if is_loopback(server.host) or server.insecure:
        return False
    if options.keys == "off":
        raise EstibaError(
            f"Serving on {server.host} without keys would let every machine that reaches it use the models.",
            hint='Leave out keys = "off" in [gateway], or pass --insecure (insecure = true in [server]).',
        )
    return True
