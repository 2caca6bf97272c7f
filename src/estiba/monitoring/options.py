"""`[monitoring]` of the project file."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from estiba.core.errors import BadProject

Floor = Annotated[float, Meta(gt=0, lt=1)]


class ModelDriftOptions(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """`[monitoring.drift.models.NAME]` of the project file: what differs for one model.

    Args:
        enabled: count the rows of this model.
        rows: rows that close a window.
        ignore: fields and outputs that are counted and shown, and never reported as drift.
    """

    enabled: bool = True
    rows: Annotated[int, Meta(ge=100, le=10**7)] | None = None
    ignore: tuple[str, ...] = ()


class DriftOptions(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """`[monitoring.drift]` of the project file: compare what models are asked with what they were trained on.

    Args:
        enabled: count rows and answers, and compare them by window with the profile of the artifact.
        rows: a window closes once it has so many rows,
        hours: or once it is so old and has at least `min_rows`.
        minutes: a window lasts at least so long, however many rows come.
        min_rows: rows below which nothing is compared.
        alpha: the share of windows without drift in which anything may be significant, over all fields together.
        number_floor: smallest shift of a number that is reported: the largest difference of shares below a value.
        spread_floor: smallest share of rows in other bins that is reported of a number.
        level_floor: smallest share of rows with other levels that is reported of a category, a boolean or a label.
        missing_floor: smallest difference in the share of missing, unseen or out-of-range values that is reported.
        keep: windows that are kept of each version.
        models: by name, what differs for a model.
    """

    enabled: bool = False
    rows: Annotated[int, Meta(ge=100, le=10**7)] = 1_000
    hours: Annotated[float, Meta(gt=0, le=168)] = 24.0
    minutes: Annotated[float, Meta(ge=0, le=1440)] = 5.0
    min_rows: Annotated[int, Meta(ge=50, le=10**6)] = 200
    alpha: Annotated[float, Meta(gt=0, le=0.1)] = 0.01
    number_floor: Floor = 0.08
    spread_floor: Floor = 0.10
    level_floor: Floor = 0.05
    missing_floor: Floor = 0.02
    keep: Annotated[int, Meta(ge=10, le=100_000)] = 1_000
    models: dict[str, ModelDriftOptions] = {}

    def rows_of(self, model: str) -> int:
        """Rows that close a window of a model."""
        return self.models.get(model, _AS_ALL).rows or self.rows

    def counts(self, model: str) -> bool:
        """Return True if the rows of a model are counted."""
        return self.enabled and self.models.get(model, _AS_ALL).enabled

    def ignored(self, model: str) -> tuple[str, ...]:
        """Fields and outputs of a model that are never reported."""
        return self.models.get(model, _AS_ALL).ignore


_AS_ALL = ModelDriftOptions()


class MonitoringOptions(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """`[monitoring]` of the project file."""

    drift: DriftOptions = DriftOptions()


def check_drift(options: DriftOptions, models: tuple[str, ...]) -> None:
    """Raise BadProject for a model that does not exist, or a window that closes before it is compared."""
    from estiba.core.suggest import did_you_mean

    for name in options.models:
        if name not in models:
            meant, known = did_you_mean(name, models), ", ".join(models) or "none"
            raise BadProject(
                f"monitoring.drift.models.{name}: there is no model {name!r}{meant}", hint=f"Models: {known}."
            )
        if options.rows_of(name) < options.min_rows:
            raise BadProject(
                f"monitoring.drift.models.{name}.rows: fewer than min_rows, {options.min_rows}, so nothing would be "
                "compared.",
                hint="Raise rows, or lower min_rows in [monitoring.drift].",
            )
    if options.rows < options.min_rows:
        raise BadProject(
            f"monitoring.drift.rows: fewer than min_rows, {options.min_rows}, so nothing would be compared.",
            hint="Raise rows, or lower min_rows.",
        )
