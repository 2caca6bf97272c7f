"""Numbers of several workers add up, outlive a worker, and read as Prometheus itself reads them."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import threading
import weakref
from pathlib import Path
from typing import Any

import pytest

from estiba.model.inference.load import load, load_artifact
from estiba.serving.options import ServerOptions
from estiba.serving.telemetry.metric_table import METRICS
from estiba.serving.telemetry.metrics import INITIAL_BYTES, Metrics
from estiba.serving.version_metrics import MAX_RETIRED_VERSIONS
from estiba.serving.workers.messages import Configuration, ServedModel
from estiba.serving.workers.serving import Serving

ASKED = ("estiba_requests_total", "m", "1", "", "native", "200")
SAMPLE = re.compile(r'([a-z_]+)(?:\{((?:[a-z_]+="(?:[^"\\\n]|\\["\\n])*",?)+)\})? (\S+)')


def samples(text: bytes) -> dict[str, float]:
    """Value by series; every line must be a comment or a sample, and no series may appear twice."""
    found: dict[str, float] = {}
    for line in text.decode().splitlines():
        if not line.startswith(("# HELP ", "# TYPE ")):
            match = SAMPLE.fullmatch(line)
            assert match, line
            series = line.rpartition(" ")[0]
            assert series not in found
            found[series] = float(match[3])
    return found


def series(text: bytes, name: str) -> list[float]:
    return [value for key, value in samples(text).items() if key.split("{")[0] == name]


def test_counters_of_all_files_are_added_up(tmp_path: Path) -> None:
    for n in range(3):
        metrics = Metrics(tmp_path / f"{n}.metrics")
        metrics.slot(*ASKED).add(10**n)
        metrics.slot("estiba_requests_in_flight", "m").add(2)
        metrics.slot("estiba_model_loaded", "m", "1").set(1)
    text = metrics.render()
    assert series(text, "estiba_requests_total") == [111]
    assert series(text, "estiba_requests_in_flight") == [6]
    assert series(text, "estiba_model_loaded") == [1]


def test_a_worker_that_takes_over_counts_on_and_resets_gauges(tmp_path: Path) -> None:
    first = Metrics(tmp_path / "0.metrics")
    first.slot(*ASKED).add(5)
    first.histogram("estiba_batch_rows", "m", "1").observe(3)
    first.slot("estiba_requests_in_flight", "m").add(4)
    second = Metrics(tmp_path / "0.metrics")
    second.slot(*ASKED).add()
    second.histogram("estiba_batch_rows", "m", "1").observe(4)
    assert series(second.render(), "estiba_requests_total") == [6]
    assert series(second.render(), "estiba_batch_rows_sum") == [7]
    assert series(second.render(), "estiba_requests_in_flight") == [0]


def test_buckets_are_cumulative_and_bounds_belong_to_the_bucket_below() -> None:
    metrics = Metrics()
    histogram = metrics.histogram("estiba_batch_rows", "m", "1")
    for value in (1, 2, 2, 3, 1e9):
        histogram.observe(value)
    found = samples(metrics.render())
    buckets = [found[f'estiba_batch_rows_bucket{{model="m",version="1",le="{le}"}}'] for le in ("1", "2", "4", "+Inf")]
    assert buckets == [1, 3, 4, 5]
    assert series(metrics.render(), "estiba_batch_rows_count") == [5]
    assert series(metrics.render(), "estiba_batch_rows_sum") == [1e9 + 8]


def test_labels_are_escaped() -> None:
    metrics = Metrics()
    metrics.slot("estiba_unseen_category_total", "m", 'a"b\\c\nd{é},').add()
    assert 'feature="a\\"b\\\\c\\nd{é},"} 1' in metrics.render().decode()
    assert len(samples(metrics.render())) == len(samples(Metrics().render())) + 1


def test_two_entries_of_other_lengths_do_not_run_into_each_other() -> None:
    metrics = Metrics()
    slots = {n: metrics.slot("estiba_unseen_category_total", "m", "f" * n) for n in range(1, 40)}
    for n, slot in slots.items():
        slot.set(n)
    assert series(metrics.render(), "estiba_unseen_category_total") == [float(n) for n in range(1, 40)]


def test_numbers_that_are_none_are_still_text() -> None:
    metrics = Metrics()
    slot = metrics.slot("estiba_requests_in_flight", "m")
    for value, shown in ((float("inf"), b"+Inf"), (float("-inf"), b"-Inf"), (float("nan"), b"NaN"), (1e300, b"1e+300")):
        slot.set(value)
        assert metrics.render().splitlines()[2].endswith(b" " + shown)


def test_the_file_grows_and_what_was_given_out_before_still_counts(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path / "0.metrics")
    first = metrics.slot(*ASKED)
    last = [metrics.slot("estiba_unseen_category_total", "m", f"{n}" * 100) for n in range(5_000)][-1]
    first.add(3)
    last.add(4)
    assert (tmp_path / "0.metrics").stat().st_size > INITIAL_BYTES
    other = Metrics(tmp_path / "0.metrics")
    other.slot(*ASKED).add()
    assert series(other.render(), "estiba_requests_total") == [4]
    assert sum(series(other.render(), "estiba_unseen_category_total")) == 4


def test_too_many_label_values_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("estiba.serving.telemetry.metrics.MAX_BYTES", INITIAL_BYTES)
    metrics = Metrics()
    with pytest.raises(MemoryError):
        [metrics.slot("estiba_unseen_category_total", "m", f"{n}" * 100) for n in range(10_000)]
    assert samples(metrics.render())


def test_a_version_that_is_forgotten_makes_room_for_another(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path / "0.metrics")
    kept = metrics.slot("estiba_rejected_total", "m", "full")
    for version in range(100, 999):
        metrics.histogram("estiba_batch_rows", "m", f"{version}").observe(2)
        metrics.slot("estiba_rows_total", "m", f"{version}").add(2)
        kept.add()
        metrics.forget("m", f"{version - 1}")
    found = samples(metrics.render())
    assert found['estiba_rejected_total{model="m",reason="full"}'] == 899
    assert {key: value for key, value in found.items() if key.startswith("estiba_rows_total")} == {
        'estiba_rows_total{model="m",version="998"}': 2
    }
    assert metrics.versions() == [("m", "998")]
    assert Metrics(tmp_path / "0.metrics").versions() == [("m", "998")]
    again = metrics.histogram("estiba_batch_rows", "m", "997")
    again.observe(1)
    assert samples(metrics.render())['estiba_batch_rows_count{model="m",version="997"}'] == 1


@pytest.mark.slow
def test_a_server_keeps_the_numbers_of_some_versions_and_lets_go_of_their_models(toy_registry: Path) -> None:
    serving, model = Serving(ServerOptions()), load("price", registry=toy_registry, threads=1)
    first = weakref.ref(model)
    for version in range(1, 100):
        model.version = f"{version}"
        served = ServedModel("price", "price", model.version, "")
        serving.apply(Configuration(version, (served,)), {served: (model, 0.0)})
        serving.current.catalog.route("price").primary.batcher.settle()
        model = load_artifact(model.artifact, threads=1)
    assert first() is None
    said = serving.metrics.render()
    versions = [key for key in samples(said) if key.startswith("estiba_rows_total")]
    assert len(versions) == MAX_RETIRED_VERSIONS + 1
    assert len(said) < 200_000
    serving.close()


WRITER = """
import sys
from pathlib import Path
from estiba.serving.telemetry.metrics import Metrics
metrics = Metrics(Path(sys.argv[1]))
slot = metrics.slot("estiba_requests_total", "m", "1", "", "native", "200")
for _ in range(1000):
    slot.add()
"""


def test_processes_count_while_another_reads(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WRITER]
    writers = [subprocess.Popen([*command, str(tmp_path / f"{n}.metrics")]) for n in range(3)]
    reader = Metrics(tmp_path / "reader.metrics")
    last = 0.0
    while any(writer.poll() is None for writer in writers):
        now = sum(series(reader.render(), "estiba_requests_total"))
        assert now >= last
        last = now
    assert [writer.wait() for writer in writers] == [0, 0, 0]
    assert series(reader.render(), "estiba_requests_total") == [3000]


def test_reading_while_series_are_made(tmp_path: Path) -> None:
    writer, reader = Metrics(tmp_path / "0.metrics"), Metrics(tmp_path / "1.metrics")
    thread = threading.Thread(
        target=lambda: [writer.histogram("estiba_batch_rows", f"m{n}", "1").observe(1) for n in range(300)]
    )
    thread.start()
    while thread.is_alive():
        samples(reader.render())
    thread.join()
    assert len(series(reader.render(), "estiba_batch_rows_count")) == 300


def test_the_server_s_own_numbers(http: Any) -> None:
    row = {"age": 41, "balance": 1, "country": "ES", "channel": "kiosk", "active": True}

    def count(name: str, *parts: str) -> float:
        found = samples(http.get("/metrics").content)
        return sum(v for k, v in found.items() if k.startswith(name) and all(part in k for part in parts))

    names = ("estiba_rows_total", "estiba_unseen_category_total", "estiba_predict_duration_seconds_count")
    before = [count(name, "churn") for name in names]
    wrong = count("estiba_requests_total", 'code="422"')
    http.post("/models/churn/predict", json={"records": [row] * 3})
    http.post("/models/churn/predict", json={"records": [row] * 2000})
    http.post("/models/churn/predict", json={})
    assert [count(name, "churn") for name in names] == [before[0] + 2003, before[1] + 2003, before[2] + 2]
    assert count("estiba_requests_total", 'code="422"') == wrong + 1
    assert count("estiba_requests_in_flight") == 0
    assert count("process_resident_memory_bytes") > 10_000_000


def test_prometheus_reads_it(http: Any) -> None:
    answer = http.get("/metrics")
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    tool = shutil.which("promtool")
    if tool is None:
        pytest.skip("promtool is not installed (Debian: apt-get install prometheus)")
    checked = subprocess.run([tool, "check", "metrics"], input=answer.content, capture_output=True, check=False)
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, b"")


def test_a_client_library_reads_it(http: Any) -> None:
    parser = pytest.importorskip("prometheus_client.parser", reason="prometheus_client is not installed")
    kinds = {family.name: family.type for family in parser.text_string_to_metric_families(http.get("/metrics").text)}
    known = {metric.name.removesuffix("_total"): metric.kind for metric in METRICS}
    assert len(kinds) > 8
    assert kinds == {name: known[name] for name in kinds}
