"""How commands that write a folder of files say what they did."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from estiba.cli import terminal
from estiba.deploy.output import files as rendered
from estiba.deploy.output.files import Rendered


def shown(path: Path) -> Path:
    """A path as a person would type it: from the working directory where it lies below that, else absolute."""
    whole, here = path.absolute(), Path.cwd()
    return whole.relative_to(here) if whole.is_relative_to(here) else whole


def stale(files: Rendered, folder: Path, *, as_json: bool) -> int:
    """Says which files are out of date; the exit code is 1 if any is."""
    found = rendered.check(files, folder)
    if as_json:
        terminal.json({"folder": str(folder), "stale": found})
    elif not found:
        terminal.line(f"{shown(folder)} is up to date.")
    else:
        for path in found:
            terminal.line(f"out of date: {path}")
    return 1 if found else 0


def write(files: Rendered, folder: Path, *, services: int, next_steps: Sequence[str], as_json: bool) -> None:
    """Writes the files, and says which are new or changed and what to do next."""
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
