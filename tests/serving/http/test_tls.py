"""Speak TLS to a real server, and replace its certificate under load."""

from __future__ import annotations

import json
import shutil
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest
from click.testing import CliRunner
from edge_server import EdgeServer, certificate, edge_server
from toys import until

import estiba
from estiba.cli.healthcheck import healthcheck
from estiba.core.errors import EstibaError, Unavailable
from estiba.serving.http import tls

pytestmark = pytest.mark.slow

BODY = {"records": [{"x": 1.0}]}


def trusting(file: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(file))


class Encrypted(NamedTuple):
    """A server whose files are links into a folder that is swapped as a whole, as Kubernetes mounts secrets."""

    server: EdgeServer
    folder: Path
    trusted: Path

    @property
    def port(self) -> int:
        return int(self.server.url.rsplit(":", 1)[1])

    def swap(self, file: Path, key: Path, name: str) -> None:
        """Replace both files at once."""
        fresh = self.folder / name
        fresh.mkdir()
        shutil.copy(file, fresh / "tls.crt")
        shutil.copy(key, fresh / "tls.key")
        link = self.folder / "data.new"
        link.symlink_to(fresh)
        link.rename(self.folder / "data")

    def presented(self) -> bytes:
        """The certificate of a new connection."""
        return ssl.PEM_cert_to_DER_cert(ssl.get_server_certificate(("127.0.0.1", self.port), timeout=10))


@pytest.fixture(scope="module")
def encrypted(toy_registry: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Encrypted]:
    folder = tmp_path_factory.mktemp("tls")
    file, key = certificate(folder)
    (folder / "first").mkdir()
    shutil.copy(file, folder / "first" / "tls.crt")
    shutil.copy(key, folder / "first" / "tls.key")
    (folder / "data").symlink_to(folder / "first")
    for name in ("tls.crt", "tls.key"):
        (folder / name).symlink_to(Path("data") / name)
    names = {"certificate": str(folder / "tls.crt"), "certificate_key": str(folder / "tls.key")}
    with edge_server(toy_registry, folder, workers=2, **names) as server:
        assert server.url.startswith("https://127.0.0.1:"), server.log.read_text()
        yield Encrypted(server, folder, file)


def test_requests_by_client_and_health_check(encrypted: Encrypted) -> None:
    url, trusted = encrypted.server.url, encrypted.trusted
    with estiba.Client(url, ca_file=trusted) as client:
        assert client.ready()
        assert len(client.predict([{"x": 1.0}, {"x": 2.0}])) == 2
    with estiba.Client(url) as stranger, pytest.raises(Unavailable, match="certificate is not trusted"):
        stranger.models()
    with pytest.raises(EstibaError):
        estiba.Client(url, ca_file="nothing.pem")
    assert CliRunner().invoke(healthcheck, [url, "--ca-file", str(trusted)], standalone_mode=False).return_value == 0
    assert CliRunner().invoke(healthcheck, [url], standalone_mode=False).return_value == 1


def test_versions_and_protocols(encrypted: Encrypted) -> None:
    context = ssl.create_default_context(cafile=str(encrypted.trusted))
    context.set_alpn_protocols(["h2", "http/1.1"])
    with (
        socket.create_connection(("127.0.0.1", encrypted.port), timeout=10) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as wrapped,
    ):
        assert wrapped.selected_alpn_protocol() == "http/1.1"
        assert wrapped.version() in ("TLSv1.2", "TLSv1.3")
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    with socket.create_connection(("127.0.0.1", encrypted.port), timeout=10) as plain, pytest.raises(ssl.SSLError):
        old.wrap_socket(plain)


def test_plain_http_gets_a_400_that_says_what_to_do(encrypted: Encrypted) -> None:
    answer = httpx.get(f"http://127.0.0.1:{encrypted.port}/health/ready")
    assert answer.status_code == 400
    assert "https://" in answer.json()["detail"]


def test_failed_handshakes_leave_no_client_behind(encrypted: Encrypted) -> None:
    def held() -> float:
        metrics = httpx.get(f"{encrypted.server.url}/metrics", verify=trusting(encrypted.trusted)).text
        (line,) = [line for line in metrics.splitlines() if line.startswith("estiba_connections ")]
        return float(line.split()[1])

    for data in (b"\x16\x03\x01garbage" * 10, b"\x16", b""):
        for _ in range(20):
            with socket.create_connection(("127.0.0.1", encrypted.port), timeout=10) as plain:
                plain.sendall(data)
    assert until(lambda: held() <= 2)
    assert (
        httpx.post(f"{encrypted.server.url}/predict", json=BODY, verify=trusting(encrypted.trusted)).status_code == 200
    )


def test_the_last_answer_of_a_connection_arrives_as_a_whole(encrypted: Encrypted) -> None:
    body = {"records": [{"x": float(i)} for i in range(20_000)]}
    answer = httpx.post(
        f"{encrypted.server.url}/predict",
        json=body,
        headers={"connection": "close"},
        verify=trusting(encrypted.trusted),
    )
    assert len(answer.json()["predictions"]) == 20_000


def test_a_new_pair_is_used_under_load_without_a_failed_request(encrypted: Encrypted, tmp_path: Path) -> None:
    second = certificate(tmp_path, "second", days=300)
    bundle = tmp_path / "both.pem"
    bundle.write_bytes(encrypted.trusted.read_bytes() + second[0].read_bytes())
    failures: list[str] = []
    stop = threading.Event()
    counts = [0, 0, 0]

    def ask(number: int) -> None:
        context = ssl.create_default_context(cafile=str(bundle))
        while not stop.is_set():
            try:
                with httpx.Client(verify=context) as client:
                    for _ in range(5):
                        answer = client.post(f"{encrypted.server.url}/predict", json=BODY)
                        assert answer.status_code == 200
                        counts[number] += 1
            except Exception as error:
                failures.append(repr(error))

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    before = encrypted.presented()
    expiry = _expiry(encrypted, bundle)
    encrypted.swap(*second, "second")
    replaced = until(lambda: encrypted.presented() != before and encrypted.presented() != before)
    time.sleep(0.2)
    stop.set()
    for thread in threads:
        thread.join()
    assert replaced, encrypted.server.log.read_text()
    assert failures == []
    assert min(counts) > 10
    assert _expiry(encrypted, bundle) == pytest.approx(expiry + 270 * 86_400, abs=60)
    assert "certificate replaced" in encrypted.server.log.read_text()
    _a_broken_pair_keeps_the_old_one(encrypted, tmp_path, bundle)


def _a_broken_pair_keeps_the_old_one(encrypted: Encrypted, folder: Path, trusted: Path) -> None:
    third, other = certificate(folder, "third"), certificate(folder, "other")
    before = encrypted.presented()
    encrypted.swap(third[0], other[1], "broken")
    assert until(lambda: "does not belong to the certificate" in encrypted.server.log.read_text())
    assert encrypted.presented() == before
    ready = httpx.get(f"{encrypted.server.url}/health/ready", verify=trusting(trusted))
    assert (ready.status_code, ready.json()["status"]) == (200, "ready")
    assert "certificate" in ready.json()["detail"]
    encrypted.swap(*third, "third")
    assert until(lambda: encrypted.presented() != before)
    levels = [json.loads(line)["level"] for line in encrypted.server.log.read_text().splitlines() if "does not" in line]
    assert levels == ["error"]


def _expiry(encrypted: Encrypted, trusted: Path) -> float:
    metrics = httpx.get(f"{encrypted.server.url}/metrics", verify=trusting(trusted)).text
    (line,) = [line for line in metrics.splitlines() if line.startswith("estiba_certificate_expiry_seconds ")]
    return float(line.split()[1])


def _encrypted_key(folder: Path) -> tuple[Path, Path]:
    file, key = certificate(folder)
    key.write_text(key.read_text().replace("BEGIN PRIVATE", "BEGIN ENCRYPTED PRIVATE"))
    return file, key


def _other_key(folder: Path) -> tuple[Path, Path]:
    return certificate(folder)[0], certificate(folder, "other")[1]


def _no_pem(folder: Path) -> tuple[Path, Path]:
    file, key = certificate(folder)
    file.write_text("nothing")
    return file, key


def _missing(folder: Path) -> tuple[Path, Path]:
    return folder / "nothing.crt", folder / "nothing.key"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (_encrypted_key, "passphrase"),
        (_other_key, "does not belong"),
        (_no_pem, "PEM format"),
        (_missing, "nothing.crt"),
    ],
)
def test_a_pair_that_cannot_be_used_is_named(
    tmp_path: Path, make: Callable[[Path], tuple[Path, Path]], message: str
) -> None:
    with pytest.raises(EstibaError, match=message):
        tls.read_pair(*make(tmp_path))


def test_the_expiry_is_that_of_openssl(tmp_path: Path) -> None:
    for days in (3, 20_000):  # written as UTCTime, and as GeneralizedTime
        file, key = certificate(tmp_path, days=days)
        assert tls.expiry(tls.read_pair(file, key)) == pytest.approx(time.time() + days * 86_400, abs=30)
