"""Generated queries name metrics that a real server emits, and generated alerts fire when they should and only then."""

from __future__ import annotations

import http.client
import json
import re
import shutil
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from toys import CHURN_ROW, until

from estiba.core.errors import BadProject
from estiba.core.ports import free
from estiba.deploy.observability import alerts, dashboards
from estiba.deploy.observability.config_files import Surroundings, generate, in_containers
from estiba.deploy.output import yaml as writing
from estiba.deploy.plan.plan import File, Plan, PlannedModel, Service

pytestmark = pytest.mark.slow

MEMORY = 400_000_000


def planned(model: str) -> PlannedModel:
    return PlannedModel(model, "1", "0" * 64, Path("/nowhere"), "onnx", {})


def file(name: str, target: str) -> File:
    return File(f"estiba:{name}", target)


PROMETHEUS = Service(
    "prometheus",
    "prom/prometheus:v3.7.3",
    port=9090,
    metrics="/metrics",
    files={"config": file("prometheus", "/etc/prometheus.yml"), "alerts": file("alerts", "/etc/alerts.yml")},
)
MODELS = Service(
    "models", "shop/models:1", port=8000, metrics="/metrics", memory=MEMORY, models=(planned("churn"), planned("price"))
)
MANAGER = Service(
    "alertmanager", "prom/alertmanager:v0.28.1", port=9093, files={"config": file("alertmanager", "/etc/a.yml")}
)
GRAFANA = Service(
    "grafana", "grafana/grafana:12.2.1", port=3000, files={"p": file("grafana", "/etc/grafana/provisioning")}
)
STORE = Service("logs", "docker.elastic.co/elasticsearch/elasticsearch:9.2.0", port=9200)
FORWARDER = Service("fluent-bit", "fluent/fluent-bit:4.1", port=24224, files={"config": file("fluent-bit", "/f.yaml")})
PLAN = Plan("shop", Path("/nowhere"), (MODELS, PROMETHEUS, MANAGER, GRAFANA, STORE, FORWARDER))


def generated(service: Service, name: str, around: Surroundings | None = None) -> dict[str, str]:
    found = next(file for file in service.files.values() if file.generated == name)
    return dict(generate(PLAN, service, found, around or in_containers(PLAN)))


def tool(name: str, package: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed (Debian: apt-get install {package})")
    return found


def checked(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


# --------------------------------------------------------------------------------------------- what the tools say of it


def test_prometheus_finds_nothing_wrong_with_its_configuration_and_rules(tmp_path: Path) -> None:
    promtool = tool("promtool", "prometheus")
    (tmp_path / "prometheus.yml").write_text(generated(PROMETHEUS, "prometheus")[""])
    (tmp_path / "alerts.yml").write_text(generated(PROMETHEUS, "alerts")[""])
    checked(promtool, "check", "config", "--lint=all", "--lint-fatal", str(tmp_path / "prometheus.yml"))
    said = checked(promtool, "check", "rules", "--lint=all", "--lint-fatal", str(tmp_path / "alerts.yml"))
    assert f"{len(alerts.alerts(PLAN))} rules found" in said


def test_alertmanager_finds_nothing_wrong_with_its_configuration(tmp_path: Path) -> None:
    amtool = tool("amtool", "prometheus-alertmanager")
    (tmp_path / "alertmanager.yml").write_text(generated(MANAGER, "alertmanager")[""])
    assert "1 receivers" in checked(amtool, "check-config", str(tmp_path / "alertmanager.yml"))


class Case(NamedTuple):
    """Series in the notation of promtool, one sample a minute, that fire an alert and that do not, after `minutes`."""

    fires: dict[str, str]
    silent: dict[str, str]
    labels: dict[str, str]
    minutes: int = 20


OF_MODEL = 'job="models",model="churn"'
JOB = {"job": "models"}
MODEL = {"job": "models", "model": "churn"}
OK, FAILED = (f'estiba_requests_total{{{OF_MODEL},code="{code}"}}' for code in (200, 500))
BUCKET = f"estiba_request_duration_seconds_bucket{{{OF_MODEL},"
ROWS = f"estiba_rows_total{{{OF_MODEL}}}"
UNSEEN = f'estiba_unseen_category_total{{{OF_MODEL},feature="channel"}}'
SWAPS = f"estiba_swap_failures_total{{{OF_MODEL}}}"
DIED = 'estiba_worker_restarts_total{job="models",reason="died"}'
STARTING = 'estiba_workers{job="models",state="starting"}'
REFUSED = f'estiba_rejected_total{{{OF_MODEL},reason="full"}}'
INVALID = f'estiba_rejected_total{{{OF_MODEL},reason="invalid"}}'
PARITY = f'estiba_parity_max_abs_error{{{OF_MODEL},version="1"}}'
DRIFT, STATISTIC = (f'estiba_drift_{name}{{{OF_MODEL},field="age"}}' for name in ("detected", "statistic"))
SILENT = f"estiba_drift_silent{{{OF_MODEL}}}"
MEMORY_USED = 'process_resident_memory_bytes{job="models"}'
PERIODS, THROTTLED = (f'estiba_cpu_{what}periods_total{{job="models"}}' for what in ("", "throttled_"))

CASES = {
    "ServiceDown": Case({'up{job="models"}': "1x10 0x10"}, {'up{job="models"}': "1x10 0 1x10"}, JOB),
    "HighErrorRate": Case({OK: "0+90x30", FAILED: "0+10x30"}, {OK: "0+99x30", FAILED: "0+1x30"}, MODEL),
    "HighLatency": Case(
        {BUCKET + 'le="1"}': "0+90x30", BUCKET + 'le="2.5"}': "0+100x30", BUCKET + 'le="+Inf"}': "0+100x30"},
        {BUCKET + 'le="1"}': "0+100x30", BUCKET + 'le="2.5"}': "0+100x30", BUCKET + 'le="+Inf"}': "0+100x30"},
        MODEL,
    ),
    "RequestsRefused": Case({REFUSED: "0+1x30"}, {REFUSED: "7x30", INVALID: "0+50x30"}, MODEL),
    "WorkersRestart": Case({DIED: "0x15 3x5"}, {DIED: "0x15 1x5"}, JOB),
    "WorkersMissing": Case({STARTING: "0x10 1x10"}, {STARTING: "0x10 1 0x10"}, JOB),
    "VersionRefused": Case({SWAPS: "0x15 1x10"}, {SWAPS: "1x30"}, MODEL),
    "ParityLost": Case({PARITY: "0.01x30"}, {PARITY: "0.0000001x30"}, {**MODEL, "version": "1"}),
    "ProcessorThrottled": Case(
        {PERIODS: "0+600x30", THROTTLED: "0+300x30"}, {PERIODS: "0+600x30", THROTTLED: "0+60x30"}, JOB
    ),
    "UnseenCategories": Case(
        {ROWS: "0+100x60", UNSEEN: "0+10x60"}, {ROWS: "0+100x60", UNSEEN: "0+1x60"}, {**MODEL, "feature": "channel"}, 50
    ),
    "Drift": Case({DRIFT: "0x10 1x20"}, {DRIFT: "0x30", STATISTIC: "0.4x30"}, {**MODEL, "field": "age"}),
    "ModelSilent": Case({SILENT: "0x5 1x20"}, {SILENT: "0x17 1x13"}, MODEL),
    "MemoryNearLimit": Case({MEMORY_USED: "390000000x30"}, {MEMORY_USED: "300000000x30"}, JOB),
}

MORE_CASES = {
    # All containers are gone, and with them what their name leads to; an hour later that is how it is meant.
    "ServiceDown": Case({'up{job="models"}': "1x10 stale"}, {'up{job="models"}': "1x5 stale"}, JOB, 68),
}


def filled(text: str, labels: dict[str, str]) -> str:
    return re.sub(r"\{\{ \$labels\.(\w+) \}\}", lambda found: labels[found[1]], text)


def unit_test(alert: alerts.Alert, case: Case, *, fires: bool) -> dict[str, Any]:
    expected = {
        "exp_labels": {**case.labels, "severity": alert.severity},
        "exp_annotations": {
            "summary": filled(alert.summary, case.labels),
            "description": filled(alert.action, case.labels),
        },
    }
    series = case.fires if fires else case.silent
    return {
        "name": f"{alert.name} {'fires' if fires else 'is silent'}",
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "alert_rule_test": [
            {
                "eval_time": f"{case.minutes}m",
                "alertname": alert.name,
                "exp_alerts": [expected] if fires else [],
            }
        ],
    }


def test_every_alert_has_a_case_in_which_it_fires_and_one_in_which_it_does_not() -> None:
    assert set(CASES) == {alert.name for alert in alerts.alerts(PLAN)}


def test_every_alert_fires_when_it_should_and_only_then(tmp_path: Path) -> None:
    promtool = tool("promtool", "prometheus")
    (tmp_path / "alerts.yml").write_text(generated(PROMETHEUS, "alerts")[""])
    tests = [
        unit_test(alert, case, fires=fires)
        for alert in alerts.alerts(PLAN)
        for case in (CASES[alert.name], MORE_CASES.get(alert.name, CASES[alert.name]))
        for fires in (True, False)
    ]
    document = {"rule_files": ["alerts.yml"], "evaluation_interval": "1m", "tests": tests}
    (tmp_path / "tests.yml").write_text(writing.render(document))
    checked(promtool, "test", "rules", str(tmp_path / "tests.yml"))


# ----------------------------------------------------------------------------- what a real Prometheus finds in a server


@contextmanager
def running(command: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(20)


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def ask(port: int, model: str, row: dict[str, Any], **headers: str) -> int:
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    client.request("POST", f"/models/{model}/predict", json.dumps(row), headers)
    status = client.getresponse().status
    client.close()
    return status


@pytest.fixture(scope="module")
def query(toy_registry: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], list[Any]]]:
    """Asks a Prometheus, with the configuration of the plan, that has watched a server with two workers under load."""
    prometheus = tool("prometheus", "prometheus")
    folder = tmp_path_factory.mktemp("watched")
    ports = {"models": free("127.0.0.1"), "prometheus": free("127.0.0.1"), "alertmanager": free("127.0.0.1")}
    around = Surroundings(lambda s: f"127.0.0.1:{ports[s.name]}", lambda s, f: f.target)
    text = generated(PROMETHEUS, "prometheus", around)[""]
    assert '"10s"' in text
    (folder / "prometheus.yml").write_text(text.replace('"10s"', '"2s"'))
    (folder / "alerts.yml").write_text(generated(PROMETHEUS, "alerts", around)[""])
    serve = [sys.executable, "-m", "estiba", "serve", "churn", "price", "--registry", str(toy_registry)]
    drift = {"enabled": True, "rows": 100, "min_rows": 50, "minutes": 0}
    (folder / "settings.json").write_text(json.dumps({"monitoring": {"drift": drift}}))
    serve += ["--settings", str(folder / "settings.json"), "--state", f"sqlite:///{folder}/state.db"]
    watch = [prometheus, f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'data'}"]
    with ExitStack() as stack:
        log = folder / "server.log"
        stack.enter_context(running([*serve, "--port", str(ports["models"]), "--workers", "2"], log))
        assert until(lambda: answers(f"http://127.0.0.1:{ports['models']}/health/ready"), 30), log.read_text()
        listen = f"--web.listen-address=127.0.0.1:{ports['prometheus']}"
        stack.enter_context(running([*watch, listen], folder / "prometheus.log"))
        base = f"http://127.0.0.1:{ports['prometheus']}"
        assert until(lambda: answers(f"{base}/-/ready"), 30), (folder / "prometheus.log").read_text()
        enough = 'sum_over_time(up{job="models"}[5m]) > 2'
        for _ in range(60):
            load(ports["models"], seconds=1)
            if found(base, enough):
                break
        yield lambda expression: found(base, expression)


def load(port: int, seconds: float) -> None:
    """Requests that are answered, that hold what training never saw, that are too late, and that are wrong."""
    end = time.monotonic() + seconds
    assert ask(port, "churn", {"records": [CHURN_ROW] * 1000}) == 200
    while time.monotonic() < end:
        assert ask(port, "churn", CHURN_ROW) == 200
        assert ask(port, "churn", {**CHURN_ROW, "channel": "never seen"}) == 200
        assert ask(port, "price", {"x": 1.0}) == 200
        ask(port, "churn", CHURN_ROW, **{"X-Request-Timeout": "0.000001"})
        ask(port, "price", {"x": "no number"})
        time.sleep(0.05)


def found(base: str, expression: str) -> list[Any]:
    with urllib.request.urlopen(f"{base}/api/v1/query?{urllib.parse.urlencode({'query': expression})}") as answer:
        result: list[Any] = json.load(answer)["data"]["result"]
    return result


def as_grafana_asks(expression: str) -> str:
    for name, value in {"$job": ".*", "$model": ".*", "$__rate_interval": "5m"}.items():
        expression = expression.replace(name, value)
    return expression


EXPRESSIONS = [(panel.title, expression) for panel in dashboards.panels() for expression, _ in panel.queries]


@pytest.mark.parametrize(("title", "expression"), EXPRESSIONS)
def test_every_panel_shows_something(query: Callable[[str], list[Any]], title: str, expression: str) -> None:
    assert query(as_grafana_asks(expression)), f"{title}: {expression} finds nothing"


@pytest.mark.parametrize("alert", alerts.alerts(PLAN), ids=lambda alert: alert.name)
def test_every_alert_looks_at_what_is_there(query: Callable[[str], list[Any]], alert: alerts.Alert) -> None:
    # Only Prometheus and the server run here, and the server has a processor quota only where its cgroup has one.
    if alert.name == "ProcessorThrottled" and not query("estiba_cpu_periods_total"):
        assert not Path("/sys/fs/cgroup/cpu.max").exists() or "max" in Path("/sys/fs/cgroup/cpu.max").read_text()
        return
    assert query(alert.left), f"{alert.left} finds nothing"


def test_what_can_fail_counts_from_zero(query: Callable[[str], list[Any]]) -> None:
    for counter in (
        "estiba_worker_restarts_total",
        "estiba_swap_failures_total",
        'estiba_rejected_total{reason="full"}',
    ):
        assert [sample["value"][1] for sample in query(counter)].count("0") > 0, counter


# -------------------------------------------------------------------------------------------------------- the dashboard


def test_grafana_gets_the_data_source_that_its_panels_name() -> None:
    files = generated(GRAFANA, "grafana")
    (source,) = yaml.safe_load(files["datasources/estiba.yaml"])["datasources"]
    assert (source["uid"], source["url"]) == ("estiba-prometheus", "http://prometheus:9090")
    (provider,) = yaml.safe_load(files["dashboards/estiba.yaml"])["providers"]
    assert provider["options"]["path"] == "/etc/grafana/provisioning/dashboards"
    assert source["jsonData"]["timeInterval"] == "10s"


def test_the_dashboard_is_whole() -> None:
    board = json.loads(generated(GRAFANA, "grafana")["dashboards/models.json"])
    boxes = [panel["gridPos"] for panel in board["panels"]]
    covered = [(x, y) for box in boxes for x in range(box["x"], box["x"] + box["w"]) for y in _rows(box)]
    assert len(covered) == len(set(covered)), "panels overlap"
    assert max(x for x, _ in covered) < 24
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
    variables = {variable["name"] for variable in board["templating"]["list"]}
    for panel in board["panels"]:
        for target in panel["targets"]:
            assert target["datasource"]["uid"] == "estiba-prometheus"
            assert set(re.findall(r"\$([a-z]\w+)", target["expr"])) <= variables


def _rows(box: dict[str, int]) -> range:
    return range(box["y"], box["y"] + box["h"])


# ------------------------------------------------------------------------------------------------------------- the rest


def test_logs_go_to_the_store_of_the_plan() -> None:
    written = yaml.safe_load(generated(FORWARDER, "fluent-bit")[""])
    (output,) = written["pipeline"]["outputs"]
    assert (output["host"], output["port"], output["logstash_prefix"]) == ("logs", 9200, "shop")


@pytest.mark.parametrize(
    ("service", "without", "message"),
    [
        (GRAFANA, PROMETHEUS, "the project has no service that runs Prometheus"),
        (FORWARDER, STORE, "the project has no service that runs Elasticsearch"),
    ],
)
def test_what_needs_another_service_says_so(service: Service, without: Service, message: str) -> None:
    plan = Plan("shop", Path("/nowhere"), tuple(each for each in PLAN.services if each is not without))
    with pytest.raises(BadProject, match=message):
        generate(plan, service, next(iter(service.files.values())), in_containers(plan))
