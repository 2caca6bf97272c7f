"""Write rendered files to a folder, and report which of them changed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from estiba.cli import terminal
from estiba.deploy.output import files as rendered
from estiba.deploy.output.files import Rendered


def shown(path: Path) -> Path:
    """Return a path as a person would type it: relative below the working directory, else absolute."""
    absolute, current = path.absolute(), Path.cwd()
    return absolute.relative_to(current) if absolute.is_relative_to(current) else absolute


def stale(files: Rendered, folder: Path, *, as_json: bool) -> int:
    """List the files that are out of date; return the exit code, 1 if there are any."""
    paths = rendered.check(files, folder)
    if as_json:
        terminal.json({"folder": str(folder), "stale": paths})
    elif not paths:
        terminal.line(f"{shown(folder)} is up to date.")
    else:
        for path in paths:
            terminal.line(f"out of date: {path}")
    return 1 if paths else 0


def about_key(path: str, command: str) -> None:
    """Print where the key of a deployment is, and how to make others."""
    terminal.line(f"Callers need a key. The first one is in {path}; make others: {command} NAME")


def write(files: Rendered, folder: Path, *, services: int, next_steps: Sequence[str], as_json: bool) -> None:
    """Write the files, and list those that are new or changed, and the commands to run next."""
    written = rendered.write(files, folder)
    if as_json:
        terminal.json({"folder": str(folder), "files": written})
        return
    for file in written:
        if file.became != "same":
            terminal.line(f"{file.became:8} {file.path}")
    counted = "1 service" if services == 1 else f"{services} services"
    terminal.line(f"{counted}, {len(written)} files in {shown(folder)}. Next:", bold=True)
    for step in next_steps:
        terminal.line(f"  {step}")
