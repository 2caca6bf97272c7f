"""Prometheus in a Compose stack: it asks each container of a service, and says when there is none any more."""

from __future__ import annotations

import json
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from lab import Docker
from toys import until

from estiba.cli.main import run
from estiba.core.ports import free

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

COUNTER = (
    "import http.server as h, socket; "
    "A = type('A', (h.BaseHTTPRequestHandler,), {'do_GET': lambda s: (s.send_response(200), "
    "s.send_header('Content-Type', 'text/plain'), s.end_headers(), s.wfile.write(b'asked 1\\\\n'))}); "
    "h.HTTPServer(('', 7000), A).serve_forever()"
)

PROJECT = """
[project]
name = "{name}"

[services.counter]
image = "python:3.11-slim"
command = ["python", "-c", "{code}"]
port = 7000
public = false
replicas = 3
metrics = "/metrics"
stop_signal = "SIGINT"

[services.prometheus]
image = "prom/prometheus:v3.7.3"
command = ["--config.file=${{files.config}}", "--storage.tsdb.path=/tmp", "--web.listen-address=${{host}}:${{port}}"]
port = {port}
health = "/-/healthy"
files.config = "estiba:prometheus:/etc/prometheus/prometheus.yml"
files.alerts = "estiba:alerts:/etc/prometheus/alerts.yml"
user = 65534
"""


def test_each_container_is_scraped_and_the_end_of_all_is_noticed(docker: Docker, tmp_path: Path) -> None:
    docker.need("python:3.11-slim", "prom/prometheus:v3.7.3")
    port = free("127.0.0.1")
    (tmp_path / "estiba.toml").write_text(PROJECT.format(name=f"{docker.name}-m", code=COUNTER, port=port))

    def found(expression: str) -> list[Any]:
        query = urllib.parse.urlencode({"query": expression})
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/query?{query}", timeout=10) as answer:
            result: list[Any] = json.load(answer)["data"]["result"]
        return result

    folder = tmp_path / "deploy" / "compose"
    try:
        assert run(["deploy", "compose", "-C", str(tmp_path), "--yes"]) == 0
        assert until(lambda: len(found('up{job="counter"} == 1')) == 3, 60), found("up")
        docker("compose", "stop", "--timeout", "5", "counter", folder=folder)
        assert until(lambda: found('ALERTS{alertname="ServiceDown", job="counter"}'), 90), found("up")
    finally:
        docker("compose", "down", "--timeout", "1", "--volumes", folder=folder)
