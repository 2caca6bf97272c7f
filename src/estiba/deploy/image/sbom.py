"""Bill of materials: what is in an image, in CycloneDX 1.6 and SPDX 2.3, and how it was made, in SLSA provenance 1."""

from __future__ import annotations

import json
import platform
import re
import sys
import uuid
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from email.message import Message
from email.parser import HeaderParser
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import estiba
from estiba.deploy.image.build_context import Context
from estiba.deploy.image.requirements import sha256, wheel_name
from estiba.deploy.image.size_report import Contents

_SPACE = uuid.UUID("6e0c6a3c-4b8e-5d0f-9f0c-2f7a4b1d9e55")
"""Names of documents are derived from what they describe, so that equal images have equal documents."""

_SPDX_WORD = re.compile(r"[^A-Za-z0-9.-]+")


class Source(NamedTuple):
    """A source package, of which several packages of a distribution may be built."""

    name: str
    version: str


@dataclass(frozen=True)
class Part:
    """One thing in an image.

    Args:
        kind: `library`, `operating-system`, `platform` or `machine-learning-model` (words of CycloneDX).
        purl: package URL. source: what it was built from, where it is a package of a distribution.
        sha256: of the wheel or artifact; empty where there is none. licence: as it says itself.
    """

    kind: str
    name: str
    version: str
    purl: str
    source: Source | None = None
    sha256: str = ""
    licence: str = ""


def parts(context: Context, contents: Contents | None = None) -> list[Part]:
    """What an image holds: wheels, models, Python and, where the image itself says so, Debian's packages.

    Args:
        contents: of the image, once it is built.
    """
    found = [*_wheels(context.wheels), *_wheels(sorted((context.folder / "code").glob("*.whl")))]
    held = {} if context.recipe.registry else context.recipe.models
    for name, (version, digest) in sorted(held.items()):
        purl = f"{_purl('generic', name, version)}?checksum=sha256:{digest}"
        found.append(Part("machine-learning-model", name, version, purl, sha256=digest))
    if contents is not None:
        found += _system(contents)
    python = context.recipe.python
    found.append(Part("platform", "python", python, f"pkg:generic/python@{python}", licence="PSF-2.0"))
    return found


def _wheels(paths: Iterable[Path]) -> Iterator[Part]:
    for path in paths:
        name, version = wheel_name(path)
        yield Part("library", name, version, _purl("pypi", name, version), None, sha256(path), _licence(path))


def _licence(wheel: Path) -> str:
    """What a wheel says of its licence, in a line."""
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        if not names:
            return ""
        about = HeaderParser().parsestr(archive.read(names[0]).decode(errors="replace"))
    said = about.get("License-Expression") or about.get("License") or ""
    if said and "\n" not in said and len(said) < 100:
        return said.strip()
    kinds = [line.rpartition("::")[2].strip() for line in about.get_all("Classifier", []) if line.startswith("License")]
    return kinds[-1] if kinds else ""


def _system(contents: Contents) -> Iterator[Part]:
    """Debian's packages as the image lists them: dpkg's database, or one file per package where there is no dpkg."""
    release = contents.texts.get("etc/os-release") or contents.texts.get("usr/lib/os-release") or b""
    about = dict(re.findall(r'^(\w+)="?([^"\n]*)"?$', release.decode(errors="replace"), re.MULTILINE))
    distribution, version = about.get("ID", "linux"), about.get("VERSION_ID", "")
    if about:
        purl = f"pkg:generic/{distribution}@{version}"
        yield Part("operating-system", distribution, version, purl)
    records = [
        content.decode(errors="replace")
        for path, content in sorted(contents.texts.items())
        if path == "var/lib/dpkg/status" or path.startswith("var/lib/dpkg/status.d/")
    ]
    for record in re.split(r"\n{2,}", "\n\n".join(records)):
        said = HeaderParser().parsestr(record)
        # What was removed stays on the list as long as its configuration does.
        if said.get("Package") and said.get("Version") and said.get("Status", "installed").endswith("installed"):
            yield _debian(said, f"{distribution}-{version}")


def _debian(said: Message, release: str) -> Part:
    """A package of Debian, with the source it was built from: known weaknesses are listed by that."""
    name, version = said["Package"], said["Version"]
    source, _, of_source = said.get("Source", name).partition(" (")
    origin = Source(source, of_source.rstrip(")") or version)
    upstream = source if origin.version == version else f"{source}@{origin.version}"
    qualifiers = {"arch": said.get("Architecture", "all"), "distro": release}
    if upstream != name:
        qualifiers["upstream"] = upstream
    words = "&".join(f"{key}={quote(value, safe='')}" for key, value in qualifiers.items())
    return Part("library", name, version, f"{_purl('deb', release.partition('-')[0], name, version)}?{words}", origin)


def _purl(kind: str, *words: str) -> str:
    """A package URL without qualifiers; the last word is the version. In one, `+` is no letter."""
    *names, version = (quote(word, safe=":~") for word in words)
    return f"pkg:{kind}/{'/'.join(names)}@{version}"


def cyclonedx(image: str, found: Sequence[Part]) -> str:
    """The bill in CycloneDX 1.6."""
    document = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{_identity(image, found)}",
        "version": 1,
        "metadata": {
            "tools": {"components": [{"type": "application", "name": "estiba", "version": estiba.__version__}]},
            "component": {"type": "container", "name": image, "bom-ref": image},
        },
        "components": [_component(part) for part in found],
        "dependencies": [{"ref": image, "dependsOn": sorted({part.purl for part in found})}],
    }
    return json.dumps(document, indent=2) + "\n"


def _component(part: Part) -> dict[str, Any]:
    component: dict[str, Any] = {
        "type": part.kind,
        "bom-ref": part.purl,
        "name": part.name,
        "version": part.version,
        "purl": part.purl,
    }
    if part.sha256:
        component["hashes"] = [{"alg": "SHA-256", "content": part.sha256}]
    if part.licence:
        component["licenses"] = [{"license": {"name": part.licence}}]
    if part.source:
        # CycloneDX has no word for it: Trivy reads these, and Grype the qualifier `upstream` of the package URL.
        words = {"SrcName": part.source.name, "SrcVersion": part.source.version}
        component["properties"] = [{"name": f"aquasecurity:trivy:{name}", "value": v} for name, v in words.items()]
    return component


def spdx(image: str, found: Sequence[Part]) -> str:
    """The bill in SPDX 2.3."""
    identity = _identity(image, found)
    root = {
        "SPDXID": "SPDXRef-image",
        "name": image,
        "downloadLocation": "NOASSERTION",
        "filesAnalyzed": False,
        "primaryPackagePurpose": "CONTAINER",
    }
    packages = [_package(n, part) for n, part in enumerate(found)]
    document = {
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": image,
        "documentNamespace": f"urn:uuid:{identity}",
        "creationInfo": {"created": "1970-01-01T00:00:00Z", "creators": [f"Tool: estiba-{estiba.__version__}"]},
        "packages": [root, *packages],
        "relationships": [
            _relation("SPDXRef-DOCUMENT", "DESCRIBES", "SPDXRef-image"),
            *(_relation("SPDXRef-image", "CONTAINS", package["SPDXID"]) for package in packages),
        ],
    }
    return json.dumps(document, indent=2) + "\n"


def _package(number: int, part: Part) -> dict[str, Any]:
    package: dict[str, Any] = {
        "SPDXID": f"SPDXRef-{number}-{_SPDX_WORD.sub('-', part.name)}",
        "name": part.name,
        "versionInfo": part.version,
        "downloadLocation": "NOASSERTION",
        "filesAnalyzed": False,
        "licenseDeclared": "NOASSERTION",
        "licenseComments": part.licence or "It does not say.",
        "externalRefs": [
            {"referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl", "referenceLocator": part.purl}
        ],
    }
    if part.sha256:
        package["checksums"] = [{"algorithm": "SHA256", "checksumValue": part.sha256}]
    if part.source:
        package["sourceInfo"] = f"built from {part.source.name} {part.source.version}"
    return package


def _relation(one: str, how: str, other: str) -> dict[str, str]:
    return {"spdxElementId": one, "relationshipType": how, "relatedSpdxElement": other}


def _identity(image: str, found: Sequence[Part]) -> uuid.UUID:
    return uuid.uuid5(_SPACE, json.dumps([image, *((part.purl, part.sha256) for part in found)]))


@dataclass(frozen=True)
class Origin:
    """What an image was made from besides what was gathered for it: its base image, or the Python of this machine.

    Args:
        sha256: without the algorithm's name; empty where it is not known.
    """

    uri: str
    sha256: str


def base_image(name: str, digest: str) -> Origin:
    """A base image, known by the digest of its manifest or, where no registry gave it one, of its configuration."""
    return Origin(f"pkg:docker/{name.replace(':', '@')}", digest.removeprefix("sha256:"))


def this_python() -> Origin:
    """The interpreter that runs this, out of which an image without a base image is made."""
    return Origin(f"pkg:generic/python@{platform.python_version()}", sha256(Path(sys.executable).resolve()))


@dataclass(frozen=True)
class Made:
    """How an image was made.

    Args:
        digest: of the image, with its algorithm. builder: such as `docker`.
    """

    digest: str
    builder: str
    origin: Origin


def provenance(context: Context, made: Made) -> str:
    """How an image was made, as an in-toto statement with SLSA provenance 1; it is not signed."""
    recipe = context.recipe
    materials = [_material(part.purl, part.sha256) for part in parts(context) if part.sha256]
    materials.append(_material(made.origin.uri, made.origin.sha256))
    statement = {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": recipe.image, "digest": {"sha256": made.digest.removeprefix("sha256:")}}],
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {
            "buildDefinition": {
                "buildType": "urn:estiba:build:1",
                "externalParameters": {"service": recipe.service, "style": recipe.style, "python": recipe.python},
                "resolvedDependencies": materials,
            },
            "runDetails": {"builder": {"id": f"urn:estiba:{estiba.__version__}:{made.builder}"}},
        },
    }
    return json.dumps(statement, indent=2) + "\n"


def _material(uri: str, digest: str) -> dict[str, Any]:
    return {"uri": uri, "digest": {"sha256": digest}} if digest else {"uri": uri}


def pushed(statement: str, digest: str) -> str:
    """The same provenance for the image as a registry has it.

    Args:
        digest: of its manifest there, without `sha256:`.
    """
    changed = json.loads(statement)
    changed["subject"][0]["digest"] = {"sha256": digest}
    return json.dumps(changed, indent=2) + "\n"
