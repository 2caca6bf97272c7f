"""Pages of other origins in a real browser: those that are allowed read answers, and others do not."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import browser
import httpx
import pytest
from toys import Live, until

from estiba.core.errors import BadProject
from estiba.gateway import keys
from estiba.gateway.keys import KeyRequest
from estiba.gateway.options import BrowserOptions, check_origins
from estiba.state.store import open_state

Start = Callable[..., Live]

ASK = """
window.answer = null;
fetch(arguments[0], {method: "POST", headers: {"Content-Type": "application/json", "X-API-Key": arguments[1]},
                     body: '{"x": 1}'})
    .then(async answer => {
        window.answer = [answer.status, answer.headers.get("x-model-version"), await answer.json()];
    })
    .catch(error => { window.answer = [0, null, String(error)] });
"""


class Page(http.server.BaseHTTPRequestHandler):
    """An empty page."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"<h1>A page</h1>")

    def log_message(self, format: str, *args: Any) -> None:
        """Print nothing."""


@pytest.fixture
def page() -> Iterator[int]:
    """The port of a server of the page."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port
    server.shutdown()
    server.server_close()


@pytest.mark.slow
def test_a_page_asks_with_a_key_where_its_origin_is_allowed(tmp_path: Path, start_server: Start, page: int) -> None:
    state = f"sqlite:///{tmp_path}/state.db"
    database = open_state(state)
    secret, _ = keys.create(database, KeyRequest("page"))
    database.close()
    allowed = f"http://127.0.0.1:{page}"
    live = start_server(
        "price", default="price", gateway={"state": state, "needs_keys": True, "browsers": {"origins": [allowed]}}
    )
    path = f"{live.url}/models/price/predict"
    with browser.browsing(tmp_path / "profile") as tab:
        answers = []
        for origin, key in ((allowed, secret), (allowed, "wrong"), (f"http://localhost:{page}", secret)):
            tab.open(origin)
            tab.run(ASK, path, key)
            tab.wait("return window.answer !== null")
            answers.append(tab.run("return window.answer"))
    assert answers[0][:2] == [200, "1"]
    assert answers[0][2]["predictions"][0].keys() == {"value"}
    assert (answers[1][0], answers[1][2]["title"]) == (401, "The request has no valid credentials.")
    assert answers[2][:2] == [0, None]


@pytest.mark.slow
def test_headers_of_answers_and_preflights(start_server: Start) -> None:
    live = start_server(
        "price", default="price", gateway={"browsers": {"origins": ["https://app.example.com"], "max_age": 60}}
    )
    wanted = {"access-control-request-method": "POST", "access-control-request-headers": "content-type"}
    own, other = {"origin": "https://app.example.com"}, {"origin": "https://evil.example.com"}
    assert until(lambda: "vary" in httpx.get(f"{live.url}/health/ready").headers, 10)
    preflight = httpx.options(f"{live.url}/predict", headers={**own, **wanted})
    assert preflight.status_code == 200
    assert preflight.headers["access-control-allow-origin"] == "https://app.example.com"
    assert preflight.headers["access-control-allow-methods"] == "GET, POST, QUERY"
    assert "x-api-key" in preflight.headers["access-control-allow-headers"]
    assert preflight.headers["access-control-max-age"] == "60"
    refused = httpx.options(f"{live.url}/predict", headers={**other, **wanted})
    assert not [name for name in refused.headers if name.startswith("access-control")]
    plain = httpx.options(f"{live.url}/predict", headers=own)
    assert (plain.status_code, plain.headers["allow"]) == (200, "GET, POST, QUERY, OPTIONS")
    assert "access-control-allow-methods" not in plain.headers
    for path, headers, shown in (("/models", own, True), ("/models", other, False), ("/nothing", own, True)):
        answer = httpx.get(live.url + path, headers=headers)
        assert (answer.headers["vary"], "access-control-allow-origin" in answer.headers) == ("origin", shown)
    large = httpx.post(f"{live.url}/predict", json={"records": [{"x": 1.0}] * 20_000}, headers=own, timeout=30)
    assert large.headers["access-control-allow-origin"] == "https://app.example.com"


@pytest.mark.slow
def test_without_origins_there_are_no_such_headers(server: Live) -> None:
    answer = httpx.get(f"{server.url}/models", headers={"origin": "https://app.example.com"})
    assert not {"vary", "access-control-allow-origin"} & set(answer.headers)


@pytest.mark.parametrize(
    "origin",
    [
        "*",
        "null",
        "app.example.com",
        "https://app.example.com/",
        "https://App.example.com",
        "https://a.com:443",
        "ftp://a",
    ],
)
def test_what_is_no_origin_is_refused(origin: str) -> None:
    right = ("http://[::1]:3000", "http://localhost:5173")
    check_origins(BrowserOptions(origins=right))
    with pytest.raises(BadProject, match=r"gateway\.browsers\.origins"):
        check_origins(BrowserOptions(origins=(*right, origin)))
