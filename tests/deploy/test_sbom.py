"""Bills of materials: every wheel by its digest, the same bytes twice, and what the image says of Debian."""

from __future__ import annotations

import json

from images_made import made

from estiba.deploy import sbom
from estiba.deploy.context import Context
from estiba.deploy.requirements import sha256
from estiba.deploy.weigh import Contents

__all__ = ["made"]

STATUS = b"Package: libssl3\nStatus: install ok installed\nVersion: 3.0.15-1~deb12u1\nArchitecture: amd64\n"


def test_each_wheel_is_named_by_its_digest(made: Context) -> None:
    bill = json.loads(sbom.cyclonedx(made.recipe.image, sbom.parts(made)))
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    by_name = {component["name"]: component for component in bill["components"]}
    (numpy,) = (path for path in made.wheels if path.name.startswith("numpy-"))
    assert by_name["numpy"]["hashes"] == [{"alg": "SHA-256", "content": sha256(numpy)}]
    assert by_name["numpy"]["purl"] == f"pkg:pypi/numpy@{numpy.name.split('-')[1]}"
    assert "BSD" in by_name["numpy"]["licenses"][0]["license"]["name"]
    assert by_name["churn"]["type"] == "machine-learning-model"
    assert by_name["churn"]["hashes"][0]["content"] == made.recipe.models["churn"][1]
    assert "estiba" in by_name
    references = [component["bom-ref"] for component in bill["components"]]
    assert len(references) == len(set(references))
    assert bill["dependencies"][0]["dependsOn"] == sorted(references)


def test_the_same_parts_in_spdx(made: Context) -> None:
    found = sbom.parts(made)
    bill = json.loads(sbom.spdx(made.recipe.image, found))
    assert bill["spdxVersion"] == "SPDX-2.3"
    assert [package["name"] for package in bill["packages"][1:]] == [part.name for part in found]
    named = {package["SPDXID"] for package in bill["packages"]} | {"SPDXRef-DOCUMENT"}
    assert {relation["relatedSpdxElement"] for relation in bill["relationships"]} <= named


def test_the_same_image_has_the_same_bill(made: Context) -> None:
    assert sbom.cyclonedx("a:1", sbom.parts(made)) == sbom.cyclonedx("a:1", sbom.parts(made))
    assert sbom.cyclonedx("a:1", sbom.parts(made)) != sbom.cyclonedx("a:2", sbom.parts(made))


def test_debian_as_the_image_lists_it(made: Context) -> None:
    release = b'ID=debian\nVERSION_ID="12"\n'
    contents = Contents()
    contents.add([("etc/os-release", 1, release), ("var/lib/dpkg/status.d/libssl3", 1, STATUS)])
    found = {part.name: part for part in sbom.parts(made, contents)}
    assert found["libssl3"].purl == "pkg:deb/debian/libssl3@3.0.15-1~deb12u1?arch=amd64&distro=debian-12"
    assert found["debian"].kind == "operating-system"


def test_provenance_names_what_went_in(made: Context) -> None:
    base = sbom.base_image(made.recipe.base, "sha256:" + "cd" * 32)
    statement = json.loads(sbom.provenance(made, sbom.Made("sha256:" + "ab" * 32, "docker", base)))
    assert statement["predicateType"] == "https://slsa.dev/provenance/v1"
    assert statement["subject"][0]["digest"] == {"sha256": "ab" * 32}
    materials = statement["predicate"]["buildDefinition"]["resolvedDependencies"]
    assert any(entry["uri"].startswith("pkg:pypi/numpy@") and entry["digest"]["sha256"] for entry in materials)
    assert all(len(entry["digest"]["sha256"]) == 64 for entry in materials)
    assert materials[-1] == {"uri": f"pkg:docker/python@{made.recipe.python}-slim", "digest": {"sha256": "cd" * 32}}
