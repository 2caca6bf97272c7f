"""Scanning: each scanner's own JSON, and that nothing is called clean which nobody looked up."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from estiba.core.errors import NotFound, Unavailable
from estiba.deploy import scan
from estiba.deploy.scan import SCANNERS, Finding, Report

TRIVY = {
    "Results": [
        {
            "Packages": [{"Name": "jinja2"}, {"Name": "click"}],
            "Vulnerabilities": [
                {
                    "VulnerabilityID": "CVE-2019-10906",
                    "PkgName": "jinja2",
                    "InstalledVersion": "2.10",
                    "FixedVersion": "2.10.1",
                    "Severity": "HIGH",
                }
            ],
        }
    ]
}
GRYPE = {
    "matches": [
        {
            "vulnerability": {"id": "GHSA-462w-v97r-4m45", "severity": "High", "fix": {"versions": ["2.10.1"]}},
            "artifact": {"name": "jinja2", "version": "2.10"},
        }
    ]
}
OSV = {
    "results": [
        {
            "packages": [
                {
                    "package": {"name": "jinja2", "version": "2.10"},
                    "vulnerabilities": [
                        {
                            "id": "GHSA-462w-v97r-4m45",
                            "database_specific": {"severity": "MODERATE"},
                            "affected": [{"ranges": [{"events": [{"introduced": "0"}, {"fixed": "2.10.1"}]}]}],
                        }
                    ],
                }
            ]
        }
    ]
}
PIP_AUDIT = {
    "dependencies": [
        {"name": "jinja2", "version": "2.10", "vulns": [{"id": "PYSEC-2019-217", "fix_versions": ["2.10.1"]}]},
        {"name": "click", "version": "8.1", "vulns": []},
        {"name": "mine", "skip_reason": "Dependency not found on PyPI"},
    ]
}


def read(name: str, answer: Any) -> Report:
    return next(scanner for scanner in SCANNERS if scanner.name == name).read(answer)


@pytest.mark.parametrize(
    ("name", "answer", "identity", "severity"),
    [
        ("trivy", TRIVY, "CVE-2019-10906", "high"),
        ("grype", GRYPE, "GHSA-462w-v97r-4m45", "high"),
        ("osv-scanner", OSV, "GHSA-462w-v97r-4m45", "medium"),
        ("pip-audit", PIP_AUDIT, "PYSEC-2019-217", "unknown"),
    ],
)
def test_what_each_scanner_says(name: str, answer: Any, identity: str, severity: str) -> None:
    report = read(name, answer)
    assert report.findings == (Finding(identity, "jinja2", "2.10", severity, "2.10.1"),)
    assert report.verdict == "findings"


@pytest.mark.parametrize(
    ("name", "answer", "verdict"),
    [
        ("trivy", {"Results": [{"Packages": [{"Name": "click"}]}]}, "clean"),
        ("trivy", {}, "incomplete"),
        ("grype", {"matches": []}, "clean"),
        ("osv-scanner", {"results": []}, "clean"),
        ("pip-audit", {"dependencies": [{"name": "a", "version": "1", "vulns": []}]}, "clean"),
        (
            "pip-audit",
            {"dependencies": [{"name": "a", "version": "1"}, {"name": "b", "skip_reason": "?"}]},
            "incomplete",
        ),
        ("pip-audit", {"dependencies": [{"name": "b", "skip_reason": "?"}]}, "not looked up"),
    ],
)
def test_clean_means_looked_up(name: str, answer: Any, verdict: str) -> None:
    assert read(name, answer).verdict == verdict


def scanner(folder: Path, name: str, script: str) -> None:
    """A program of that name, as scanners are found on PATH."""
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


@pytest.fixture
def built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project in which the image `models` was built, and a PATH on which no scanner is."""
    folder = tmp_path / scan.KEPT / "models"
    folder.mkdir(parents=True)
    (folder / scan.BILL).write_text("{}")
    (folder / scan.LOCK).write_text("click==8.1\n")
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    return tmp_path


def test_no_scanner_is_not_clean(built: Path) -> None:
    with pytest.raises(Unavailable, match="nothing was looked up"):
        scan.scan(built, "models")
    with pytest.raises(NotFound, match="no bill of materials of web"):
        scan.scan(built, "web")


def test_a_scanner_without_its_database_is_not_clean(built: Path) -> None:
    scanner(built / "bin", "trivy", "echo 'FATAL error: failed to download vulnerability DB' >&2; exit 1")
    scanner(built / "bin", "grype", "echo nothing to read")
    trivy, grype = scan.scan(built, "models")
    assert (trivy.verdict, grype.verdict) == ("not looked up", "not looked up")
    assert "failed to download" in trivy.trouble


def test_a_scanner_gets_the_files_of_the_image(built: Path) -> None:
    answer = json.dumps(PIP_AUDIT)
    scanner(built / "bin", "pip-audit", f"[ -f \"$2\" ] || exit 9\necho '{answer}'\nexit 1")
    (report,) = scan.scan(built, "models")
    assert report.findings[0].package == "jinja2"
    assert report.missed == ("mine",)
