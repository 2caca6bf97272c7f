"""`[gateway]` of the project file."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from estiba.core.addresses import is_loopback
from estiba.core.errors import EstibaError
from estiba.serving.options import ServerOptions


class LogOptions(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """`[gateway.log]` of the project file: the log of predictions, in the state store.

    Args:
        enabled: keep input and output of every row that a model answers.
        sample: the share of requests that are kept, 0 to 1.
        redact: names of fields whose values are not kept.
        keep_days: days after which rows are removed.
    """

    enabled: bool = False
    sample: Annotated[float, Meta(ge=0, le=1)] = 1.0
    redact: tuple[str, ...] = ()
    keep_days: Annotated[float, Meta(gt=0)] = 30.0


class GatewayOptions(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """`[gateway]` of the project file.

    Args:
        keys: `required`: every request but health checks needs an API key; `off`: none does; `auto`: they are required
            where other machines can reach the server, unless it is `insecure`.
    """

    keys: Literal["auto", "required", "off"] = "auto"
    log: LogOptions = LogOptions()


class Gateway(msgspec.Struct, frozen=True):
    """The policies of one server, as its address and the project file decide them.

    Args:
        state: URL of the state store.
        needs_keys: requests need an API key.
    """

    state: str = ""
    needs_keys: bool = False
    log: LogOptions = LogOptions()

    @property
    def has_policies(self) -> bool:
        """True if a server asks any policy."""
        return self.needs_keys or self.log.enabled


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


def gateway_of(options: GatewayOptions, server: ServerOptions, state: str) -> Gateway:
    """The policies of a server; raises as `needs_keys`.

    Args:
        state: URL of the state store.
    """
    return Gateway(state, needs_keys(options, server), options.log)
