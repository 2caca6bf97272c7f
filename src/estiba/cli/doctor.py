"""estiba doctor."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from estiba.cli.common_options import json_option
from estiba.core.language import translated

if TYPE_CHECKING:
    from estiba.core.errors import EstibaError, MissingExtra
    from estiba.doctor.examine import Report
    from estiba.doctor.finding import Finding

MAX_NAMES = 6
_COLOURS = {"error": "red", "warning": "yellow", "note": "cyan"}


@click.command(
    epilog="""\b
Examples:
  estiba doctor                    the project in this folder
  estiba doctor api/Dockerfile     one file, with the folder around it
  estiba doctor --explain root-user
  estiba doctor --running          every container of this machine's Docker
  estiba doctor . --running        what Compose started here, or in a folder below
  estiba doctor --json
"""
)
@click.argument("path", type=click.Path(path_type=Path), required=False)
@click.option("--explain", metavar="CODE", help="Explain one rule by its code: the reason, an example and the remedy.")
@click.option("--running", is_flag=True, help="Examine containers, running and stopped, in place of files.")
@json_option
def doctor(path: Path | None, explain: str | None, running: bool, as_json: bool) -> int:
    """Find common faults in Dockerfiles and compose files, with remedies.

    It reads Dockerfiles, compose files, .dockerignore, requirements, pickled models and the program's code, and runs
    none of it. The main fault comes first. The exit code is 1 if there is an error; warnings and notes leave it 0.
    """
    from estiba.cli import terminal

    if explain is not None:
        terminal.line("\n\n".join(map(translated, _explained(explain).split("\n\n"))))
        return 0
    report = _running(path) if running else _files(path or Path())
    if as_json:
        terminal.json(
            {
                "healthy": report.healthy,
                "looked_at": report.looked_at,
                "unread": list(report.unread),
                "not_examined": list(report.not_examined),
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


def _explained(code: str) -> str:
    from estiba.doctor.catalogue import rule
    from estiba.doctor.explain import explain

    return explain(rule(code))


def _unread(report: Report, why: MissingExtra) -> EstibaError:
    """Return an error for files that were not examined, so that they do not pass for healthy."""
    from estiba.core.errors import EstibaError

    error = EstibaError(f"Not examined: {', '.join(report.unread)}. {why.message}", hint=why.hint)
    error.exit_code = why.exit_code
    return error


def _files(path: Path) -> Report:
    from datetime import datetime

    from estiba.doctor.examine import examine

    return examine(path, datetime.now().astimezone().date(), _project_file(path))


def _project_file(path: Path) -> dict[str, list[Finding]]:
    """Return the mistake in the project file, by its name; empty if there is no project file."""
    from estiba import project
    from estiba.core.errors import BadProject
    from estiba.doctor.finding import Location
    from estiba.doctor.rules.project_file import ProjectFile

    if not (path / project.FILE).is_file():
        return {}
    try:
        project.load(path)
    except BadProject as error:
        message = error.message.partition(": ")[2] or error.message
        fix = error.hint or "Correct it."
        return {project.FILE: [ProjectFile.finding(Location(project.FILE), message, fix)]}
    return {project.FILE: []}


def _running(path: Path | None) -> Report:
    from estiba.doctor.running import examine

    return examine(path)


def _show(report: Report, running: bool) -> None:
    from estiba.cli import terminal

    for finding in report.findings:
        severity = click.style(translated(f"{finding.severity}:"), fg=_COLOURS[finding.severity], bold=True)
        code = click.style(f"[{finding.code}]", dim=True)
        terminal.line(f"{severity} {click.style(finding.where, bold=True)}: {translated(finding.message)} {code}")
        terminal.line(f"  {click.style(translated('fix:'), fg='green')} {translated(finding.fix)}")
    if report.findings:
        terminal.line()
    if report.looked_at:
        terminal.line(_summary(report, "container" if running else "file"))
    if report.not_examined:
        names = ", ".join(report.not_examined[:MAX_NAMES]) + (", ..." if len(report.not_examined) > MAX_NAMES else "")
        rest = f"{names} (templates, and compose files below the folder). Examine one: estiba doctor FOLDER"
        terminal.line(f"Not examined: {rest}")


def _summary(report: Report, subject: str) -> str:
    """Count findings and examined files or containers, such as `1 warning in 2 files: Dockerfile, requirements.txt.`"""
    counts = [(severity, sum(f.severity == severity for f in report.findings)) for severity in _COLOURS]
    findings = ", ".join(
        f"{count} {translated(f'{severity}s' if count > 1 else severity)}" for severity, count in counts if count
    )
    names = ", ".join(report.looked_at[:MAX_NAMES]) + (", ..." if len(report.looked_at) > MAX_NAMES else "")
    number = len(report.looked_at)
    places = translated(f"{subject}s" if number != 1 else subject)
    return f"{findings or translated('No fault found')} {translated('in')} {number} {places}: {names}."
