"""Spans arrive at a collector that speaks OTLP over HTTP, and a collector that does not answer harms nobody."""

from __future__ import annotations

import http.server
import itertools
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import httpx
import pytest
from raw import Reader, post
from toys import Live, until

from estiba.core.errors import BadProject
from estiba.serving.telemetry import tracing
from estiba.serving.telemetry.tracing import TelemetryOptions

pytestmark = pytest.mark.slow

proto = pytest.importorskip(
    "opentelemetry.proto.collector.trace.v1.trace_service_pb2", reason="the extra otel is not installed"
)

TRACE = "0af7651916cd43dd8448eb211c80319c"
CALLER = "b7ad6b7169203331"
BODY = {"records": [{"x": 1.0}]}


class Collector(http.server.BaseHTTPRequestHandler):
    """Keeps every request that it gets, decoded, and says thanks."""

    server: Any

    def do_POST(self) -> None:
        content = self.rfile.read(int(self.headers["content-length"]))
        self.server.got.append((self.path, proto.ExportTraceServiceRequest.FromString(content)))
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def collecting() -> Iterator[Any]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Collector) as server:
        server.got = []  # type: ignore[attr-defined]
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture(scope="module")
def collector() -> Iterator[Any]:
    with collecting() as server:
        yield server


@pytest.fixture(scope="module")
def traced(collector: Any, start_server: Callable[..., Live]) -> Live:
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
        environment.setenv("OTEL_SERVICE_NAME", "prices")
        return start_server("price", telemetry=at(collector))


def at(collector: Any, **more: Any) -> dict[str, Any]:
    return {"endpoint": f"http://127.0.0.1:{collector.server_port}", **more}


def spans(collector: Any) -> list[Any]:
    return [s for _, sent in collector.got for r in sent.resource_spans for scope in r.scope_spans for s in scope.spans]


def of(collector: Any, trace: str, count: int) -> dict[str, Any]:
    """The spans of one trace by name, once so many arrived."""

    def found() -> list[Any]:
        return [span for span in spans(collector) if span.trace_id.hex() == trace]

    assert until(lambda: len(found()) >= count, 10), [span.name for span in found()]
    assert len(found()) == count
    return {span.name: span for span in found()}


def values(span: Any) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in span.attributes}


def test_a_request_is_a_span_with_its_steps_below_the_caller_s(collector: Any, traced: Live) -> None:
    headers = {"traceparent": f"00-{TRACE}-{CALLER}-01", "tracestate": "vendor=1"}
    answer = httpx.post(f"{traced.url}/models/price/predict", json=BODY, headers=headers)
    found = of(collector, TRACE, 5)
    own = found["POST /models/{name}/predict"]
    assert answer.headers["traceresponse"] == f"00-{TRACE}-{own.span_id.hex()}-01"
    assert (own.parent_span_id.hex(), own.trace_state) == (CALLER, "vendor=1")
    assert values(own) == {
        "http.request.method": "POST",
        "url.scheme": "http",
        "http.route": "/models/{name}/predict",
        "http.response.status_code": 200,
        "estiba.request.id": answer.headers["x-request-id"],
        "estiba.model.name": "price",
        "estiba.model.version": "1",
        "estiba.model.protocol": "native",
        "estiba.rows": 1,
    }
    steps = [found[name] for name in ("validate", "queue", "model.predict", "encode")]
    assert {step.parent_span_id for step in steps} == {own.span_id}
    assert len({span.span_id for span in found.values()}) == 5
    times = [own.start_time_unix_nano, *(step.end_time_unix_nano for step in steps)]
    assert times == sorted(times)
    assert abs(times[-1] / 1e9 - time.time()) < 60
    resource = values(collector.got[-1][1].resource_spans[0].resource)
    assert (collector.got[-1][0], resource["service.name"]) == ("/v1/traces", "prices")


def test_a_trace_begins_here_where_no_caller_has_one(collector: Any, traced: Live) -> None:
    answer = httpx.post(f"{traced.url}/predict", json={"records": [{"x": 1.0}] * 5000})
    _, trace, own, flags = answer.headers["traceresponse"].split("-")
    found = of(collector, trace, 5)
    assert (found["POST /predict"].span_id.hex(), flags, found["POST /predict"].parent_span_id) == (own, "01", b"")
    assert values(found["POST /predict"])["estiba.rows"] == 5000
    assert until(lambda: f'"trace_id":"{trace}","span_id":"{own}"' in traced.log.read_text())


def test_what_fails_is_seen_where_it_failed(collector: Any, traced: Live) -> None:
    broken = httpx.post(f"{traced.url}/predict", json={"records": [{"x": -99.0}]})
    wrong = httpx.post(f"{traced.url}/predict", json={"records": [{"y": 1}]})
    lost = httpx.get(f"{traced.url}/nowhere/at/all")
    said = [answer.headers["traceresponse"].split("-")[1] for answer in (broken, wrong, lost)]
    failed = of(collector, said[0], 3)
    assert {*failed} == {"POST /predict", "validate", "queue"}
    assert failed["POST /predict"].status.code == 2
    assert values(failed["POST /predict"])["error.type"] == "500"
    refused = of(collector, said[1], 2)
    assert refused["POST /predict"].status.code == 0
    assert {*of(collector, said[2], 1)} == {"GET /*"}


def test_requests_of_a_failed_batch_have_the_times_of_their_own_runs(collector: Any, traced: Live) -> None:
    def asked(sock: socket.socket, x: float, trace: str) -> None:
        sock.sendall(post(f'{{"x": {x}}}'.encode(), extra=f"traceparent: 00-{trace}-{CALLER}-01\r\n".encode()))

    traces = [digit * 32 for digit in "abcde"]
    with ExitStack() as opened:
        socks = [opened.enter_context(traced.connect()) for _ in range(6)]
        socks[0].sendall(post(b'{"x": -98}'))  # while the model computes, the others gather and become one batch
        time.sleep(0.05)
        for sock, x, trace in zip(socks[1:], (1.0, 2.0, -99.0, -98.0, 3.0), traces, strict=True):
            asked(sock, x, trace)
        statuses = [answer.status for sock in socks if (answer := Reader(sock).answer())]
    assert statuses == [200, 200, 200, 500, 200, 200]
    runs = {}
    for trace, count in zip(traces, (5, 5, 3, 5, 5), strict=True):
        steps = of(collector, trace, count)
        if "model.predict" in steps:
            step = steps["model.predict"]
            runs[trace] = (step.start_time_unix_nano, step.end_time_unix_nano)
    assert len(set(runs.values())) == 4, "they ran one by one"
    in_order = sorted(runs.values())
    assert all(end <= start for (_, end), (start, _) in itertools.pairwise(in_order)), "one after the other"
    lasted = sorted(((end - start, trace) for trace, (start, end) in runs.items()), reverse=True)
    assert lasted[0][1] == "d" * 32
    assert lasted[0][0] > 5 * lasted[1][0], "only the slow row's own run is long"


def test_a_caller_that_does_not_record_is_followed_and_probes_are_not_traced(collector: Any, traced: Live) -> None:
    quiet = "1" * 32
    answer = httpx.post(f"{traced.url}/predict", json=BODY, headers={"traceparent": f"00-{quiet}-{CALLER}-00"})
    assert "traceresponse" not in answer.headers
    assert "traceresponse" not in httpx.get(f"{traced.url}/health/ready").headers
    after = httpx.post(f"{traced.url}/predict", json=BODY).headers["traceresponse"].split("-")[1]
    of(collector, after, 5)
    assert not [span for span in spans(collector) if span.trace_id.hex() == quiet]


def test_a_share_of_traces_is_recorded(collector: Any, start_server: Callable[..., Live]) -> None:
    live = start_server("price", telemetry=at(collector, sampling=0.3))
    with httpx.Client() as client:
        told = ["traceresponse" in client.post(f"{live.url}/predict", json=BODY).headers for _ in range(300)]
    assert 50 < sum(told) < 130


def test_the_last_spans_leave_when_the_server_ends(start_server: Callable[..., Live]) -> None:
    with collecting() as collector:
        live = start_server("price", telemetry=at(collector))
        httpx.post(f"{live.url}/predict", json=BODY)
        assert live.stop() == 0
        assert len(spans(collector)) == 5


def test_a_collector_that_never_answers_delays_nobody_and_what_is_lost_is_counted(
    start_server: Callable[..., Live],
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf, pytest.MonkeyPatch.context() as environment:
        environment.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
        environment.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "100")
        live = start_server("price", telemetry={"endpoint": f"http://127.0.0.1:{deaf.getsockname()[1]}"})
        with httpx.Client() as client:
            for _ in range(100):
                assert client.post(f"{live.url}/predict", json=BODY).elapsed.total_seconds() < 1
            said = client.get(f"{live.url}/metrics").text
        assert 'estiba_spans_dropped_total{reason="full"} 0' not in said
        began = time.monotonic()
        assert live.stop() == 0
        assert time.monotonic() - began < 5


@pytest.mark.parametrize(
    ("environment", "endpoint", "wanted"),
    [
        ({}, "", None),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://a:1"}, "", ("", True, 0.5)),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://a:1"}, "http://b:1", ("", True, 0.5)),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://a:1/x"}, "", ("", True, 0.5)),
        ({}, "http://b:1", ("http://b:1", True, 0.5)),
        ({"OTEL_SDK_DISABLED": "true"}, "http://b:1", None),
        ({"OTEL_TRACES_EXPORTER": "none"}, "http://b:1", None),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "http://b:1", None),
        ({"OTEL_TRACES_SAMPLER": "always_off"}, "http://b:1", ("http://b:1", False, 0.0)),
        ({"OTEL_TRACES_SAMPLER": "parentbased_always_on"}, "http://b:1", ("http://b:1", True, 1.0)),
        (
            {"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.25"},
            "http://b:1",
            ("http://b:1", False, 0.25),
        ),
    ],
)
def test_the_standard_variables_go_before_the_project(
    environment: dict[str, str], endpoint: str, wanted: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    options = TelemetryOptions(endpoint=endpoint, sampling=0.5)
    found = tracing.settings(options)
    assert (found and found[:3]) == wanted
    assert bool(tracing.complaint(options)) == (wanted is None and bool(endpoint))


def test_an_endpoint_that_is_no_url_is_refused() -> None:
    with pytest.raises(BadProject, match=r"server\.telemetry\.endpoint"):
        tracing.settings(TelemetryOptions(endpoint="localhost:4318"))
