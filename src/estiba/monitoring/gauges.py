"""Show in the metrics what the newest windows say of drift."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from estiba.monitoring.silence import is_silent
from estiba.monitoring.store import HOUR_MICROSECONDS, Version
from estiba.monitoring.windows import WindowResult
from estiba.serving.telemetry.metrics import Metrics, Slot

MAX_PARTS = 50
"""Fields and outputs of one model that have series; of more, those with the largest effect and all with drift."""


class Gauges:
    """The metrics of drift of one worker. Only on the event loop, as metrics have no lock."""

    def __init__(self, metrics: Metrics) -> None:
        """Create no series yet."""
        self._metrics = metrics
        self._slots: dict[tuple[str, ...], Slot] = {}
        self._shown: dict[str, set[str]] = defaultdict(set)  # fields that have series, by model

    def show(self, windows: Mapping[Version, WindowResult], hours: Mapping[str, Mapping[int, int]], now: int) -> None:
        """Set the gauges of the versions that are served; of several versions of a model the worst counts.

        Args:
            now: in microseconds since 1970.
        """
        served = set(self._metrics.versions())
        values: dict[tuple[str, ...], float] = {key: 0.0 for key in self._slots}
        for version, window in windows.items():
            if (version.model, version.version) in served:
                self._add(values, version.model, window)
        hour = now // HOUR_MICROSECONDS
        for model in {name for name, _ in served}:
            values["estiba_drift_silent", model] = float(is_silent(hours.get(model, {}), hour))
        for key, value in values.items():
            if key not in self._slots:
                self._slots[key] = self._metrics.slot(*key)
            self._slots[key].set(value)

    def _add(self, values: dict[tuple[str, ...], float], model: str, window: WindowResult) -> None:
        known = self._shown[model]
        order = sorted(window.parts.items(), key=lambda item: (not item[1].detected, -item[1].largest))
        for name, part in order:
            if name not in known and len(known) >= MAX_PARTS and not part.detected:
                continue
            known.add(name)
            detected = ("estiba_drift_detected", model, name)
            values[detected] = max(values.get(detected, 0.0), float(part.detected))
            for each in part.statistics:
                key = ("estiba_drift_statistic", model, name, each.name)
                values[key] = max(values.get(key, 0.0), each.value)
        size = ("estiba_drift_window_rows", model)
        values[size] = max(values.get(size, 0.0), float(window.rows))
