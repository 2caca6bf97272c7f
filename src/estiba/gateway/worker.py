"""The worker of a server with policies: run as `python -m estiba.gateway.worker` by the supervisor."""

from __future__ import annotations

import msgspec

from estiba.gateway.access import KeyAccess, refuse_all
from estiba.gateway.policy import Policy
from estiba.serving.pipeline import Pipeline
from estiba.serving.telemetry.metrics import Metrics
from estiba.serving.workers import worker

MODULE = __name__


def build_pipeline(content: bytes, metrics: Metrics) -> Pipeline:
    """Build the pipeline of the policies; without any, because the state store was never read, refuse all requests."""
    if not content:
        return Pipeline(admit=(refuse_all,))
    return Pipeline(admit=(KeyAccess(msgspec.json.decode(content, type=Policy)),))


if __name__ == "__main__":
    worker.main(build_pipeline)
