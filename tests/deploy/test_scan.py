"""Scanning: each scanner's own JSON, and that nothing is called clean which nobody looked up."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import trivy_db

from estiba.cli.main import run
from estiba.core.errors import NotFound, Unavailable
from estiba.deploy import sbom, scan
from estiba.deploy.sbom import Part, Source
from estiba.deploy.scan import SCANNERS, Finding, Report

PATH = os.environ.get("PATH", "")

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
        ("osv-scanner", {"results": []}, "incomplete"),
        ("osv-scanner", {"results": [{"packages": [{"package": {"name": "a", "version": "1"}}]}]}, "clean"),
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
    said = "2026-11-21T11:09:22Z\tFATAL\tFatal error\tDB error: failed to download vulnerability DB: 1 error occurred:"
    scanner(built / "bin", "trivy", f"echo '{said}' >&2; exit 1")
    scanner(built / "bin", "grype", "echo nothing to read")
    trivy, grype = scan.scan(built, "models")
    assert (trivy.verdict, grype.verdict) == ("not looked up", "not looked up")
    assert trivy.trouble == "DB error: failed to download vulnerability DB"


def test_a_scanner_gets_the_files_of_the_image(built: Path) -> None:
    answer = json.dumps(PIP_AUDIT)
    scanner(built / "bin", "pip-audit", f"[ -f \"$2\" ] || exit 9\necho '{answer}'\nexit 1")
    (report,) = scan.scan(built, "models")
    assert report.findings[0].package == "jinja2"
    assert report.missed == ("mine",)


DEB = "?arch=amd64&distro=debian-12"
PARTS = (
    Part("library", "typing-extensions", "4.12.2", "pkg:pypi/typing-extensions@4.12.2"),
    Part("library", "jinja2", "2.10", "pkg:pypi/jinja2@2.10"),
    Part("library", "estiba", "0.1.0", "pkg:pypi/estiba@0.1.0"),
    Part("operating-system", "debian", "12", "pkg:generic/debian@12"),
    Part(
        "library",
        "libssl3",
        "3.0.1-1",
        f"pkg:deb/debian/libssl3@3.0.1-1{DEB}&upstream=openssl",
        Source("openssl", "3.0.1-1"),
    ),
    Part("library", "tzdata", "2025b-0", f"pkg:deb/debian/tzdata@2025b-0{DEB}", Source("tzdata", "2025b-0")),
)


def bill(project: Path) -> None:
    """Gives the image packages of Python and of Debian."""
    (project / scan.KEPT / "models" / scan.BILL).write_text(sbom.cyclonedx("toys/models:1", PARTS))
    (project / scan.KEPT / "models" / scan.LOCK).write_text("typing-extensions==4.12.2\njinja2==2.10\n")


def test_what_a_scanner_does_not_know_of_is_missed(built: Path) -> None:
    """Lists of weaknesses name Debian's sources, and pip-audit knows Python only: neither may call libssl3 clean."""
    bill(built)
    names = ("typing_extensions", "jinja2", "estiba", "libssl3", "tzdata")
    osv = {"results": [{"packages": [{"package": {"name": name, "version": "1"}} for name in names]}]}
    audit = {"dependencies": [{"name": name, "version": "1", "vulns": []} for name in names[:2]]}
    scanner(built / "bin", "osv-scanner", f"echo '{json.dumps(osv)}'")
    scanner(built / "bin", "pip-audit", f"echo '{json.dumps(audit)}'")
    asked, audited = scan.scan(built, "models")
    assert (asked.verdict, asked.missed) == ("incomplete", ("libssl3",))
    assert (audited.verdict, audited.missed) == ("incomplete", ("libssl3", "tzdata"))
    assert scan.unknown([asked, audited]) == {"libssl3"}


def test_all_scanners_together_may_know_everything() -> None:
    one, other = Report("a", looked_up=("x",), missed=("y",)), Report("b", looked_up=("y",), missed=("x",))
    assert scan.unknown([one]) == {"y"}
    assert scan.unknown([one, other]) == set()
    assert scan.unknown([Report("c", trouble="no database")]) is None
    assert scan.unknown([Report("d", looked_up=())]) is None


@pytest.fixture
def trivy(built: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The project with Trivy on PATH, and nothing that Trivy could have downloaded before."""
    found = shutil.which("trivy", path=PATH)
    if found is None:
        pytest.skip("trivy is not here: scripts/lab/tools trivy")
    (built / "bin" / "trivy").symlink_to(found)
    monkeypatch.setenv("TRIVY_CACHE_DIR", str(built / "cache"))
    (built / "estiba.toml").write_text('[project]\nname = "toys"\n')
    bill(built)
    return built


def test_a_real_finding_of_a_real_scanner(
    trivy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Trivy itself, with a database that knows two weaknesses: one of a Python package, one of a Debian source."""
    monkeypatch.setenv("TRIVY_SKIP_DB_UPDATE", "true")
    trivy_db.write(trivy / "cache", {"jinja2": ("CVE-2019-10906", "2.10.1")}, {"openssl": ("CVE-2022-0778", "3.0.2-1")})
    assert run(["scan", "-C", str(trivy)]) == 1
    said = capsys.readouterr().out
    assert "models: trivy: 2 known weaknesses (5 packages)" in said
    (report,) = scan.scan(trivy, "models")
    assert set(report.findings) == {
        Finding("CVE-2019-10906", "jinja2", "2.10", "high", "2.10.1"),
        Finding("CVE-2022-0778", "libssl3", "3.0.1-1", "high", "3.0.2-1"),
    }
    assert not report.missed


def test_a_real_scanner_that_finds_nothing(
    trivy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TRIVY_SKIP_DB_UPDATE", "true")
    trivy_db.write(trivy / "cache", {"jinja2": ("CVE-2019-10906", "2.10")}, {"other": ("CVE-2022-0778", "3.0.2-1")})
    assert run(["scan", "-C", str(trivy)]) == 0
    assert "models: trivy: clean (5 packages)" in capsys.readouterr().out


def test_a_real_scanner_without_its_database(
    trivy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TRIVY_DB_REPOSITORY", "127.0.0.1:1/nothing/here:2")
    assert run(["scan", "-C", str(trivy)]) == 6
    assert "models: trivy: not looked up: " in capsys.readouterr().out


def test_pip_audit_that_reaches_nobody(built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = shutil.which("pip-audit", path=PATH)
    if found is None:
        pytest.skip("pip-audit is not here: scripts/lab/tools pip-audit")
    (built / "bin" / "pip-audit").symlink_to(found)
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    bill(built)
    (report,) = scan.scan(built, "models")
    assert report.verdict == "not looked up"
    assert report.trouble
