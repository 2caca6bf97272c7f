"""The records of a registry: references, versions, aliases, and the names of their files."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeVar

import msgspec

from estiba.core.errors import BadArtifact, EstibaError

DEFAULT_REGISTRY = ".estiba/registry"
"""The default path of the registry, below the working directory."""

PRODUCTION = "production"
"""The alias that a bare name means."""

NAME = re.compile(r"[a-z0-9]([a-z0-9._-]{0,62}[a-z0-9])?")
_NUMBER = re.compile(r"[1-9][0-9]{0,8}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_LETTERS = "Use 1 to 64 lower-case letters, digits, dots, dashes and underscores; a letter or digit at both ends."


class Version(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One version of one model.

    Args:
        version: counts from 1 and is never given twice, not even after a removal.
        digest: 64 hex digits, the artifact.
        created: when it was pushed, RFC 3339 in UTC.
        metrics: those of the manifest, so that a list of versions does not open artifacts.
        removed: when it was removed, RFC 3339 in UTC; empty while it lives.
    """

    name: str
    version: int
    digest: str
    created: str
    metrics: dict[str, float] = {}
    removed: str = ""

    def __str__(self) -> str:
        return f"{self.name}@{self.version}"


class Alias(msgspec.Struct, frozen=True, kw_only=True):
    """A name for a version that may move. `updated` is RFC 3339 in UTC."""

    name: str
    alias: str
    version: int
    updated: str


@dataclass(frozen=True)
class Ref:
    """A reference to a version, as people write it: `bankchurn`, `bankchurn@3` or `bankchurn@production`.

    `selector` is a version number, an alias, or None for the alias production where it is set and the newest
    version where it is not.
    """

    name: str
    selector: int | str | None = None

    @classmethod
    def parse(cls, text: str) -> Ref:
        """Parse a reference.

        Raises:
            EstibaError: it is not a reference; the hint shows the form.
        """
        name, at, selector = text.partition("@")
        check_name(name)
        if not at:
            return cls(name)
        if _NUMBER.fullmatch(selector):
            return cls(name, int(selector))
        check_alias(selector)
        return cls(name, selector)

    def __str__(self) -> str:
        return self.name if self.selector is None else f"{self.name}@{self.selector}"


def check_name(name: str) -> None:
    """Raise EstibaError unless `name` can be the name of a model."""
    if not NAME.fullmatch(name):
        raise EstibaError(f"{name!r} cannot be the name of a model.", hint=_LETTERS)


def check_alias(alias: str) -> None:
    """Raise EstibaError unless `alias` can be an alias."""
    if not NAME.fullmatch(alias):
        raise EstibaError(f"{alias!r} is neither a version number nor an alias.", hint=_LETTERS)
    if alias.isdigit():
        raise EstibaError(f"{alias!r} cannot be an alias.", hint="Numbers are versions, and count from 1.")


def artifact_folder(digest: str) -> str:
    return f"artifacts/{digest}"


def version_file(name: str, number: int) -> str:
    return f"models/{name}/versions/{number}.json"


def alias_file(name: str, alias: str) -> str:
    return f"models/{name}/aliases/{alias}.json"


def numbers(files: Iterable[str]) -> Iterator[int]:
    for file in files:
        stem, _, suffix = file.partition(".")
        if suffix == "json" and _NUMBER.fullmatch(stem):
            yield int(stem)


def active(records: Mapping[int, Version | BadArtifact]) -> Iterator[Version]:
    return (record for record in records.values() if isinstance(record, Version) and not record.removed)


def as_removed(version: Version) -> Version:
    return msgspec.structs.replace(version, removed=now())


def encode(record: Version | Alias) -> bytes:
    return msgspec.json.format(msgspec.json.encode(record, order="deterministic"), indent=2) + b"\n"


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


Record = TypeVar("Record", bound=msgspec.Struct)


def decode_version(data: bytes, url: str, name: str, number: int) -> Version:
    """The version record in a registry at `url`. Raises BadArtifact, which names the file."""
    where, hint = f"{url}/{version_file(name, number)}", f"Remove {name}@{number} and push the model again."
    found = _decode(data, Version, where, hint)
    if (found.name, found.version) != (name, number) or not _DIGEST.fullmatch(found.digest):
        raise BadArtifact(f"{where} is the record of another version: {found}.", hint=hint)
    return found


def decode_alias(data: bytes, url: str, name: str, alias: str) -> Alias:
    """The alias record in a registry at `url`. Raises BadArtifact, which names the file."""
    where, hint = f"{url}/{alias_file(name, alias)}", f"Set the alias {alias} of {name} again, or remove it."
    found = _decode(data, Alias, where, hint)
    if (found.name, found.alias) != (name, alias):
        raise BadArtifact(f"{where} is the record of another alias: {found.name}@{found.alias}.", hint=hint)
    return found


def _decode(data: bytes, kind: type[Record], where: str, hint: str) -> Record:
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise BadArtifact(f"{where} is damaged: {error}", hint=hint) from error
