"""Mirror versions of one registry in a folder, under their own numbers.

A server then reads the folder and does not depend on the other registry."""

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
    """The reference of a version that must be exactly that artifact: `churn@3@sha256:...`."""
    return f"{name}@{version}@sha256:{digest}"


def pull(
    registry: str | Path, wanted: Sequence[str], target: Path, aliases: Sequence[tuple[str, str]] = ()
) -> Iterator[Version]:
    """Copy versions into a registry that is a folder; each is verified before its record appears.

    Args:
        registry: the source, a folder or URL. wanted: references, each followed by `@sha256:DIGEST` where it must be
            that artifact. aliases: for the copies, pairs of `NAME@VERSION` and an alias.

    Raises:
        NotFound: no such version. BadArtifact: another digest than was asked for, or damage. Conflict: `target` has
            another version of that number. Unavailable: the registry does not answer.
    """
    # The cache of a remote registry has the layout of a registry's own artifacts: by digest.
    source = open_registry(registry, cache=target / "artifacts")
    for text in wanted:
        ref, digest = _parse(text)
        version = source.resolve(ref)
        if digest not in ("", version.digest):
            hint = (
                "The registry was created again, or it is another one: use the digest that the version has there now."
            )
            raise BadArtifact(f"{version} in {source.url} is sha256:{version.digest}, not sha256:{digest}.", hint=hint)
        _keep(source.fetch(version), version, target)
        yield version
    copies = open_registry(target)
    for text, alias in aliases:
        named = copies.resolve(text)
        copies.set_alias(named.name, alias, named.version)


def _parse(text: str) -> tuple[Ref, str]:
    match = _PINNED.fullmatch(text)
    if match is None and "@sha256:" in text:
        raise EstibaError(f"{text!r} does not end in a digest.", hint="Write NAME@VERSION@sha256: and 64 hex digits.")
    return (Ref.parse(match["ref"]), match["digest"]) if match else (Ref.parse(text), "")


def _keep(packed: Artifact, version: Version, target: Path) -> None:
    """Store the artifact first, so that a version appears with all that it names."""
    names = [MANIFEST, *(entry.path for entry in packed.manifest.files)]
    source = open_store(packed.path.parent)
    settled = target / artifact_folder(version.digest)
    artifact.settle(settled, lambda folder: source.download(version.digest, names, folder), packed.path)
    store, path = open_store(target), version_file(version.name, version.version)
    try:
        store.create(path, encode(version))
    except Conflict:
        if open_registry(target).resolve(Ref(version.name, version.version)).digest != version.digest:
            hint = "Pull into an empty folder, or remove that version there first."
            raise Conflict(f"{target} has another {version}.", hint=hint) from None
