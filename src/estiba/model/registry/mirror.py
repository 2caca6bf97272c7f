"""Pull: versions of one registry in another, under their own numbers, for a server that is not to ask the first."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from estiba.core.errors import BadArtifact, Conflict, EstibaError
from estiba.core.stores.files import open_store
from estiba.model.artifact import artifact
from estiba.model.artifact.artifact import MANIFEST, Artifact
from estiba.model.registry.records import Ref, Version, artifact_folder, encode, version_file
from estiba.model.registry.registry import open_registry

_PINNED = re.compile(r"(?P<ref>.+)@sha256:(?P<digest>[0-9a-f]{64})")


def pinned(name: str, version: str, digest: str) -> str:
    """How a version is written that must be exactly that artifact: `churn@3@sha256:...`."""
    return f"{name}@{version}@sha256:{digest}"


def pull(registry: str | Path, wanted: Sequence[str], target: Path) -> Iterator[Version]:
    """Copies versions into a registry that is a folder; each is verified before its record appears.

    Args:
        registry: where they are, a folder or URL. wanted: references, each with `@sha256:DIGEST` behind it where it
            must be that artifact.

    Raises:
        NotFound: no such version. BadArtifact: another digest than was asked for, or damage. Conflict: `target` has
            another version of that number. Unavailable: the registry does not answer.
    """
    # What a registry fetches from afar it keeps by digest, which is how a registry itself keeps artifacts.
    source = open_registry(registry, cache=target / "artifacts")
    for text in wanted:
        ref, digest = _parse(text)
        version = source.resolve(ref)
        if digest not in ("", version.digest):
            hint = "The registry was made anew, or it is another one: name the version by what it is there now."
            said = f"{version} in {source.url} is sha256:{version.digest}, not sha256:{digest}."
            raise BadArtifact(said, hint=hint)
        _keep(source.fetch(version), version, target)
        yield version


def _parse(text: str) -> tuple[Ref, str]:
    found = _PINNED.fullmatch(text)
    if found is None and "@sha256:" in text:
        raise EstibaError(f"{text!r} ends in no digest.", hint="Write NAME@VERSION@sha256: and 64 hex digits.")
    return (Ref.parse(found["ref"]), found["digest"]) if found else (Ref.parse(text), "")


def _keep(found: Artifact, version: Version, target: Path) -> None:
    """The artifact first: a version appears with all that it names."""
    names = [MANIFEST, *(entry.path for entry in found.manifest.files)]
    source = open_store(found.path.parent)
    settled = target / artifact_folder(version.digest)
    artifact.settle(settled, lambda folder: source.download(version.digest, names, folder), found.path)
    store, path = open_store(target), version_file(version.name, version.version)
    try:
        store.create(path, encode(version))
    except Conflict:
        if open_registry(target).resolve(Ref(version.name, version.version)).digest != version.digest:
            hint = "Pull into an empty folder, or remove that version there first."
            raise Conflict(f"{target} has another {version}.", hint=hint) from None
