"""Hosts in URLs."""

from __future__ import annotations

import pytest

from estiba.core import addresses


@pytest.mark.parametrize(
    ("host", "url", "reachable"),
    [
        ("127.0.0.1", "http://127.0.0.1:80", "127.0.0.1"),
        ("0.0.0.0", "http://0.0.0.0:80", "127.0.0.1"),
        ("::1", "http://[::1]:80", "::1"),
        ("::", "http://[::]:80", "::1"),
        ("models.example", "http://models.example:80", "models.example"),
    ],
)
def test_an_ipv6_address_is_in_brackets_and_all_interfaces_are_reached_at_loopback(
    host: str, url: str, reachable: str
) -> None:
    assert addresses.http_url(host, 80) == url
    assert addresses.reachable(host) == reachable
