"""Headers of proxies are believed only from trusted ones, and only as far as these wrote them."""

from __future__ import annotations

import pytest

from estiba.core.errors import BadProject
from estiba.serving.http.proxies import MAX_HOPS, Proxies, Seen, check_prefix, check_proxies
from estiba.serving.http.request import Request

PROXIES = Proxies(["10.0.0.0/8", "fd00::/8", "192.0.2.7", "unix"])


def seen(peer: str, *headers: tuple[str, str]) -> Seen:
    pairs = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers]
    return PROXIES.seen(peer, Request(b"GET", b"/", b"", pairs))


@pytest.mark.parametrize(
    ("peer", "value", "client"),
    [
        ("203.0.113.9", "198.51.100.1", "203.0.113.9"),  # the other end is no proxy
        ("10.0.0.1", "198.51.100.1", "198.51.100.1"),
        ("::ffff:10.0.0.1", "198.51.100.1", "198.51.100.1"),
        ("unix", "198.51.100.1", "198.51.100.1"),
        ("10.0.0.1", "1.1.1.1, 198.51.100.1", "198.51.100.1"),  # the first one is what the client sent
        ("10.0.0.1", "1.1.1.1, 198.51.100.1, 10.9.9.9, 192.0.2.7", "198.51.100.1"),
        ("10.0.0.1", "10.1.1.1, 10.2.2.2", "10.1.1.1"),
        ("10.0.0.1", "198.51.100.1:4711", "198.51.100.1"),
        ("10.0.0.1", "2001:db8::1", "2001:db8::1"),
        ("10.0.0.1", "[2001:DB8::1]:99", "2001:db8::1"),
        ("10.0.0.1", "", "10.0.0.1"),
        ("10.0.0.1", "unknown", "10.0.0.1"),
        ("10.0.0.1", "198.51.100.1, <script>", "10.0.0.1"),
        ("10.0.0.1", "198.51.100.1, 999.1.1.1, 10.2.2.2", "10.2.2.2"),
        ("10.0.0.1", "198.51.100.1,", "10.0.0.1"),
        ("10.0.0.1", "fe80::1%eth0", "10.0.0.1"),
        ("10.0.0.1", ",".join(["198.51.100.1"] * (MAX_HOPS + 1)), "10.0.0.1"),
        ("10.0.0.1", "198.51.100.1" + " " * 5000, "10.0.0.1"),
    ],
)
def test_the_client_is_the_right_most_address_that_no_trusted_proxy_has(peer: str, value: str, client: str) -> None:
    assert seen(peer, ("X-Forwarded-For", value)).client == client


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("for=198.51.100.1", Seen("198.51.100.1")),
        ('For="[2001:db8::1]:4711";Proto=HTTPS;host="m.example"', Seen("2001:db8::1", "https", "m.example")),
        ("for=1.1.1.1;proto=http, for=198.51.100.1;proto=https, for=10.4.4.4", Seen("198.51.100.1", "https")),
        ('for="198.51.100.1:80";secret="a,b;c\\"d"', Seen("198.51.100.1")),
        ("for=_hidden", Seen("10.0.0.1")),
        ("for=198.51.100.1;for=1.1.1.1", Seen("10.0.0.1")),
        ("for=198.51.100.1;", Seen("10.0.0.1")),
        ('for="198.51.100.1', Seen("10.0.0.1")),
        ("198.51.100.1", Seen("10.0.0.1")),
        ("for=198.51.100.1;proto=gopher;host=a/b", Seen("198.51.100.1")),
        (",".join(["for=198.51.100.1"] * (MAX_HOPS + 1)), Seen("10.0.0.1")),
    ],
)  # fmt: skip
def test_forwarded_as_in_rfc_7239(value: str, expected: Seen) -> None:
    assert seen("10.0.0.1", ("Forwarded", value)) == expected
    assert seen("203.0.113.9", ("Forwarded", value)) == Seen("203.0.113.9")


def test_several_headers_are_one_list_and_two_lists_that_differ_are_none() -> None:
    lines = [("X-Forwarded-For", "1.1.1.1"), ("X-Forwarded-For", "198.51.100.1")]
    assert seen("10.0.0.1", *lines).client == "198.51.100.1"
    same = [("X-Forwarded-For", "198.51.100.1"), ("Forwarded", "for=198.51.100.1;proto=https")]
    assert seen("10.0.0.1", *same) == Seen("198.51.100.1", "https")
    # A proxy that writes one of the two passes the other on, as the client sent it.
    differing = [("X-Forwarded-For", "198.51.100.1"), ("Forwarded", "for=8.8.8.8")]
    assert seen("10.0.0.1", *differing).client == "10.0.0.1"


def test_scheme_host_and_prefix_of_a_trusted_proxy() -> None:
    headers = [
        ("X-Forwarded-For", "198.51.100.1, 10.2.2.2"),
        ("X-Forwarded-Proto", "https"),
        ("X-Forwarded-Host", "models.example.com:8443"),
        ("X-Forwarded-Prefix", "/team/ml/"),
    ]
    assert seen("10.0.0.1", *headers) == Seen("198.51.100.1", "https", "models.example.com:8443", "/team/ml")
    assert seen("203.0.113.9", *headers) == Seen("203.0.113.9")
    aligned = [("X-Forwarded-For", "1.1.1.1, 198.51.100.1"), ("X-Forwarded-Proto", "https, http")]
    assert seen("10.0.0.1", *aligned).scheme == "http"
    for wrong in ("//evil.example", "/a/../b//c", "ml", "/a\\b", "/" + "a" * 100, "https://evil.example/"):
        assert seen("10.0.0.1", ("X-Forwarded-Prefix", wrong)).prefix == "", wrong


@pytest.mark.parametrize("prefix", ["ml", "/ml/", "/", "//ml", "/m l", "/models", "/v2/x", "/docs"])
def test_a_prefix_that_cannot_be_is_refused(prefix: str) -> None:
    with pytest.raises(BadProject, match=r"server\.prefix"):
        check_prefix(prefix)


@pytest.mark.parametrize("network", ["10.0.0.1/8", "proxy.example.com", "", "*"])
def test_a_network_that_is_none_is_refused(network: str) -> None:
    with pytest.raises(BadProject, match=r"server\.trusted_proxies"):
        check_proxies([network], "")
