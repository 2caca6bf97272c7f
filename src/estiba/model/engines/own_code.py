"""Let a process import the code of the user's own that an artifact holds, where it is trusted."""

from __future__ import annotations

import platform
import sys
import sysconfig
from pathlib import Path

from estiba.core.errors import BadArtifact, NotTrusted
from estiba.model.artifact.artifact import CODE, Artifact


def check_trust(artifact: Artifact, *, trust: bool) -> None:
    """Refuse an artifact that holds code of the packer's own, unless it is trusted.

    Raises:
        NotTrusted: names the model and its files. BadArtifact: its functions are of another version of Python.
    """
    manifest = artifact.manifest
    if not manifest.code_summary:
        return
    if not trust:
        raise NotTrusted(
            f"The model {manifest.name!r} (sha256:{artifact.digest[:12]}) contains Python code of its author, "
            f"which runs when it is loaded: {manifest.code_summary}.",
            hint=f"Read the code in {artifact.path}. If you trust it, load it with --trust (trust=True in Python).",
        )
    here = platform.python_version()
    if manifest.by_value and manifest.python.split(".")[:2] != here.split(".")[:2]:
        raise BadArtifact(
            f"The model {manifest.name!r} holds functions by value, in the bytecode of Python {manifest.python}; "
            f"this is Python {here}.",
            hint="Serve it with that version, pack it again with this one, or move the functions to a module.",
        )


def put_on_path(artifact: Artifact) -> None:
    """Put the artifact's code first on this process' import path, and leave only installed libraries behind it.

    A module that is imported has to be in the artifact or installed, in whatever folder the process runs.
    """
    sys.dont_write_bytecode = True  # a cache among the artifact's files would be no part of its digest
    sys.path[:] = [str(artifact.path / CODE), *filter(_is_library, sys.path)]


def _is_library(folder: str) -> bool:
    path = Path(folder)
    libraries = [Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib")]
    inside = any(path.is_relative_to(standard) for standard in libraries) or path.suffix == ".zip"
    return bool(folder) and (inside or bool({"site-packages", "dist-packages"} & set(path.parts)))
