"""estiba version."""

from __future__ import annotations

import platform
import sys
from importlib import metadata

import click

import estiba
from estiba.cli.common_options import json_option

_SHOWN = ("onnxruntime", "numpy", "scikit-learn", "onnx", "skl2onnx", "pandas", "xgboost-cpu", "lightgbm", "catboost")


@click.command(epilog="\b\nExamples:\n  estiba version\n  estiba version --json")
@json_option
def version(as_json: bool) -> None:
    """Show the versions of Estiba and its libraries."""
    from estiba.cli import terminal
    from estiba.model.coding.kernel import compiled

    versions = {"estiba": estiba.__version__, "python": platform.python_version(), "platform": sys.platform}
    versions["kernel"] = "none: no C compiler when Estiba was installed" if compiled() is None else "compiled"
    for name in _SHOWN:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    if as_json:
        terminal.json(versions)
    else:
        terminal.table(("part", "version"), list(versions.items()))
