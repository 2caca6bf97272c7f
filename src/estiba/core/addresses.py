"""Network addresses as text."""

from __future__ import annotations

from ipaddress import ip_address

_WILDCARDS = {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "::": "::1"}


def bracketed(host: str) -> str:
    """A host as it is written in a URL: an IPv6 address in brackets."""
    return f"[{host}]" if ":" in host else host


def http_url(host: str, port: int, scheme: str = "http") -> str:
    """The URL of a server, without a path: `http://127.0.0.1:8000`, `http://[::1]:8000`."""
    return f"{scheme}://{bracketed(host)}:{port}"


def reachable(host: str) -> str:
    """The address at which this machine reaches a server that listens on `host`: loopback for all interfaces."""
    return _WILDCARDS.get(host, host)


def is_wildcard(host: str) -> bool:
    """Return True for the address that stands for all interfaces."""
    return host in _WILDCARDS


def is_loopback(host: str) -> bool:
    """Return True for an address that only this machine reaches."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
