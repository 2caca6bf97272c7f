"""Builds the kernel in native/ with the system's C compiler. Without one, the package is built without the kernel, and
ONNX Runtime executes all models."""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

ROOT = Path(__file__).resolve().parent
NAME = "estiba/model/_kernel.abi3.so"
FLAGS = ["-O3", "-std=c11", "-Wall", "-Wextra", "-fPIC", "-ffp-contract=off", "-fno-math-errno", "-fvisibility=hidden"]
"""No contraction: a multiplication and an addition made one would round once where the graph rounds twice."""


class KernelHook(BuildHookInterface):
    """Compiles before a wheel or an editable installation is made."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        target = ROOT / "src" / NAME if version == "editable" else Path(tempfile.mkdtemp()) / "_kernel.abi3.so"
        if not compile_kernel(target):
            return
        build_data["pure_python"] = False
        build_data["tag"] = f"cp311-abi3-{_platform()}"
        if version != "editable":
            build_data["force_include"][str(target)] = NAME


def compile_kernel(target: Path) -> bool:
    """Whether the kernel could be compiled to that file; if not, what the compiler said is on standard error."""
    made = target.with_suffix(f".{os.getpid()}")
    command = [
        *shlex.split(os.environ.get("CC") or "cc"),
        *FLAGS,
        *shlex.split(os.environ.get("CFLAGS", "")),
        f"-I{sysconfig.get_path('include')}",
        *(["-bundle", "-undefined", "dynamic_lookup"] if sys.platform == "darwin" else ["-shared"]),
        *map(str, sorted((ROOT / "native").glob("*.c"))),
        "-o",
        str(made),
        "-lm",
    ]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
        said = done.stderr
        if done.returncode == 0:
            made.replace(target)  # never over a file that a running process has loaded
            return True
    except (OSError, subprocess.TimeoutExpired) as error:
        said = str(error)
    made.unlink(missing_ok=True)
    target.unlink(missing_ok=True)  # an older one need not fit this version
    print(
        f"Estiba is built without its kernel, which needs a C compiler and Python's headers.\n{said}", file=sys.stderr
    )
    return False


def _platform() -> str:
    """The tag of wheels for this machine alone. On macOS the kernel is built for one processor, whatever Python is."""
    named = sysconfig.get_platform().replace("-", "_").replace(".", "_")
    return named.replace("universal2", platform.machine())
