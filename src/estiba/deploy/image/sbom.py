"""Write the bill of materials of an image in CycloneDX 1.6, and its provenance in SLSA provenance 1."""

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
from estiba.deploy.image.build_context import BuildContext
from estiba.deploy.image.requirements import sha256, wheel_name
from estiba.deploy.image.size_report import Contents
from estiba.deploy.image.spec import Contents as ModelContents

_NAMESPACE = uuid.UUID("6e0c6a3c-4b8e-5d0f-9f0c-2f7a4b1d9e55")
"""The identifier of a bill is derived from its parts, so that equal images have equal bills."""


class Source(NamedTuple):
    """A source package, of which several packages of a distribution may be built."""

    name: str
    version: str


@dataclass(frozen=True)
class Part:
    """One part of an image.

    Args:
        kind: `library`, `operating-system`, `platform` or `machine-learning-model`, types of CycloneDX.
        purl: package URL. source: the source package, for a package of a distribution.
        sha256: of the wheel or artifact; empty without one. licence: as its metadata states it.
    """

    kind: str
    name: str
    version: str
    purl: str
    source: Source | None = None
    sha256: str = ""
    licence: str = ""


def parts(context: BuildContext, contents: Contents | None = None) -> list[Part]:
    """The parts of an image: wheels, models, Python and the Debian packages that the image itself lists.

    Args:
        contents: the files of the image, once it is built.
    """
    listed = [*_wheels(context.wheels), *_wheels(sorted((context.folder / "code").glob("*.whl")))]
    listed += [] if context.spec.contents.registry else _models(context.spec.contents)
    if contents is not None:
        listed += _system(contents)
    python = context.spec.contents.python
    listed.append(Part("platform", "python", python, f"pkg:generic/python@{python}", licence="PSF-2.0"))
    return listed


def _models(spec: ModelContents) -> Iterator[Part]:
    for name in sorted(spec.models):
        for version, digest in spec.versions(name).items():
            purl = f"{_purl('generic', name, version)}?checksum=sha256:{digest}"
            yield Part("machine-learning-model", name, version, purl, sha256=digest)


def _wheels(paths: Iterable[Path]) -> Iterator[Part]:
    for path in paths:
        name, version = wheel_name(path)
        yield Part("library", name, version, _purl("pypi", name, version), None, sha256(path), _licence(path))


def _licence(wheel: Path) -> str:
    """The licence of a wheel in one line, from its metadata; empty without one."""
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        if not names:
            return ""
        metadata = HeaderParser().parsestr(archive.read(names[0]).decode(errors="replace"))
    licence = metadata.get("License-Expression") or metadata.get("License") or ""
    if licence and "\n" not in licence and len(licence) < 100:
        return licence.strip()
    kinds = [
        line.rpartition("::")[2].strip() for line in metadata.get_all("Classifier", []) if line.startswith("License")
    ]
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
        package = HeaderParser().parsestr(record)
        # A removed package stays in the database as long as its configuration files do.
        installed = package.get("Status", "installed").endswith("installed")
        if package.get("Package") and package.get("Version") and installed:
            yield _debian(package, f"{distribution}-{version}")


def _debian(package: Message, release: str) -> Part:
    """A Debian package with its source package, by which vulnerabilities are listed."""
    name, version = package["Package"], package["Version"]
    source, _, source_version = package.get("Source", name).partition(" (")
    origin = Source(source, source_version.rstrip(")") or version)
    upstream = source if origin.version == version else f"{source}@{origin.version}"
    qualifiers = {"arch": package.get("Architecture", "all"), "distro": release}
    if upstream != name:
        qualifiers["upstream"] = upstream
    query = "&".join(f"{key}={quote(value, safe='')}" for key, value in qualifiers.items())
    return Part("library", name, version, f"{_purl('deb', release.partition('-')[0], name, version)}?{query}", origin)


def _purl(kind: str, *segments: str) -> str:
    """A package URL without qualifiers; the last segment is the version. `+` is quoted, as the standard asks."""
    *names, version = (quote(segment, safe=":~") for segment in segments)
    return f"pkg:{kind}/{'/'.join(names)}@{version}"


def cyclonedx(image: str, listed: Sequence[Part]) -> str:
    """The bill of materials of an image in CycloneDX 1.6."""
    document = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{_identity(image, listed)}",
        "version": 1,
        "metadata": {
            "tools": {"components": [{"type": "application", "name": "estiba", "version": estiba.__version__}]},
            "component": {"type": "container", "name": image, "bom-ref": image},
        },
        "components": [_component(part) for part in listed],
        "dependencies": [{"ref": image, "dependsOn": sorted({part.purl for part in listed})}],
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
        # CycloneDX has no field for it: Trivy reads these, and Grype the qualifier `upstream` of the package URL.
        properties = {"SrcName": part.source.name, "SrcVersion": part.source.version}
        component["properties"] = [{"name": f"aquasecurity:trivy:{name}", "value": v} for name, v in properties.items()]
    return component


def _identity(image: str, listed: Sequence[Part]) -> uuid.UUID:
    return uuid.uuid5(_NAMESPACE, json.dumps([image, *((part.purl, part.sha256) for part in listed)]))


@dataclass(frozen=True)
class Origin:
    """The base image of an image, or the Python of this machine that it was made of.

    Args:
        sha256: without the algorithm's name; empty if unknown.
    """

    uri: str
    sha256: str


def base_image(name: str, digest: str) -> Origin:
    """A base image with the digest of its manifest or, if it comes from no registry, of its configuration."""
    return Origin(f"pkg:docker/{name.replace(':', '@')}", digest.removeprefix("sha256:"))


def this_python() -> Origin:
    """The running interpreter, of which an image without a base image is made."""
    return Origin(f"pkg:generic/python@{platform.python_version()}", sha256(Path(sys.executable).resolve()))


@dataclass(frozen=True)
class BuildRecord:
    """The builder of an image and its result.

    Args:
        digest: of the image, with its algorithm. builder: such as `docker`.
    """

    digest: str
    builder: str
    origin: Origin


def provenance(context: BuildContext, build: BuildRecord) -> str:
    """The provenance of an image: an in-toto statement with SLSA provenance 1. It is not signed."""
    spec = context.spec
    materials = [_material(part.purl, part.sha256) for part in parts(context) if part.sha256]
    materials.append(_material(build.origin.uri, build.origin.sha256))
    statement = {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": spec.image, "digest": {"sha256": build.digest.removeprefix("sha256:")}}],
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {
            "buildDefinition": {
                "buildType": "urn:estiba:build:1",
                "externalParameters": {"service": spec.service, "style": spec.style, "python": spec.contents.python},
                "resolvedDependencies": materials,
            },
            "runDetails": {"builder": {"id": f"urn:estiba:{estiba.__version__}:{build.builder}"}},
        },
    }
    return json.dumps(statement, indent=2) + "\n"


def _material(uri: str, digest: str) -> dict[str, Any]:
    return {"uri": uri, "digest": {"sha256": digest}} if digest else {"uri": uri}


def pushed(statement: str, digest: str) -> str:
    """Change the provenance to the digest that a registry has the image by.

    Args:
        digest: of its manifest there, without `sha256:`.
    """
    changed = json.loads(statement)
    changed["subject"][0]["digest"] = {"sha256": digest}
    return json.dumps(changed, indent=2) + "\n"
