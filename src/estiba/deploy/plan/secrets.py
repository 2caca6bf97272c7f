"""Generate a project's secrets when they are first needed, and keep them as files that git ignores."""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Collection, Iterable
from pathlib import Path

from estiba.core.errors import BadProject, EstibaError, NotFound
from estiba.core.stores.disk import explained, make_folder, write_whole
from estiba.deploy.plan.plan import API_KEY

VARIABLE = "ESTIBA_SECRETS"
"""The environment variable that names another folder of secrets than the project's."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


def folder(project: Path) -> Path:
    """The folder of a project's secrets: `$ESTIBA_SECRETS`, else `.estiba/secrets` below the project's folder."""
    override = os.environ.get(VARIABLE)
    return Path(override).absolute() if override else project / ".estiba" / "secrets"


def path_of(project: Path, name: str) -> Path:
    """The path of a secret's file, which need not exist.

    Raises:
        BadProject: a name that could lead out of the folder.
    """
    if not _NAME.fullmatch(name):
        raise BadProject(
            f"{name!r} cannot be the name of a secret.", hint="Letters, digits, and _ . - after the first."
        )
    return folder(project) / name


def ensure(project: Path, names: Iterable[str], external: Collection[str] = ()) -> dict[str, Path]:
    """Generate the secrets that do not exist yet: 43 random URL-safe characters, or an API key, in files of mode 0600.

    Args:
        external: names of secrets that cannot be generated, such as the credentials of a bucket.

    Returns:
        By name, the file of each secret.

    Raises:
        NotFound: an external secret does not exist. EstibaError: a file cannot be written, or an existing one is empty.
    """
    paths = {name: path_of(project, name) for name in names}
    for name, path in paths.items():
        if not path.exists():
            if name in external:
                hint = "Write the credential of the registry into that file: it cannot be generated."
                raise NotFound(f"The secret {name} is not in {path}.", hint=hint)
            _make(project, path)
        elif not read(project, name):
            raise EstibaError(f"The secret {name} in {path} is empty.", hint="Write it, or remove it to get another.")
    return paths


def read(project: Path, name: str) -> str:
    """The value of a secret, without a line feed at its end.

    Raises:
        NotFound: it does not exist.
    """
    path = path_of(project, name)
    try:
        with explained("read", path):
            return path.read_text().rstrip("\r\n")
    except NotFound as error:
        hint = "Write it into that file, or run estiba up, which generates one."
        raise NotFound(error.message, hint=hint) from None


def _make(project: Path, path: Path) -> None:
    """Write a random file of mode 0600, in a folder of mode 0700 that has a .gitignore of its own."""
    if path.parent.is_relative_to(project / ".estiba"):
        make_private(path.parent)
    else:
        with explained("write", path):
            make_folder(path.parent)
    from estiba.gateway import keys

    value = keys.generate() if path.name == API_KEY else secrets.token_urlsafe(32)
    write_whole(path, value.encode(), mode=0o600)


def make_private(folder: Path) -> None:
    """Make a folder that only its owner enters and that git ignores; raises EstibaError."""
    with explained("write", folder):
        make_folder(folder)
        folder.chmod(0o700)
        (folder / ".gitignore").write_text("*\n")


def to_generate(project: Path, names: Iterable[str], target: Path, external: Collection[str] = ()) -> dict[str, Path]:
    """By name, the file of each secret that `copy_to` would generate: it exists neither there nor in `target`."""
    paths = {name: path_of(project, name) for name in names if name not in external and not (target / name).exists()}
    return {name: path for name, path in paths.items() if not path.exists()}


def copy_to(project: Path, names: Iterable[str], target: Path, external: Collection[str] = ()) -> list[str]:
    """Copy secrets into the folder that containers mount them from; existing files stay.

    Only the owner can enter the folder, and every user can read the files: a container reads them as another user, and
    mounts them without the folder.

    Args:
        external: see `ensure`.

    Returns:
        Names of the copied secrets.

    Raises:
        NotFound: an external secret does not exist. EstibaError: a file cannot be read or written.
    """
    missing = [name for name in names if not (target / name).exists()]
    for name in ensure(project, missing, external):
        make_private(target)
        write_whole(target / name, read(project, name).encode(), mode=0o644)
    return missing
