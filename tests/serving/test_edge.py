"""Servers behind a real nginx: the client's address, and a path prefix that the proxy strips or does not."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
from nginx import needs_nginx, nginx
from toys import Live, until

pytestmark = [pytest.mark.slow, needs_nginx]

BODY = {"records": [{"x": 1.0}]}


class Behind(NamedTuple):
    """A server below /ml, and nginx before it: at `/ml/` without stripping, at `/own/ml/` with."""

    live: Live
    url: str


@pytest.fixture(scope="module")
def behind(start_server: Callable[..., Live], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Behind]:
    live = start_server("price", prefix="/ml", trusted_proxies=["127.0.0.0/8"], log_clients=True)
    address = f"127.0.0.1:{live.port}"
    locations = f"""
    location /ml/ {{ proxy_pass http://{address}; }}
    location = /ml {{ proxy_pass http://{address}; }}
    location /own/ml/ {{
      proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
      proxy_set_header X-Forwarded-Prefix /own/ml;
      proxy_pass http://{address}/;
    }}"""
    with nginx(tmp_path_factory.mktemp("nginx"), locations) as url:
        yield Behind(live, url)


@pytest.mark.parametrize("prefix", ["/ml", "/own/ml"])
def test_every_path_answers_below_the_prefix(behind: Behind, prefix: str) -> None:
    url = behind.url + prefix
    answer = httpx.post(f"{url}/predict", json=BODY)
    assert answer.status_code == 200
    assert answer.json()["predictions"] == httpx.post(f"{behind.live.url}/predict", json=BODY).json()["predictions"]
    for path in ("/models/price", "/health/ready", "/metrics", "/v2/models/price", "/docs", "/docs/docs.js"):
        assert httpx.get(url + path).status_code == 200, path
    assert httpx.get(f"{url}/nothing").status_code == 404


@pytest.mark.parametrize("prefix", ["/ml", "/own/ml"])
def test_links_lead_below_the_prefix(behind: Behind, prefix: str) -> None:
    url = behind.url + prefix
    with httpx.Client(follow_redirects=True) as client:
        page = client.get(f"{url}/", headers={"accept": "text/html"})
        assert (page.status_code, page.url.path) == (200, f"{prefix}/docs")
        assert client.get(f"{url}/docs/").url.path == f"{prefix}/docs"
        assert client.get(f"{url}/favicon.ico").url.path == f"{prefix}/docs/favicon.svg"
        document = client.get(f"{url}/openapi.json").json()
        assert document["servers"] == [{"url": prefix}]
        assert client.get(f"{url}/").json()["docs"] == f"{prefix}/docs"
    if prefix == "/ml":
        bare = httpx.get(behind.url + "/ml", headers={"accept": "text/html"})
        assert bare.headers["location"] == "/ml/docs"


def test_without_a_proxy_the_prefix_is_the_configured_one_whatever_a_client_claims(behind: Behind) -> None:
    url = behind.live.url
    claims = {"x-forwarded-prefix": "//evil.example", "accept": "text/html"}
    assert httpx.get(f"{url}/", headers=claims).headers["location"] == "/ml/docs"
    assert httpx.get(f"{url}/mlx/models").status_code == 404
    assert httpx.get(f"{url}/ml/ml/models").status_code == 404


def test_the_access_log_has_the_client_that_the_proxy_saw(behind: Behind) -> None:
    # nginx appends its client, 127.0.0.1, which is trusted here; so the address before it counts.
    headers = {"x-forwarded-for": "1.1.1.1, 198.51.100.77", "x-request-id": "through-nginx"}
    httpx.post(f"{behind.url}/ml/predict", json=BODY, headers=headers)
    line = _line(behind.live, "through-nginx")
    assert line["client"] == "198.51.100.77"
    assert line["route"] == "/predict"


def test_an_untrusted_client_is_logged_by_its_own_address(start_server: Callable[..., Live]) -> None:
    live = start_server("price", trusted_proxies=["10.0.0.0/8"], log_clients=True)
    headers = {"x-forwarded-for": "198.51.100.77", "x-request-id": "direct"}
    httpx.get(f"{live.url}/models", headers=headers)
    assert _line(live, "direct")["client"] == "127.0.0.1"


def _line(live: Live, request_id: str) -> dict[str, Any]:
    found: list[dict[str, Any]] = []

    def look() -> bool:
        lines = map(json.loads, Path(live.log).read_text().splitlines())
        found[:] = [line for line in lines if line.get("request_id") == request_id]
        return bool(found)

    assert until(look), live.log.read_text()
    return found[0]


def test_every_answer_and_every_page_has_its_security_headers(start_server: Callable[..., Live]) -> None:
    live = start_server("price", trusted_proxies=["127.0.0.1"], hsts=3600)
    answers = [
        httpx.post(f"{live.url}/predict", json=BODY),
        httpx.post(f"{live.url}/predict", content=b"{"),
        httpx.get(f"{live.url}/nothing"),
        httpx.get(f"{live.url}/metrics"),
        httpx.get(f"{live.url}/docs/docs.js"),
    ]
    assert [answer.headers.get_list("x-content-type-options") for answer in answers] == [["nosniff"]] * 5
    page = httpx.get(f"{live.url}/docs", headers={"x-forwarded-for": "198.51.100.1", "x-forwarded-proto": "https"})
    assert "frame-ancestors 'none'" in page.headers["content-security-policy"]
    assert page.headers["strict-transport-security"] == "max-age=3600"
    assert "strict-transport-security" not in httpx.get(f"{live.url}/docs").headers
    expected = {
        "x-frame-options": "DENY",
        "referrer-policy": "no-referrer",
        "cross-origin-opener-policy": "same-origin",
    }
    assert expected.items() <= dict(page.headers).items()
    with live.connect() as sock:
        sock.sendall(b"secret\r\n\r\n")
        assert b"\r\nx-content-type-options: nosniff\r\n" in sock.recv(4096)
