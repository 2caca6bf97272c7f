"""Bills of materials list every wheel by its digest and Debian's packages, and are reproducible to the byte."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from images_made import made

from estiba.deploy.image import sbom
from estiba.deploy.image.build_context import BuildContext
from estiba.deploy.image.requirements import sha256
from estiba.deploy.image.size_report import Contents

pytestmark = pytest.mark.slow

__all__ = ["made"]

LIBSSL = b"""Package: libssl3
Status: install ok installed
Source: openssl
Version: 3.0.15-1~deb12u1
Architecture: amd64
"""
LIBBZ2 = b"""Package: libbz2-1.0
Status: install ok installed
Source: bzip2 (1.0.8-5)
Version: 1.0.8-5+b1
Architecture: amd64
Description: a line
 and more of it
"""
TZDATA = b"Package: tzdata\nStatus: install ok installed\nVersion: 2025b-0+deb12u1\nArchitecture: all\n"
REMOVED = b"Package: gone\nStatus: deinstall ok config-files\nVersion: 1\nArchitecture: all\n"
RELEASE = b'ID=debian\nVERSION_ID="12"\n'


@pytest.mark.slow
def test_each_wheel_is_named_by_its_digest(made: BuildContext) -> None:
    bill = json.loads(sbom.cyclonedx(made.spec.image, sbom.parts(made)))
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    by_name = {component["name"]: component for component in bill["components"]}
    (numpy,) = (path for path in made.wheels if path.name.startswith("numpy-"))
    assert by_name["numpy"]["hashes"] == [{"alg": "SHA-256", "content": sha256(numpy)}]
    assert by_name["numpy"]["purl"] == f"pkg:pypi/numpy@{numpy.name.split('-')[1]}"
    assert "BSD" in by_name["numpy"]["licenses"][0]["license"]["name"]
    assert by_name["churn"]["type"] == "machine-learning-model"
    assert by_name["churn"]["hashes"][0]["content"] == made.spec.contents.models["churn"][1]
    assert "estiba" in by_name
    references = [component["bom-ref"] for component in bill["components"]]
    assert len(references) == len(set(references))
    assert bill["dependencies"][0]["dependsOn"] == sorted(references)


@pytest.mark.slow
def test_the_same_image_has_the_same_bill(made: BuildContext) -> None:
    assert sbom.cyclonedx("a:1", sbom.parts(made)) == sbom.cyclonedx("a:1", sbom.parts(made))
    assert sbom.cyclonedx("a:1", sbom.parts(made)) != sbom.cyclonedx("a:2", sbom.parts(made))


@pytest.mark.parametrize("how", ["dpkg's database", "a file of each"])
def test_debian_as_the_image_lists_it(made: BuildContext, how: str) -> None:
    records = {"libssl3": LIBSSL, "libbz2-1.0": LIBBZ2, "tzdata": TZDATA, "gone": REMOVED}
    listed = {f"var/lib/dpkg/status.d/{name}": record for name, record in records.items()}
    if how == "dpkg's database":
        listed = {"var/lib/dpkg/status": b"\n".join(records.values())}
    contents = Contents()
    contents.add([("etc/os-release", 1, RELEASE), *((path, 1, record) for path, record in listed.items())])
    found = {part.name: part for part in sbom.parts(made, contents) if "pypi" not in part.purl}
    assert sorted(found) == ["churn", "debian", "libbz2-1.0", "libssl3", "python", "tzdata"]
    assert found["debian"].kind == "operating-system"
    deb = "?arch=amd64&distro=debian-12"
    assert found["libssl3"].purl == f"pkg:deb/debian/libssl3@3.0.15-1~deb12u1{deb}&upstream=openssl"
    assert found["libssl3"].source == ("openssl", "3.0.15-1~deb12u1")
    assert found["libbz2-1.0"].purl == f"pkg:deb/debian/libbz2-1.0@1.0.8-5%2Bb1{deb}&upstream=bzip2%401.0.8-5"
    assert found["libbz2-1.0"].source == ("bzip2", "1.0.8-5")
    assert found["tzdata"].purl == "pkg:deb/debian/tzdata@2025b-0%2Bdeb12u1?arch=all&distro=debian-12"


def test_provenance_names_what_went_in(made: BuildContext) -> None:
    base = sbom.base_image(made.spec.contents.base, "sha256:" + "cd" * 32)
    statement = json.loads(sbom.provenance(made, sbom.BuildRecord("sha256:" + "ab" * 32, "docker", base)))
    assert statement["predicateType"] == "https://slsa.dev/provenance/v1"
    assert statement["subject"][0]["digest"] == {"sha256": "ab" * 32}
    materials = statement["predicate"]["buildDefinition"]["resolvedDependencies"]
    assert any(entry["uri"].startswith("pkg:pypi/numpy@") and entry["digest"]["sha256"] for entry in materials)
    assert all(len(entry["digest"]["sha256"]) == 64 for entry in materials)
    python = f"pkg:docker/python@{made.spec.contents.python}-slim"
    assert materials[-1] == {"uri": python, "digest": {"sha256": "cd" * 32}}


def whole(made: BuildContext) -> list[sbom.Part]:
    """Every kind of part."""
    contents = Contents()
    contents.add([("etc/os-release", 1, RELEASE), ("var/lib/dpkg/status", 1, LIBSSL + b"\n" + LIBBZ2)])
    return sbom.parts(made, contents)


def test_cyclonedx_is_what_its_schema_says(made: BuildContext, tmp_path: Path) -> None:
    """The schema as pip-audit brings it."""
    program = shutil.which("pip-audit")
    if program is None:
        pytest.skip("pip-audit, which brings the schema, is not here: scripts/lab/tools pip-audit")
    (schema,) = Path(program).resolve().parent.parent.glob("lib/*/site-packages/cyclonedx/schema/_res/bom-1.6.*.json")
    check = [sys.executable, "-m", "check_jsonschema", "--schemafile", str(schema), "--base-uri", schema.as_uri()]
    bill = sbom.cyclonedx(made.spec.image, whole(made))
    for text, code in ((bill, 0), (bill.replace('"library"', '"book"'), 1)):
        (tmp_path / "bill.json").write_text(text)
        done = subprocess.run([*check, str(tmp_path / "bill.json")], capture_output=True, text=True)
        assert done.returncode == code, done.stdout + done.stderr
