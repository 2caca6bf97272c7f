"""estiba scan."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from estiba.cli import completion, terminal
from estiba.cli.common_options import json_option, project_option

if TYPE_CHECKING:
    from estiba.deploy.image.vulnerability_scan import Finding, Report

FOUND_CODE, UNKNOWN_CODE = 1, 6


@click.command(
    epilog="""\b
Examples:
  estiba scan              every image that was built on this machine
  estiba scan models --json
"""
)
@click.argument("services", metavar="[SERVICE]...", nargs=-1, shell_complete=completion.services)
@project_option
@json_option
def scan(services: tuple[str, ...], project: Path | None, as_json: bool) -> int:
    """Scan built images for known vulnerabilities.

    All installed scanners of trivy, grype, osv-scanner and pip-audit are run on the image's bill of materials. Packages
    that could not be looked up are listed, and never count as clean. The exit code is 0 if every package of each image
    was looked up and no vulnerability was found, 1 if one was found, 6 if no scanner looked up some package.
    """
    from dataclasses import asdict

    import estiba.project
    from estiba.core.errors import NotFound
    from estiba.deploy.image import vulnerability_scan as scanning
    from estiba.deploy.image.build import KEPT

    folder = estiba.project.load(project).folder
    names = list(services) or sorted(path.parent.name for path in (folder / KEPT).glob(f"*/{scanning.BILL}"))
    if not names:
        raise NotFound("No image was built on this machine yet.", hint="Build the images: estiba build")
    results = {name: scanning.scan(folder, name) for name in names}
    if as_json:
        facts = {name: [{**asdict(r), "verdict": r.verdict} for r in reports] for name, reports in results.items()}
        terminal.json(facts)
    else:
        for name, reports in results.items():
            _show(name, reports)
    return max((_code(reports) for reports in results.values()), key=lambda code: (code == FOUND_CODE, code))


def _code(reports: list[Report]) -> int:
    from estiba.deploy.image.vulnerability_scan import unknown

    verdicts = [report.verdict for report in reports]
    if "findings" in verdicts:
        return FOUND_CODE
    return 0 if unknown(reports) == set() else UNKNOWN_CODE


def _show(name: str, reports: list[Report]) -> None:
    for report in reports:
        verdict = {"findings": f"{len(report.findings)} known vulnerabilities"}.get(report.verdict, report.verdict)
        counted = f" ({len(report.looked_up)} packages)" if report.looked_up else ""
        why = f": {report.trouble}" if report.trouble else ""
        terminal.line(f"{name}: {report.scanner}: {verdict}{counted}{why}", bold=True)
        if report.missed:
            terminal.warning(f"  not looked up: {', '.join(report.missed)}")
        rows = [(f.severity, f.identity, f"{f.package} {f.version}", f.fixed or "-") for f in _worst_first(report)]
        if rows:
            terminal.table(("severity", "vulnerability", "package", "fixed in"), rows)


def _worst_first(report: Report) -> list[Finding]:
    from estiba.deploy.image.vulnerability_scan import SEVERITIES

    return sorted(report.findings, key=lambda finding: SEVERITIES.index(finding.severity))
