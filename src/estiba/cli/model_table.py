"""Tables of models, and their proofs and metrics in a few words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from estiba.cli import terminal
from estiba.model.artifact.artifact import Manifest, Parity

_FIRST = ("roc_auc", "accuracy", "rmse", "r2", "f1", "brier", "log_loss", "mae")
"""The metrics that are shown first, in this order."""

HEADS = ("model", "version", "engine", "parity", "metrics")


def row(manifest: Manifest, version: str) -> tuple[str, ...]:
    """The cells of a model under HEADS."""
    return (manifest.name, version, manifest.engine_name, parity(manifest), metrics(manifest.metrics))


def models(entries: Sequence[tuple[Manifest, str]]) -> None:
    """Print a table of models, with a warning about simulated data and the reason for a python engine."""
    terminal.table(HEADS, [row(manifest, version) for manifest, version in entries])
    for manifest, _ in entries:
        if manifest.tail:
            terminal.line(f"{manifest.name}: {manifest.engine_summary} ({manifest.reason})")
        elif manifest.reason:
            terminal.line(f"{manifest.name} runs on the python engine: {manifest.reason}")
    warn_simulated([manifest for manifest, _ in entries])


def warn_simulated(manifests: Sequence[Manifest]) -> None:
    """Print a warning that names the models trained on simulated data."""
    names = [m.name for m in manifests if m.source is not None and m.source.simulated]
    if names:
        terminal.warning(
            f"SIMULATED DATA: {', '.join(names)} were trained on generated rows. "
            "Their metrics say nothing about real data."
        )


def data(manifest: Manifest) -> str:
    source = manifest.source
    if source is None:
        return ""
    return f"{source.rows:,} rows{', SIMULATED' if source.simulated else ''}"


def parity(manifest: Manifest) -> str:
    """The proof in a few words."""
    if manifest.engine == "python" and not manifest.tail:
        return "the original"
    return proof(manifest.parity) if manifest.parity else ""


def proof(parity: Parity) -> str:
    worst = max(parity.max_abs_error.values(), default=0.0)
    labels = f", {parity.labels_equal:,}/{parity.labels_total:,} labels" if parity.labels_total else ""
    return f"{worst:.2g} off{labels}" if worst else f"equal{labels}"


def metrics(found: Mapping[str, float], count: int = 3) -> str:
    """The first few metrics, the most important ones first."""
    names = [name for first in _FIRST for name in (first, f"cv_{first}_mean") if name in found]
    names += [name for name in found if name not in names and not name.startswith("cv_")]
    shown: dict[str, str] = {}
    for name in names:
        shown.setdefault(name.removeprefix("cv_").removesuffix("_mean"), f"{name}={found[name]:.4g}")
    return " ".join(list(shown.values())[:count])
