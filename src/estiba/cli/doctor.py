"""estiba doctor."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from estiba.cli.common_options import json_option

if TYPE_CHECKING:
    from estiba.core.errors import EstibaError, MissingExtra
    from estiba.doctor.catalogue import Finding
    from estiba.doctor.examine import Report

_COLOURS = {"error": "red", "warning": "yellow", "note": "cyan"}


@click.command(
    epilog="""\b
Examples:
  estiba doctor                    the project in this folder
  estiba doctor api/Dockerfile     one file, with the folder around it
  estiba doctor --running          every container of this machine's Docker
  estiba doctor . --running        what Compose started here, or in a folder below
  estiba doctor --json
"""
)
@click.argument("path", type=click.Path(path_type=Path), required=False)
@click.option("--running", is_flag=True, help="Examine containers, running and stopped, in place of files.")
@json_option
def doctor(path: Path | None, running: bool, as_json: bool) -> int:
    """Name the usual faults of a containerised project, and what to do about each.

    It reads Dockerfiles, compose files, .dockerignore, requirements, pickled models and the program's code, and runs
    none of it; the main fault comes first. The exit code is 1 where there is an error; warnings and notes leave it 0.
    """
    from estiba.cli import terminal

    report = _running(path) if running else _files(path or Path())
    if as_json:
        terminal.json(
            {
                "healthy": report.healthy,
                "looked_at": report.looked_at,
                "unread": list(report.unread),
                "findings": [
                    {"code": f.code, "severity": f.severity, "file": f.file, "line": f.line or None}
                    | {"message": f.message, "fix": f.fix}
                    for f in report.findings
                ],
            }
        )
    else:
        _show(report, running)
    if report.why is not None:
        raise _unread(report, report.why)
    return 0 if report.healthy else 1


def _unread(report: Report, why: MissingExtra) -> EstibaError:
    """What was not looked at is not called healthy."""
    from estiba.core.errors import EstibaError

    error = EstibaError(f"Not looked at: {', '.join(report.unread)}. {why.message}", hint=why.hint)
    error.exit_code = why.exit_code
    return error


def _files(path: Path) -> Report:
    from datetime import datetime

    from estiba.doctor.examine import examine

    return examine(path, datetime.now().astimezone().date(), _project_file(path))


def _project_file(path: Path) -> dict[str, list[Finding]]:
    """The project file, where there is one, with the mistake in it."""
    from estiba import project
    from estiba.core.errors import BadProject
    from estiba.doctor.catalogue import Location, finding

    if not (path / project.FILE).is_file():
        return {}
    try:
        project.load(path)
    except BadProject as error:
        message = error.message.partition(": ")[2] or error.message
        return {project.FILE: [finding("project-file", Location(project.FILE), message, error.hint or "Mend it.")]}
    return {project.FILE: []}


def _running(path: Path | None) -> Report:
    from estiba.doctor.running import examine

    return examine(path)


def _show(report: Report, running: bool) -> None:
    from estiba.cli import terminal

    for found in report.findings:
        word = click.style(f"{found.severity}:", fg=_COLOURS[found.severity], bold=True)
        code = click.style(f"[{found.code}]", dim=True)
        terminal.line(f"{word} {click.style(found.where, bold=True)}: {found.message} {code}")
        terminal.line(f"  {click.style('fix:', fg='green')} {found.fix}")
    looked = f"{len(report.looked_at)} {'container' if running else 'file'}{'s' if len(report.looked_at) != 1 else ''}"
    shown = ", ".join(report.looked_at[:6]) + (", ..." if len(report.looked_at) > 6 else "")
    counts = [(s, sum(f.severity == s for f in report.findings)) for s in _COLOURS]
    said = ", ".join(f"{count} {word}{'s' if count > 1 else ''}" for word, count in counts if count)
    if report.findings:
        terminal.line()
    if report.looked_at:
        terminal.line(f"{said or 'No fault found'} in {looked}: {shown}.")
