"""The worker of a server with policies: run as `python -m estiba.gateway.worker` by the supervisor."""

from __future__ import annotations

import asyncio
import contextlib

import msgspec

from estiba.core import cpus
from estiba.core.log import Log
from estiba.gateway.access import KeyAccess, refuse_all
from estiba.gateway.browsers import BrowserAccess
from estiba.gateway.cache import AnswerCache
from estiba.gateway.cache_memory import MemoryStore
from estiba.gateway.cache_redis import RedisStore
from estiba.gateway.feedback_store import FeedbackStore
from estiba.gateway.jwt import Tokens
from estiba.gateway.limit_memory import LimitMemory
from estiba.gateway.limits import Limits, are_needed
from estiba.gateway.limits_redis import RedisCounters
from estiba.gateway.options import MEMORY, StoreAddress
from estiba.gateway.policy import Policy
from estiba.gateway.prediction_log import PredictionLog
from estiba.serving.pipeline import Pipeline
from estiba.serving.telemetry.metrics import Metrics
from estiba.serving.workers import worker


class PolicyWorker:
    """Builds the pipeline of the policies. The log of predictions, the counters of limits and the cache stay."""

    def __init__(self) -> None:
        self._log: PredictionLog | None = None
        self._feedback: FeedbackStore | None = None
        self._memory: LimitMemory | None = None
        self._counters: RedisCounters | None = None
        self._token_error = ""
        self._answers: RedisStore | None = None
        self._cache: AnswerCache | None = None

    def build_pipeline(self, content: bytes, metrics: Metrics) -> Pipeline:
        """Build a pipeline; without any policies, because the state store was never read, refuse all requests."""
        if not content:
            return Pipeline(admit=(refuse_all,))
        policy = msgspec.json.decode(content, type=Policy)
        if policy.log.enabled and self._log is None:  # its options are those of the server's start
            self._log = PredictionLog(policy.state, policy.log, metrics)
            self._feedback = FeedbackStore(policy.state)
        tokens = None if policy.tokens is None else Tokens(policy.tokens, metrics.folder)
        admit = () if policy.keys is None else (KeyAccess(policy, tokens),)
        self._token_error = "" if policy.tokens is None else policy.tokens.error
        observe = () if self._log is None else (self._log.observe,)
        if self._feedback is not None:
            self._feedback.allow(policy.keys or ())
        browsers = BrowserAccess(policy.browsers) if policy.browsers.origins else None
        detail = self._detail if self._token_error else None
        pipeline = Pipeline(
            admit, observe=observe, feedback=self._feedback, browsers=browsers, detail=detail, close=self._close
        )
        if policy.cache.enabled:
            pipeline = pipeline._replace(cache=self._cached(policy, metrics), detail=self._detail)
        return self._limited(pipeline, policy, metrics) if are_needed(policy) else pipeline

    def _cached(self, policy: Policy, metrics: Metrics) -> AnswerCache:
        """The cache, which stays: its options are those of the server's start."""
        options = policy.cache
        if self._cache is None:
            if options.store == MEMORY:
                share = options.max_bytes // (policy.workers or cpus.available())
                self._cache = AnswerCache(options, MemoryStore(options.ttl, share, metrics), metrics, Log())
            else:
                failing = metrics.slot("estiba_cache_store_failing")
                address = StoreAddress.of(options.store)
                self._answers = RedisStore(address, options.ttl, options.timeout, Log(), failing)
                self._cache = AnswerCache(options, self._answers, metrics, Log())
                _start(self._answers)
        return self._cache

    def _limited(self, pipeline: Pipeline, policy: Policy, metrics: Metrics) -> Pipeline:
        if self._memory is None:
            assert metrics.folder is not None
            self._memory = LimitMemory(metrics.folder)
        if policy.limits.store and self._counters is None:  # its options are those of the server's start
            failing = metrics.slot("estiba_limits_store_failing")
            self._counters = RedisCounters(StoreAddress.of(policy.limits.store), policy.limits.timeout, Log(), failing)
            _start(self._counters)
        limits = Limits(policy, self._memory, metrics, self._counters)
        charge = limits.charge if limits.counts_rows else None
        return pipeline._replace(gate=limits.gate, charge=charge, detail=self._detail)

    def _detail(self) -> str:
        details = []
        if self._token_error:
            details.append("The keys of the issuer of tokens may be old. The server's log says why.")
        stores = {"limits": self._counters, "cache": self._answers}
        failing = [name for name, store in stores.items() if store is not None and store.failing]
        details += [f"The store of the {name} cannot be reached. The server's log says why." for name in failing]
        return " ".join(details)

    def _close(self) -> None:
        for part in (self._log, self._memory, self._counters, self._answers):
            if part is not None:
                part.close()


def _start(store: RedisCounters | RedisStore) -> None:
    """Connect to a store, where this is the event loop's thread; elsewhere the first request connects."""
    with contextlib.suppress(RuntimeError):
        asyncio.get_running_loop().call_soon(store.start)


if __name__ == "__main__":
    worker.main(PolicyWorker().build_pipeline)
