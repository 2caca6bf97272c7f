"""Answers where a server that Debian does not have would: its port, health path and password. It does nothing else.

Usage: standin.py NAME, where NAME is a key of SERVERS. `X-Estiba-Standin: true` on every answer says what this is.
"""

from __future__ import annotations

import base64
import json
import os
import signal
import socket
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import StreamRequestHandler, ThreadingTCPServer

# name: port, path and answer of health, folders it must be able to write, variable with the password (or _FILE), user.
SERVERS = {
    "grafana": (3000, {"/api/health": {"database": "ok"}, "/login": {}}, ["/var/lib/grafana"], None, ""),
    "fluent-bit": (
        2020,
        {"/": {"fluent-bit": {}}, "/api/v1/health": "ok\n", "/api/v2/health": {"status": "ok"}},
        [],
        None,
        "",
    ),
    "elasticsearch": (
        9200,
        {"/": {"tagline": "You Know, for Search"}, "/_cluster/health": {"status": "green", "number_of_nodes": 1}},
        ["/usr/share/elasticsearch/data"],
        "ELASTIC_PASSWORD",
        "elastic",
    ),
    "kibana": (
        5601,
        {"/api/status": {"status": {"overall": {"level": "available"}}}},
        ["/usr/share/kibana/data"],
        None,
        "",
    ),
}


def secret(name: str) -> str | None:
    """The value of a variable, or of the file its _FILE form names; refused as the real entry points refuse it."""
    path = os.environ.get(f"{name}_FILE")
    if path is None:
        return os.environ.get(name)
    if Path(path).stat().st_mode & 0o177 and name == "ELASTIC_PASSWORD":
        sys.exit(f"ERROR: File {path} from {name}_FILE must have file permissions 400 or 600")
    return Path(path).read_text().rstrip("\n")


def check_files(folders: list[str]) -> None:
    """Ends the program where the real one could not start: a folder it may not write, a secret it may not read."""
    for folder in folders:
        if not os.access(folder, os.W_OK):
            sys.exit(f"{folder} is not writable by user {os.getuid()}")
    for name, path in os.environ.items():
        if name.startswith("GF_") and name.endswith("__FILE"):
            Path(path).read_bytes()
    for flag, path in zip(sys.argv, sys.argv[1:], strict=False):
        if flag in ("-c", "--config"):
            Path(path).read_bytes()


def handler(answers: dict[str, object], expected: str | None) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = answers.get(self.path.split("?")[0])
            if expected is not None and self.headers.get("Authorization") != expected:
                self.reply(401, {"error": "missing authentication credentials"})
            elif body is None:
                self.reply(404, {"error": "a stand-in, which answers its health path only"})
            else:
                self.reply(200, body)

        def reply(self, status: int, body: object) -> None:
            data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
            self.send_response(status)
            self.send_header("X-Estiba-Standin", "true")
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_HEAD = do_POST = do_PUT = do_GET

    return Handler


class BothFamilies(ThreadingHTTPServer):
    """Listens as the real ones do: `localhost` is ::1 first, and not every client tries 127.0.0.1 next."""

    address_family = socket.AF_INET6

    def server_bind(self) -> None:
        self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        super().server_bind()


class Swallow(StreamRequestHandler):
    """Fluent Bit's forward port: takes what is sent, and keeps nothing."""

    def handle(self) -> None:
        while self.rfile.read1(65536):
            pass


def main(name: str) -> None:
    port, answers, folders, variable, user = SERVERS[name]
    check_files(folders)
    password = secret(variable) if variable else None
    expected = None
    if password is not None:
        expected = "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    if name == "fluent-bit":
        ThreadingTCPServer.allow_reuse_address = True
        forward = ThreadingTCPServer(("", 24224), Swallow)
        forward.daemon_threads = True
        threading.Thread(target=forward.serve_forever, daemon=True).start()
    print(f"stand-in of {name} on port {port}: answers its health path and does nothing else", flush=True)
    BothFamilies(("::", port), handler(answers, expected)).serve_forever()


if __name__ == "__main__":
    main(sys.argv[1])
