"""The worker of a server that watches its models: run as `python -m estiba.monitoring.worker` by the supervisor."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

import msgspec

from estiba.gateway.worker import PolicyWorker
from estiba.monitoring.counter import DriftCounter
from estiba.monitoring.options import DriftOptions
from estiba.monitoring.reports import DriftReports
from estiba.serving.pipeline import Pipeline
from estiba.serving.telemetry.metrics import Metrics
from estiba.serving.workers import worker


class Watched(msgspec.Struct, frozen=True):
    """The content of the policy file of a server that watches its models.

    Args:
        state: URL of the state store.
        policy: what the gateway's worker reads.
    """

    state: str
    drift: DriftOptions
    policy: bytes


class WatchedPolicy:
    """Reads the policies of the gateway, and adds what is watched, which stays as it was at the server's start."""

    def __init__(
        self,
        state: str,
        drift: DriftOptions,
        read: Callable[[], bytes],
        last: Callable[[], tuple[bytes, float]] = lambda: (b"", 0.0),
    ) -> None:
        self._state = state
        self._drift = drift
        self._read = read
        self._last = last

    def read(self) -> bytes:
        """The content of the policy file; raises EstibaError."""
        return self._around(self._read())

    def last(self) -> tuple[bytes, float]:
        """The content that a server before this one read last, and its age in seconds; empty without one."""
        policy, age = self._last()
        return self._around(policy) if policy else b"", age

    def _around(self, policy: bytes) -> bytes:
        return msgspec.json.encode(Watched(self._state, self._drift, policy))


class MonitoringWorker:
    """Builds the pipeline of the policies, with an observer that counts rows for drift."""

    def __init__(self) -> None:
        self._policies = PolicyWorker()
        self._counter: DriftCounter | None = None
        self._reports: DriftReports | None = None

    def build_pipeline(self, content: bytes, metrics: Metrics) -> Pipeline:
        """Build a pipeline; raises as that of the gateway."""
        if not content:
            return self._policies.build_pipeline(b"", metrics)
        watched = msgspec.json.decode(content, type=Watched)
        pipeline = self._policies.build_pipeline(watched.policy, metrics)
        if self._counter is None:
            self._counter = DriftCounter(watched.state, watched.drift, metrics)
            self._reports = DriftReports(watched.state)
            with contextlib.suppress(RuntimeError):  # in a thread: the first row starts it
                asyncio.get_running_loop().call_soon(self._counter.start)
        observe = (*pipeline.observe, self._counter.observe)
        return pipeline._replace(observe=observe, drift=self._reports, close=self._closing(pipeline.close))

    def _closing(self, close: Callable[[], None] | None) -> Callable[[], None]:
        def close_all() -> None:
            if close is not None:
                close()
            if self._counter is not None:
                self._counter.close()

        return close_all


if __name__ == "__main__":
    worker.main(MonitoringWorker().build_pipeline)
