"""A server answers at a Unix socket, also through nginx, and takes care of files that are there already."""

from __future__ import annotations

import json
import signal
import socket
import stat
from pathlib import Path

import httpx
import pytest
from edge_server import edge_server
from nginx import needs_nginx, nginx
from toys import until

from estiba.core.errors import EstibaError
from estiba.gateway.options import GatewayOptions, needs_keys
from estiba.serving.http.listen import listen_unix
from estiba.serving.options import ServerOptions

BODY = {"records": [{"x": 1.0}]}


@pytest.mark.slow
@needs_nginx
def test_requests_directly_and_through_nginx(toy_registry: Path, tmp_path: Path) -> None:
    path = tmp_path / "estiba.sock"
    settings = {"unix": str(path), "trusted_proxies": ["unix"], "log_clients": True}
    with edge_server(toy_registry, tmp_path, **settings) as server:
        assert server.url == f"unix:{path}", server.log.read_text()
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(path))) as client:
            direct = client.post("http://localhost/predict", json=BODY, headers={"x-request-id": "direct"})
            assert direct.status_code == 200
        with nginx(tmp_path / "nginx", f"location / {{ proxy_pass http://unix:{path}; }}") as url:
            for number in range(20):
                answer = httpx.post(f"{url}/predict", json=BODY, headers={"x-request-id": f"nginx-{number}"})
                assert answer.json()["predictions"] == direct.json()["predictions"]

        def clients() -> dict[str, str]:
            lines = map(json.loads, server.log.read_text().splitlines())
            return {line["request_id"]: line["client"] for line in lines if "client" in line}

        assert until(lambda: len(clients()) == 21)
        assert clients()["direct"] == "unix"
        assert clients()["nginx-0"] == "127.0.0.1"
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(20) == 0
        assert not path.exists()


def test_a_stale_socket_is_replaced_and_one_that_listens_is_not(tmp_path: Path) -> None:
    path = tmp_path / "estiba.sock"
    with socket.socket(socket.AF_UNIX) as gone:
        gone.bind(str(path))
    with listen_unix(path) as listener:
        with pytest.raises(EstibaError, match="a server listens there"), listen_unix(path):
            pass
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            listener.accept()[0].close()
    assert not path.exists()


def test_a_file_that_is_no_socket_stays(tmp_path: Path) -> None:
    path = tmp_path / "data"
    path.write_text("precious")
    with pytest.raises(EstibaError, match="no socket"), listen_unix(path):
        pass
    assert path.read_text() == "precious"


def test_a_socket_of_another_server_since_is_not_removed(tmp_path: Path) -> None:
    path = tmp_path / "estiba.sock"
    with listen_unix(path):
        path.unlink()
        with socket.socket(socket.AF_UNIX) as other:
            other.bind(str(path))
    assert path.exists()


def test_a_path_that_cannot_be_is_explained(tmp_path: Path) -> None:
    for path in (tmp_path / "nowhere" / "a.sock", tmp_path / ("a" * 120)):
        with pytest.raises(EstibaError, match="Cannot listen"), listen_unix(path):
            pass


def test_a_unix_socket_counts_as_this_machine() -> None:
    assert not needs_keys(GatewayOptions(), ServerOptions(host="0.0.0.0", unix="/run/estiba.sock"))
    assert needs_keys(GatewayOptions(), ServerOptions(host="0.0.0.0"))
