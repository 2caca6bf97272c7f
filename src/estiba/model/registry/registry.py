"""Keep artifacts under names, numbered versions and aliases, in a folder or in object storage."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from estiba.core.errors import BadArtifact, Conflict, NotFound
from estiba.core.stores.disk import temporary
from estiba.core.stores.files import Store, open_store
from estiba.core.suggest import did_you_mean
from estiba.model.artifact import archive, artifact
from estiba.model.artifact.artifact import MANIFEST, Artifact, Manifest
from estiba.model.registry.records import (
    NAME,
    PRODUCTION,
    Alias,
    Ref,
    Version,
    active,
    alias_file,
    artifact_folder,
    as_removed,
    check_alias,
    check_name,
    decode_alias,
    decode_version,
    encode,
    now,
    numbers,
    version_file,
)
from estiba.model.registry.route_record import (
    KEPT_GENERATIONS,
    StoredRoute,
    decode_route,
    encode_route,
    newest_route,
    route_file,
    sound_routes,
)

__all__ = ["PRODUCTION", "Alias", "Ref", "Registry", "Version", "check_alias", "check_name", "open_registry"]

_NO_DIGEST = "0" * 64
_PUSH = "Remove that version and push the model again."


def open_registry(url: str | Path, *, cache: Path | None = None) -> Registry:
    """Open a registry; nothing is read or written yet.

    Args:
        url: a folder, or object storage by any address that fsspec knows, such as s3://bucket/prefix (extra s3).
        cache: where artifacts of a remote registry are kept on this machine, by digest; by default
            estiba/artifacts in the user's cache folder (XDG Base Directory Specification).

    Raises:
        MissingExtra: the library for that kind of address is not installed. EstibaError: the kind is unknown.
    """
    return Registry(open_store(url), cache or _default_cache())


def _default_cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "estiba" / "artifacts"


class Registry:
    """Versions and aliases of models. Safe for several writers at once; readers never see a partial change.

    Layout: artifacts/DIGEST/..., and in models/NAME/: versions/N.json, aliases/ALIAS.json, routes/N.json.
    All methods raise EstibaError when the storage itself fails (no permission, full, not reachable).
    """

    def __init__(self, store: Store, cache: Path) -> None:
        self._store = store
        self._cache = cache

    @property
    def url(self) -> str:
        return self._store.url

    def push(self, packed: Artifact, aliases: Iterable[str] = ()) -> Version:
        """Store an artifact as the next version of its model, and point aliases at it.

        An artifact that is a version already keeps its number.

        Raises:
            EstibaError: a name or alias that cannot be one. BadArtifact: `packed` is damaged.
        """
        aliases = (aliases,) if isinstance(aliases, str) else tuple(aliases)
        check_name(packed.manifest.name)
        for alias in aliases:
            check_alias(alias)
        artifact.read(packed.path)
        with self._store.lock():
            self._keep(packed)
            version = self._number(packed)
            if self._store.local("") is None:
                # Without a lock, a removal may have deleted the artifact before its version was there.
                self._keep(packed)
            for alias in aliases:
                self._point(version, alias)
        return version

    def _keep(self, packed: Artifact) -> None:
        if not self._holds(packed):
            names = [entry.path for entry in packed.manifest.files]
            self._store.upload(packed.path, artifact_folder(packed.digest), [*names, MANIFEST])

    def _holds(self, packed: Artifact) -> bool:
        folder = artifact_folder(packed.digest)
        if local := self._store.local(folder):
            return packed.path == local or _is_sound(local)
        sizes = {entry.path: entry.bytes for entry in packed.manifest.files}
        sizes[MANIFEST] = (packed.path / MANIFEST).stat().st_size
        return self._store.sizes(folder) == sizes

    def _number(self, packed: Artifact) -> Version:
        """The version of this artifact, or a new one under the first number that no other writer took."""
        name, number = packed.manifest.name, 0
        while True:
            records = self._records(name)
            for known in active(records):
                if known.digest == packed.digest:
                    return known
            # Beyond the numbers tried before: a record that is taken but cannot be read must not loop for ever.
            number = max(number, *records, 0) + 1
            version = Version(
                name=name,
                version=number,
                digest=packed.digest,
                created=now(),
                metrics=packed.manifest.metrics,
            )
            with suppress(Conflict):
                self._store.create(version_file(name, number), encode(version))
                return version

    def resolve(self, ref: Ref | str) -> Version:
        """The version that a reference names now.

        Raises:
            NotFound: no such model, version or alias. BadArtifact: its record is damaged; names the file.
        """
        ref = Ref.parse(ref) if isinstance(ref, str) else ref
        check_name(ref.name)
        if isinstance(ref.selector, int):
            return self._version(ref.name, ref.selector)
        if ref.selector is not None:
            check_alias(ref.selector)
            return self._aliased(ref.name, ref.selector)
        if f"{PRODUCTION}.json" in self._store.names(f"models/{ref.name}/aliases"):
            return self._aliased(ref.name, PRODUCTION)
        return self._newest(ref.name)

    def _aliased(self, name: str, alias: str) -> Version:
        try:
            data = self._store.read(alias_file(name, alias))
        except NotFound:
            self._newest(name)
            known = [file.removesuffix(".json") for file in self._store.names(f"models/{name}/aliases")]
            hint = f"Aliases of {name}: {', '.join(known) or 'none yet'}."
            raise NotFound(f"{name} has no alias {alias!r} in {self.url}.", hint=hint) from None
        return self._version(name, decode_alias(data, self.url, name, alias).version)

    def _version(self, name: str, number: int) -> Version:
        try:
            version = decode_version(self._store.read(version_file(name, number)), self.url, name, number)
        except NotFound:
            version = None
        if version is None or version.removed:
            self._newest(name)
            known = ", ".join(str(v.version) for v in active(self._records(name)))
            raise NotFound(f"{name} has no version {number} in {self.url}.", hint=f"Versions of {name}: {known}.")
        return version

    def _newest(self, name: str) -> Version:
        for number in sorted(numbers(self._store.names(f"models/{name}/versions")), reverse=True):
            version = decode_version(self._store.read(version_file(name, number)), self.url, name, number)
            if not version.removed:
                return version
        names = self.list()
        known = ", ".join(names)
        hint = f"It has: {known}." if known else "It is empty: check the path, or pack a model first."
        raise NotFound(f"There is no model {name!r} in the registry {self.url}{did_you_mean(name, names)}", hint=hint)

    def fetch(self, version: Version) -> Artifact:
        """The verified artifact of a version: in place, or copied once into the cache of this machine.

        Raises:
            NotFound: it was deleted. BadArtifact: it is damaged, or of another model; names the file.
        """
        local = self._store.local(artifact_folder(version.digest))
        fetched = artifact.read(local) if local else self._cached(version.digest)
        if fetched.manifest.name != version.name:
            raise BadArtifact(f"{version} names an artifact of the model {fetched.manifest.name!r}.", hint=_PUSH)
        return fetched

    def _cached(self, digest: str) -> Artifact:
        try:
            return artifact.read(self._cache / digest)
        except (BadArtifact, NotFound):
            return self._download(digest)

    def _download(self, digest: str) -> Artifact:
        folder = artifact_folder(digest)
        content = self._store.read(f"{folder}/{MANIFEST}")
        manifest = artifact.decode(content, digest, f"{self.url}/{folder}")
        names = [MANIFEST, *(entry.path for entry in manifest.files)]

        def fill(into: Path) -> None:
            self._store.download(folder, names, into)

        return artifact.settle(self._cache / digest, fill, f"{self.url}/{folder}")

    def list(self) -> tuple[str, ...]:
        """The names of all models that have a version, sorted. A model whose record is damaged is listed too."""
        names = [name for name in self._store.names("models") if NAME.fullmatch(name)]
        records = {name: self._records(name).values() for name in names}
        return tuple(n for n in names if any(isinstance(r, BadArtifact) or not r.removed for r in records[n]))

    def versions(self, name: str) -> tuple[Version, ...]:
        """All versions of a model, the oldest first.

        Raises:
            NotFound: there is no such model. BadArtifact: a record is damaged; names the file.
        """
        check_name(name)
        records = self._records(name)
        for record in records.values():
            if isinstance(record, BadArtifact):
                raise record
        return tuple(active(records)) or (self._newest(name),)

    def aliases(self, name: str) -> dict[str, int]:
        """The version number of each alias of a model.

        Raises:
            BadArtifact: a record is damaged; names the file.
        """
        check_name(name)
        versions = {}
        for file, data in self._store.read_all(f"models/{name}/aliases").items():
            alias = file.removesuffix(".json")
            versions[alias] = decode_alias(data, self.url, name, alias).version
        return versions

    def set_alias(self, name: str, alias: str, version: int) -> Version:
        """Point an alias at a version; the alias may be new or point elsewhere.

        Raises:
            NotFound: there is no such version. EstibaError: an alias that cannot be one.
        """
        check_name(name)
        check_alias(alias)
        with self._store.lock():
            record = self._version(name, version)
            self._point(record, alias)
        return record

    def _point(self, version: Version, alias: str) -> None:
        record = Alias(name=version.name, alias=alias, version=version.version, updated=now())
        self._store.replace(alias_file(version.name, alias), encode(record))

    def remove_alias(self, name: str, alias: str) -> None:
        """Delete an alias, also one whose record is damaged.

        Raises:
            NotFound: there is no such alias. Conflict: the model's route names it.
        """
        check_name(name)
        check_alias(alias)
        with self._store.lock():
            if f"{alias}.json" not in self._store.names(f"models/{name}/aliases"):
                raise NotFound(f"{name} has no alias {alias!r} in {self.url}.", hint="Nothing was changed.")
            self._check_not_routed(name, alias)
            self._store.delete(alias_file(name, alias))

    def remove(self, name: str, version: int, *, force: bool = False) -> None:
        """Remove a version, and its artifact where no other version names it. Its number is not given again.

        Args:
            force: also remove the aliases that point at it; without it, they are a reason to refuse.

        Raises:
            NotFound: there is no such version. Conflict: an alias points at it, or the model's route names it.
        """
        check_name(name)
        with self._store.lock():
            record = self._removable(name, version)
            pointing = [alias for alias, number in self.aliases(name).items() if number == version]
            if pointing and not force:
                hint = "Point them at another version first, or remove them too: --force, or force=True in Python."
                raise Conflict(f"{name}@{version} is the version of the alias {', '.join(pointing)}.", hint=hint)
            self._check_not_routed(name, str(version), *pointing)
            for alias in pointing:
                self._store.delete(alias_file(name, alias))
            self._store.replace(version_file(name, version), encode(as_removed(record)))
            self._forget(name, record.digest)

    def _removable(self, name: str, number: int) -> Version:
        try:
            return self._version(name, number)
        except BadArtifact:
            # A damaged record can be removed, but the artifact that it named is no longer known.
            return Version(name=name, version=number, digest=_NO_DIGEST, created=now())

    def _forget(self, name: str, digest: str) -> None:
        """Delete an artifact that no version names. A manifest holds its model's name, so no other model can."""
        for record in self._records(name).values():
            if isinstance(record, BadArtifact) or (record.digest == digest and not record.removed):
                return
        self._store.delete(artifact_folder(digest))

    def export(self, ref: Ref | str, file: Path) -> Version:
        """Write the artifact of a version into one file; equal artifacts give equal bytes.

        Raises:
            NotFound: no such version. BadArtifact: it is damaged. EstibaError: the file cannot be written.
        """
        version = self.resolve(ref)
        archive.save(self.fetch(version), file)
        return version

    def import_(self, file: Path, aliases: Iterable[str] = ()) -> Version:
        """Push the artifact in a file that `export` wrote. It is verified before anything is visible.

        Raises:
            NotFound: there is no such file. BadArtifact: it is damaged, or not an artifact.
        """
        with temporary("import") as folder:
            return self.push(archive.load(file, folder), aliases)

    def manifest(self, version: Version) -> Manifest:
        """The manifest of a version, without its other files; raises NotFound, or BadArtifact if it is damaged."""
        folder = artifact_folder(version.digest)
        return artifact.decode(self._store.read(f"{folder}/{MANIFEST}"), version.digest, f"{self.url}/{folder}")

    def route(self, name: str) -> StoredRoute | None:
        """The newest record of a model's route, which may say that it was removed; None if it never had one.

        Raises:
            BadArtifact: the record is damaged; names the file.
        """
        if not (generation := self.route_generation(name)):
            return None
        return decode_route(self._store.read(route_file(name, generation)), self.url, name, generation)

    def route_generation(self, name: str) -> int:
        """The generation of a model's route, also of one whose record is damaged; 0 if it never had one."""
        check_name(name)
        return newest_route(self._store.names(f"models/{name}/routes"))

    def route_history(self, name: str) -> tuple[StoredRoute, ...]:
        """The records of a model's route that are kept, the newest first; without those that are damaged."""
        check_name(name)
        return sound_routes(self._store.read_all(f"models/{name}/routes"), self.url, name)

    def put_route(self, route: StoredRoute) -> None:
        """Store the next generation of a model's route; of two writers, one gets Conflict."""
        self._store.create(route_file(route.name, route.generation), encode_route(route))
        for old in numbers(self._store.names(f"models/{route.name}/routes")):
            if old <= route.generation - KEPT_GENERATIONS:
                self._store.delete(route_file(route.name, old))

    def _check_not_routed(self, name: str, *targets: str) -> None:
        """Raise Conflict if the model's route names one of these aliases or version numbers."""
        try:
            route = self.route(name)
        except BadArtifact:
            return
        named = [each for each in targets if route is not None and route.options and each in route.options.every]
        if named:
            hint = f"Change the route first: estiba route {name}"
            raise Conflict(f"The route of {name} names {', '.join(named)}.", hint=hint)

    def stamp(self) -> str:
        """A value that changes when any version, alias or route does. Cheap, for polling."""
        return self._store.stamp("models")

    def _records(self, name: str) -> dict[int, Version | BadArtifact]:
        """By number, each version of a model (removed ones too), or the error in its record."""
        files = self._store.read_all(f"models/{name}/versions")
        records: dict[int, Version | BadArtifact] = {}
        for number in sorted(numbers(files)):
            try:
                records[number] = decode_version(files[f"{number}.json"], self.url, name, number)
            except BadArtifact as error:
                records[number] = error
        return records


def _is_sound(path: Path) -> bool:
    try:
        artifact.read(path)
    except (BadArtifact, NotFound):
        return False
    return True
