"""Log parameters, metrics and the artifact of a newly trained model to MLflow."""

from __future__ import annotations

import importlib.util
import os
from typing import TYPE_CHECKING, Any

import msgspec

from estiba.core.errors import MissingExtra, Unavailable

if TYPE_CHECKING:
    from estiba.model.packing.pack import Packed

# MLflow tries seven times with growing pauses, which is minutes in front of a server that is down.
_RETRY_SETTINGS = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}


class MlflowOptions(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """`[mlflow]` of the project file.

    Args:
        tracking_uri: where runs are logged, such as http://localhost:5000 or sqlite:///mlflow.db; empty logs nothing,
            unless $MLFLOW_TRACKING_URI is set.
        experiment: the experiment that runs belong to; by default the project's name.
    """

    tracking_uri: str = ""
    experiment: str = ""


def check(options: MlflowOptions) -> None:
    """Raise MissingExtra where a run shall be logged and MLflow is not installed."""
    if options.tracking_uri and importlib.util.find_spec("mlflow") is None:
        raise MissingExtra("mlflow", "mlflow")


def log(options: MlflowOptions, packed: Packed) -> str:
    """Log one packed model as a finished run, with the artifact's files, and return the id of the run.

    Raises:
        MissingExtra: MLflow is not installed. Unavailable: the tracking server cannot be reached, or refuses.
    """
    check(options)
    for name, value in _RETRY_SETTINGS.items():
        os.environ.setdefault(name, value)
    try:
        return _log(options, packed)
    except Exception as error:  # every store behind MLflow has its own errors
        first = str(error).partition("\n")[0]
        raise Unavailable(
            f"{packed.ref} is registered, but it could not be logged to MLflow at {options.tracking_uri}: {first}",
            hint="Check [mlflow] tracking_uri and that the server runs; `estiba train --force` trains and logs again.",
        ) from error


def _log(options: MlflowOptions, packed: Packed) -> str:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=options.tracking_uri)
    run = client.create_run(_experiment(client, options.experiment), tags=_tags(packed), run_name=packed.ref)
    run_id = str(run.info.run_id)
    try:
        _fill(client, run_id, packed)
    except BaseException:
        client.set_terminated(run_id, "FAILED")
        raise
    client.set_terminated(run_id)
    return run_id


def _experiment(client: Any, name: str) -> str:
    found = client.get_experiment_by_name(name)
    return str(found.experiment_id if found else client.create_experiment(name))


def _fill(client: Any, run_id: str, packed: Packed) -> None:
    import time

    from mlflow.entities import Metric, Param

    manifest, now = packed.artifact.manifest, int(time.time() * 1000)
    metrics = [Metric(name, value, now, 0) for name, value in sorted(manifest.metrics.items())]
    params = [Param(name, str(value)) for name, value in sorted(manifest.params.items())]
    client.log_batch(run_id, metrics=metrics, params=params)
    client.log_artifacts(run_id, str(packed.artifact.path), "artifact")


def _tags(packed: Packed) -> dict[str, str]:
    manifest = packed.artifact.manifest
    tags = {
        "estiba.model": manifest.name,
        "estiba.version": str(packed.version),
        "estiba.digest": f"sha256:{packed.artifact.digest}",
        "estiba.engine": manifest.engine,
        "estiba.framework": manifest.framework,
    }
    if manifest.parity is not None:
        worst = max(manifest.parity.max_abs_error.values(), default=0.0)
        tags["estiba.parity.max_abs_error"] = f"{worst:.6g}"
        tags["estiba.parity.rows"] = str(manifest.parity.rows)
        tags["estiba.parity.labels"] = f"{manifest.parity.labels_equal}/{manifest.parity.labels_total}"
    if manifest.source is not None:
        tags["estiba.data"] = manifest.source.name
        tags["estiba.simulated"] = str(manifest.source.simulated).lower()
    return tags
