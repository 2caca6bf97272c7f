"""A sink is bounded, never blocks who offers, and closes within a second."""

from __future__ import annotations

import threading
import time
from collections import deque

import pytest
from toys import until

from estiba.serving.telemetry.metrics import Metrics
from estiba.serving.telemetry.sink import Sink


def dropped(metrics: Metrics) -> int:
    lines = [line for line in metrics.render().decode().splitlines() if line.startswith("estiba_log_lines_skipped")]
    return int(lines[0].split()[1])


def test_items_arrive_in_order_and_the_thread_sleeps_in_between() -> None:
    got: list[int] = []
    calls: list[float] = []

    def drain(items: deque[int], closing: threading.Event) -> None:
        calls.append(time.monotonic())
        while items:
            got.append(items.popleft())

    metrics = Metrics()
    slot = metrics.slot("estiba_log_lines_skipped_total")
    sink = Sink[int]("test", drain, max_items=1000, delay=0.01, dropped=slot)
    for turn in range(5):
        for n in range(100):
            sink.offer(turn * 100 + n)
        assert until(lambda turn=turn: len(got) == (turn + 1) * 100)
    count = len(calls)
    time.sleep(0.2)
    assert len(calls) == count
    assert sink.close()
    assert (got, dropped(metrics)) == (list(range(500)), 0)


@pytest.mark.slow
def test_what_does_not_fit_is_counted_and_closing_waits_a_second_only() -> None:
    stuck = threading.Event()
    metrics = Metrics()
    slot = metrics.slot("estiba_log_lines_skipped_total")
    sink = Sink[int]("test", lambda items, closing: stuck.wait(30) and None, max_items=10, delay=0.0, dropped=slot)
    began = time.monotonic()
    for n in range(25):
        sink.offer(n)
    assert time.monotonic() - began < 0.5
    assert dropped(metrics) == 15
    assert not sink.close()
    assert 0.9 < time.monotonic() - began < 3
    stuck.set()
