"""The metric series of model versions: publish those that are served, and remove those of versions long gone."""

from __future__ import annotations

import weakref
from collections.abc import Callable

from estiba.serving.batcher import Batcher
from estiba.serving.catalog import Deployment
from estiba.serving.telemetry.metrics import Metrics, Slot

MAX_RETIRED_VERSIONS = 32
"""Versions that are no longer served and still have their series in the metrics."""


class VersionMetrics:
    """The series of the versions of all models of one worker."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._served: dict[tuple[str, str], tuple[Slot, ...]] = {}
        # A worker that replaces another finds the series of that one's versions.
        self._retired: list[tuple[str, str, Callable[[], Batcher | None]]]
        self._retired = [(name, version, lambda: None) for name, version in metrics.versions()]

    def serve(self, deployment: Deployment, load_seconds: float) -> None:
        """Publish a version that is served from now on."""
        metrics, model = self._metrics, deployment.model
        name, version, manifest = model.name, model.version, model.manifest
        self._retired = [each for each in self._retired if each[:2] != (name, version)]
        loaded = metrics.slot("estiba_model_loaded", name, version)
        info = metrics.slot("estiba_model_info", name, version, model.digest, manifest.framework, manifest.engine)
        for slot in (loaded, info):
            slot.set(1)
        self._served[name, version] = (loaded, info)
        metrics.slot("estiba_model_load_duration_seconds", name, version).set(load_seconds)
        if model.parity is not None:
            worst = max(model.parity.max_abs_error.values(), default=0.0)
            metrics.slot("estiba_parity_max_abs_error", name, version).set(worst)

    def retire(self, deployment: Deployment) -> None:
        """Show that a version is no longer served; remove the oldest versions that have no request in flight."""
        name, version = deployment.model.name, deployment.model.version
        for slot in self._served.pop((name, version), ()):
            slot.set(0)
        # Exchanges in flight keep their batcher alive until they are answered.
        self._retired.append((name, version, weakref.ref(deployment.batcher)))
        while len(self._retired) > MAX_RETIRED_VERSIONS and self._retired[0][2]() is None:
            gone, gone_version, _ = self._retired.pop(0)
            self._metrics.forget(gone, gone_version)
