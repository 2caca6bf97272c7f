"""Find the client, scheme and prefix of a request behind trusted proxies: `Forwarded` (RFC 7239), `X-Forwarded-*`.

Anybody can send these headers, so they are believed only where the other end of the connection is a trusted proxy, and
only as far as trusted proxies wrote them: the client is the right-most address that is no trusted proxy's.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import NamedTuple

from estiba.core.errors import BadProject
from estiba.serving.http.request import Headers, Request

UNIX = "unix"
"""The other end of a Unix socket: as `trusted_proxies` names it, and as the client where nothing else is known."""

MAX_FORWARDED_BYTES = 2048
"""Longest list of proxies that is read; a longer one is ignored, as is one of more than MAX_HOPS."""

MAX_HOPS = 32

_OWN = ("models", "v1", "v2", "docs", "health", "metrics", "predict", "invocations", "ping", "feedback", "openapi.json")
"""First parts of paths that the server has itself, with which a prefix cannot begin."""

_PREFIX = re.compile(r"(/[A-Za-z0-9._~-]{1,64}){1,8}")
_HOST = re.compile(r"[A-Za-z0-9.-]{1,253}(:[0-9]{1,5})?|\[[0-9A-Fa-f:.]{2,45}\](:[0-9]{1,5})?")
_ADDRESS = re.compile(r"\[([0-9A-Fa-f:.]+)\](?::[0-9]{1,5})?|([0-9.]+)(?::[0-9]{1,5})?|([0-9A-Fa-f:.]+)")
_PAIR = re.compile(r'\s*([A-Za-z]+)=(?:"((?:[^"\\]|\\.)*)"|([^\s";,=]+))\s*')


class Seen(NamedTuple):
    """A request as its client sent it to the first trusted proxy.

    Args:
        client: an IP address; UNIX for an unknown one behind a Unix socket; empty if the connection is gone.
        scheme: `http` or `https`; empty where no proxy says so.
        host: as in the Host header; empty where no proxy says so.
        prefix: the path below which the proxy has this server; empty where no proxy says so.
    """

    client: str
    scheme: str = ""
    host: str = ""
    prefix: str = ""


class _Hop(NamedTuple):
    """One element of a list of proxies; `client` is empty where it is none that can be read."""

    client: str
    scheme: str = ""
    host: str = ""


class Proxies:
    """The trusted proxies of a server."""

    def __init__(self, networks: Sequence[str]) -> None:
        """Read addresses and networks such as `10.0.0.0/8`, and `unix`; raises BadProject for others."""
        self._unix = UNIX in networks
        self._networks = [_network(text) for text in networks if text != UNIX]
        self._known: dict[str, bool] = {}

    def seen(self, peer: str, request: Request) -> Seen:
        """The request as its client sent it.

        Args:
            peer: address of the other end of the connection, or UNIX.
        """
        peer = _normal(peer) or peer
        if not self._trusts(peer):
            return Seen(peer)
        hops = _hops(request.headers)
        client = _Hop(peer)
        for hop in reversed(hops):
            if not hop.client:
                break
            client = hop
            if not self._trusts(hop.client):
                break
        prefix = _single(request.headers, b"x-forwarded-prefix").rstrip("/")
        return Seen(*client, prefix if _PREFIX.fullmatch(prefix) else "")

    def _trusts(self, address: str) -> bool:
        known = self._known.get(address)
        if known is None:
            if len(self._known) >= 4096:
                self._known.clear()
            known = self._known[address] = self._is_trusted(address)
        return known

    def _is_trusted(self, address: str) -> bool:
        if address == UNIX:
            return self._unix
        if not address:
            return False
        number = ip_address(address)
        return any(number in network for network in self._networks)


def check_proxies(networks: Sequence[str], prefix: str) -> None:
    """Raise BadProject for `trusted_proxies` or a `prefix` of `[server]` that cannot be."""
    for text in networks:
        if text != UNIX:
            _network(text)
    check_prefix(prefix)


def check_prefix(prefix: str) -> None:
    """Raise BadProject for a prefix that is no path such as `/ml`, or that begins like the server's own paths."""
    if not prefix:
        return
    if not _PREFIX.fullmatch(prefix):
        raise BadProject(
            f"server.prefix: {prefix!r} is no path prefix.",
            hint='Begin it with a slash and end it without one: "/ml". Letters, digits and . _ ~ - are allowed.',
        )
    first = prefix.split("/")[1]
    if first in _OWN:
        raise BadProject(
            f"server.prefix: {prefix!r} begins like the server's own path /{first}.",
            hint=f'Choose another one, such as "/ml/{first}".',
        )


def _network(text: str) -> IPv4Network | IPv6Network:
    try:
        return ip_network(text)
    except ValueError as error:
        hint = 'Write an address or a network, such as "10.0.0.0/8" or "fd00::/8"; or "unix" for a Unix socket.'
        raise BadProject(f"server.trusted_proxies: {error}.", hint=hint) from None


def _hops(headers: Headers) -> list[_Hop]:
    """The proxies' lists, the last proxy's element last; empty where there is none, or two that differ.

    A client can send the kind of list that its proxy does not write. So of two that differ neither is believed.
    """
    lists = [hops for hops in (_forwarded(headers), _x_forwarded(headers)) if hops]
    if len(lists) == 2 and [hop.client for hop in lists[0]] != [hop.client for hop in lists[1]]:
        return []
    return lists[0] if lists else []


def _forwarded(headers: Headers) -> list[_Hop]:
    """The elements of `Forwarded`; none where the header cannot be read."""
    rest = _joined(headers, b"forwarded")
    hops: list[_Hop] = []
    pairs: dict[str, str] = {}
    while rest:
        match = _PAIR.match(rest)
        if match is None or match[1].lower() in pairs:
            return []
        quoted = match[2]
        pairs[match[1].lower()] = match[3] if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
        end, rest = rest[match.end() : match.end() + 1], rest[match.end() + 1 :]
        if end not in ("", ";", ",") or (end and not rest):
            return []
        if end != ";":
            hops.append(_Hop(_address(pairs.get("for", "")), _scheme(pairs.get("proto", "")), _host(pairs.get("host"))))
            pairs = {}
    return hops if len(hops) <= MAX_HOPS else []


def _x_forwarded(headers: Headers) -> list[_Hop]:
    """The elements of `X-Forwarded-For`, each with the scheme and host of its proxy as far as there are as many."""
    clients = _items(headers, b"x-forwarded-for")
    schemes = _aligned(_items(headers, b"x-forwarded-proto"), len(clients))
    hosts = _aligned(_items(headers, b"x-forwarded-host"), len(clients))
    return [
        _Hop(_address(client), _scheme(scheme), _host(host))
        for client, scheme, host in zip(clients, schemes, hosts, strict=True)
    ]


def _aligned(values: list[str], count: int) -> list[str]:
    """As many values as there are clients. Most proxies replace the value, so a single one holds for all."""
    return values if len(values) == count else [values[-1] if values else ""] * count


def _items(headers: Headers, name: bytes) -> list[str]:
    items = [item.strip() for item in _joined(headers, name).split(",")]
    return items if items != [""] and len(items) <= MAX_HOPS else []


def _joined(headers: Headers, name: bytes) -> str:
    """All headers of a name as one list; empty if it is too long."""
    joined = b",".join(value for key, value in headers if key == name)
    return joined.decode("latin-1") if len(joined) <= MAX_FORWARDED_BYTES else ""


def _single(headers: Headers, name: bytes) -> str:
    """The only header of a name; empty where there is none, or several."""
    values = [value for key, value in headers if key == name]
    return values[0].decode("latin-1") if len(values) == 1 else ""


def _address(text: str) -> str:
    """The address of an element, without its port; empty for `unknown`, a made-up name, and what is none."""
    match = _ADDRESS.fullmatch(text)
    return _normal(match[1] or match[2] or match[3]) if match is not None else ""


def _normal(text: str) -> str:
    """An IP address in its usual form, one of IPv4 inside IPv6 as IPv4; empty for anything else."""
    try:
        number = ip_address(text)
    except ValueError:
        return ""
    inner = number.ipv4_mapped if isinstance(number, IPv6Address) else None
    return str(inner or number)


def _scheme(text: str) -> str:
    return text.lower() if text.lower() in ("http", "https") else ""


def _host(text: str | None) -> str:
    return text if text and _HOST.fullmatch(text) else ""
