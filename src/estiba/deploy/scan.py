"""Scan: known weaknesses of what is in an image, by whichever scanner is here; what nobody looked up is never clean."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from estiba.core import shell
from estiba.core.errors import NotFound, Unavailable
from estiba.core.stores.disk import explained
from estiba.deploy.building import KEPT

BILL, LOCK = "sbom.cdx.json", "requirements.txt"

SEVERITIES = ("critical", "high", "medium", "low", "unknown")

_TIMEOUT = 600.0
_STAMPS = re.compile(r"^(\d{4}-\S+ +)?((FATAL|ERROR|WARN|INFO) +)?(Fatal error +)?")
_LIST = re.compile(r"(: \d+ errors? occurred)?:$")


@dataclass(frozen=True)
class Finding:
    """A known weakness of one package.

    Args:
        severity: one of SEVERITIES. fixed: the first version without it; empty where none is known.
    """

    identity: str
    package: str
    version: str
    severity: str
    fixed: str


@dataclass(frozen=True)
class Report:
    """What one scanner said of one image.

    Args:
        looked_up: packages that it looked up; None where it does not say.
        missed: packages of the image that it did not.
        trouble: why it looked up nothing at all; empty where it did.
    """

    scanner: str
    findings: tuple[Finding, ...] = ()
    looked_up: tuple[str, ...] | None = None
    missed: tuple[str, ...] = ()
    trouble: str = ""

    @property
    def verdict(self) -> str:
        """`clean` only where every package was looked up and nothing was found."""
        if self.trouble:
            return "not looked up"
        if self.findings:
            return "findings"
        return "incomplete" if self.missed or self.looked_up == () else "clean"


@dataclass(frozen=True)
class Scanner:
    """A program that looks packages up.

    Args:
        words: its arguments, in which BILL and LOCK stand for files. codes: exit codes with which it has looked.
        read: its JSON as a report. sources: whether it knows Debian's packages by what they were built from, as lists
            of weaknesses do; where it does not, it finds nothing of those that have another name than their source.
    """

    name: str
    words: tuple[str, ...]
    codes: tuple[int, ...]
    read: Callable[[Any], Report]
    sources: bool = True


def scan(project: Path, service: str) -> list[Report]:
    """Asks every scanner that is here about the image of a service as it was built last.

    Raises:
        NotFound: the image was not built yet. Unavailable: no scanner is here.
    """
    folder = project / KEPT / service
    if not (folder / BILL).is_file():
        raise NotFound(f"There is no bill of materials of {service}.", hint=f"Build it first: estiba build {service}")
    here = [scanner for scanner in SCANNERS if shutil.which(scanner.name)]
    if not here:
        names = ", ".join(scanner.name for scanner in SCANNERS)
        raise Unavailable("No scanner is installed, so nothing was looked up.", hint=f"Install one of: {names}.")
    return [_ask(scanner, folder) for scanner in here]


def _ask(scanner: Scanner, folder: Path) -> Report:
    words = [word.replace(BILL, str(folder / BILL)).replace(LOCK, str(folder / LOCK)) for word in scanner.words]
    with explained("read", folder):
        if not (folder / LOCK).read_text().strip() and LOCK in " ".join(scanner.words):
            return Report(scanner.name, trouble="the image has no Python packages")
    done = shell.run([scanner.name, *words], timeout=_TIMEOUT)
    if done.code not in scanner.codes:
        return Report(scanner.name, trouble=_sentence(done.said))
    try:
        report = scanner.read(json.loads(done.output))
    except (ValueError, KeyError, TypeError, AttributeError):
        return Report(scanner.name, trouble=_sentence(done.said) or "it answered nothing that can be read")
    if report.trouble or report.looked_up is None:
        return report
    with explained("read", folder / BILL):
        return _completed(report, json.loads((folder / BILL).read_bytes()), sources=scanner.sources)


def _completed(report: Report, bill: Any, *, sources: bool) -> Report:
    """The report with what is on the image's bill and was not looked up."""
    # Estiba itself, which no lock of an image names, is what asks here.
    known = {_plain(name) for name in ("estiba", *(report.looked_up or ()), *report.missed)}
    missed = [
        part["name"]
        for part in bill.get("components", ())
        if part["type"] == "library" and (_plain(part["name"]) not in known or (not sources and _renamed(part["purl"])))
    ]
    return replace(report, missed=(*report.missed, *missed))


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _renamed(purl: str) -> bool:
    """Whether a package was built from a source of another name."""
    return "&upstream=" in purl


def unknown(reports: Sequence[Report]) -> set[str] | None:
    """Packages that no scanner looked up; None where none looked up anything."""
    useful = [set(report.missed) for report in reports if not report.trouble and report.looked_up != ()]
    return set.intersection(*useful) if useful else None


def _sentence(said: str) -> str:
    """The first line that tells of an error, without what a log puts before it and a list's end announces."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    marked = [line for line in lines if "rror" in line] or lines
    shown = _STAMPS.sub("", marked[0].replace("\t", " ")) if marked else "it said nothing"
    return _LIST.sub("", shown)[:300]


def _trivy(found: Any) -> Report:
    results = found.get("Results") or []
    packages = tuple(package["Name"] for result in results for package in result.get("Packages") or ())
    findings = [
        Finding(
            entry["VulnerabilityID"],
            entry["PkgName"],
            entry.get("InstalledVersion", ""),
            _severity(entry.get("Severity")),
            entry.get("FixedVersion", ""),
        )
        for result in results
        for entry in result.get("Vulnerabilities") or ()
    ]
    return Report("trivy", tuple(findings), packages)


def _grype(found: Any) -> Report:
    findings = [
        Finding(
            match["vulnerability"]["id"],
            match["artifact"]["name"],
            match["artifact"]["version"],
            _severity(match["vulnerability"].get("severity")),
            next(iter(match["vulnerability"].get("fix", {}).get("versions") or ()), ""),
        )
        for match in found["matches"]
    ]
    return Report("grype", tuple(findings))


def _osv(found: Any) -> Report:
    findings, looked_up = [], []
    for result in found["results"]:
        for package in result["packages"]:
            about = package["package"]
            looked_up.append(about["name"])
            for entry in package.get("vulnerabilities") or ():
                said = (entry.get("database_specific") or {}).get("severity")
                findings.append(Finding(entry["id"], about["name"], about["version"], _severity(said), _osv_fix(entry)))
    return Report("osv-scanner", tuple(findings), tuple(looked_up))


def _osv_fix(entry: Any) -> str:
    events = [
        event for affected in entry.get("affected") or () for r in affected.get("ranges") or () for event in r["events"]
    ]
    return next((str(event["fixed"]) for event in events if "fixed" in event), "")


def _pip_audit(found: Any) -> Report:
    """pip-audit says "no known vulnerabilities" also of packages that it skipped."""
    missed = tuple(entry["name"] for entry in found["dependencies"] if "skip_reason" in entry)
    looked_up = [entry for entry in found["dependencies"] if "skip_reason" not in entry]
    findings = [
        Finding(weak["id"], entry["name"], entry["version"], "unknown", next(iter(weak.get("fix_versions") or ()), ""))
        for entry in looked_up
        for weak in entry.get("vulns") or ()
    ]
    trouble = "none of the packages is known to its service" if missed and not looked_up else ""
    return Report("pip-audit", tuple(findings), tuple(entry["name"] for entry in looked_up), missed, trouble)


def _severity(said: str | None) -> str:
    word = (said or "").lower()
    word = {"moderate": "medium", "negligible": "low"}.get(word, word)
    return word if word in SEVERITIES else "unknown"


SCANNERS: Sequence[Scanner] = (
    Scanner("trivy", ("sbom", "--quiet", "--list-all-pkgs", "--format", "json", BILL), (0,), _trivy),
    Scanner("grype", ("--quiet", "--output", "json", f"sbom:{BILL}"), (0,), _grype),
    Scanner(
        "osv-scanner",
        ("scan", "source", "--all-packages", "--format", "json", "--lockfile", BILL),
        (0, 1),
        _osv,
        sources=False,
    ),
    Scanner(
        "pip-audit",
        ("--requirement", LOCK, "--no-deps", "--disable-pip", "--progress-spinner", "off", "--format", "json"),
        (0, 1),
        _pip_audit,
    ),
)
