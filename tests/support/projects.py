"""Project files that several targets are tested with."""

from __future__ import annotations

from pathlib import Path

import pytest

from estiba import project
from estiba.deploy.plan.plan import Plan
from estiba.planning import lower

STACK = """
[project]
name = "shop"

[services.web]
command = "python app.py --db ${services.db.host}:${services.db.port} --on ${host}:${port} $$5"
folder = "web"
port = 5000
health = "/health"
metrics = "/metrics"
needs = { db = "healthy", setup = "completed" }
environment = { TOKEN = "${secrets.token}", MODE = "${env.MODE:-fast}", KEY = "${env.KEY}" }
secrets = ["token"]

[services.db]
image = "postgres:17"
port = 5432
public = false
user = 999
health = ["pg_isready", "--port", "${port}"]
environment = { POSTGRES_PASSWORD_FILE = "${secrets.db-password}" }
secrets = ["db-password"]
volumes = { data = "/var/lib/postgresql/data" }
writable = ["/var/run/postgresql"]
stop_signal = "SIGINT"

[services.setup]
command = ["python", "-c", "open('${volumes.here}/done', 'w')"]
folder = "web"
volumes = { here = "/here" }
restart = false

[services.prometheus]
image = "prom/prometheus:v3.7.3"
command = ["--config.file=${files.config}", "--storage.tsdb.path=${volumes.data}"]
port = 9090
health = "/-/healthy"
files.config = "estiba:prometheus:/etc/prometheus/prometheus.yml"
files.alerts = "estiba:alerts:/etc/prometheus/alerts.yml"
volumes = { data = "/prometheus" }
profile = "monitoring"
user = 65534
"""


def plan(folder: Path, text: str) -> Plan:
    """The plan of a project file that is written to `folder`."""
    (folder / "estiba.toml").write_text(text)
    return lower(project.load(folder))


def stack(folder: Path) -> Plan:
    """The plan of STACK."""
    (folder / "web").mkdir(exist_ok=True)
    (folder / "web" / "app.py").write_text("print('hello')\n")
    return plan(folder, STACK)


def compare(found: str, golden: str, request: pytest.FixtureRequest) -> None:
    """Compare a text with a golden file; `--golden` writes the file again."""
    path = Path(__file__).parents[1] / "deploy" / "golden" / golden
    if request.config.getoption("--golden"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(found)
    assert found == path.read_text(), f"{golden} differs; write it anew with: pytest --golden, and read the change"
