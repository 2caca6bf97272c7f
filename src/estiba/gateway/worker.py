"""The worker of a server with policies: run as `python -m estiba.gateway.worker` by the supervisor."""

from __future__ import annotations

import msgspec

from estiba.gateway.access import KeyAccess, refuse_all
from estiba.gateway.feedback_store import FeedbackStore
from estiba.gateway.policy import Policy
from estiba.gateway.prediction_log import PredictionLog
from estiba.serving.pipeline import Pipeline
from estiba.serving.telemetry.metrics import Metrics
from estiba.serving.workers import worker


class PolicyWorker:
    """Builds the pipeline of the policies. The log of predictions stays open when others change."""

    def __init__(self) -> None:
        self._log: PredictionLog | None = None
        self._feedback: FeedbackStore | None = None

    def build_pipeline(self, content: bytes, metrics: Metrics) -> Pipeline:
        """Build a pipeline; without any policies, because the state store was never read, refuse all requests."""
        if not content:
            return Pipeline(admit=(refuse_all,))
        policy = msgspec.json.decode(content, type=Policy)
        if policy.log.enabled and self._log is None:  # its options are those of the server's start
            self._log = PredictionLog(policy.state, policy.log, metrics)
            self._feedback = FeedbackStore(policy.state)
        admit = () if policy.keys is None else (KeyAccess(policy),)
        if self._log is None or self._feedback is None:
            return Pipeline(admit=admit)
        self._feedback.allow(policy.keys or ())
        return Pipeline(admit=admit, observe=(self._log.observe,), feedback=self._feedback, close=self._log.close)


if __name__ == "__main__":
    worker.main(PolicyWorker().build_pipeline)
