"""The place of a server behind proxies: who asks, by which scheme, and below which path clients see it."""

from __future__ import annotations

from estiba.serving.exchange import Exchange
from estiba.serving.http.proxies import Proxies, Seen
from estiba.serving.options import ServerOptions


class Edge:
    """Asked only where an answer or a log line depends on it, so that predictions cost nothing more."""

    def __init__(self, options: ServerOptions) -> None:
        """Read the options; raises BadProject for proxies that cannot be."""
        self.prefix = options.prefix
        self._encrypted = bool(options.certificate)
        self._hsts = options.hsts
        self._proxies = Proxies(options.trusted_proxies)

    def strict_transport(self, seen: Seen) -> str:
        """The value of Strict-Transport-Security (RFC 6797) for a page; empty where it gets none."""
        return f"max-age={self._hsts}" if self._hsts and seen.scheme == "https" else ""

    def seen(self, exchange: Exchange) -> Seen:
        """The request as its client sent it."""
        seen = self._proxies.seen(exchange.connection.peer, exchange.request)
        return seen._replace(scheme="https") if self._encrypted and not seen.scheme else seen

    def client(self, exchange: Exchange) -> str:
        """The address of the client."""
        return self.seen(exchange).client
