"""Secrets: each a file on this machine, made up when it is first needed, and never in git."""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Collection, Iterable
from pathlib import Path

from estiba.core.errors import BadProject, EstibaError, NotFound
from estiba.core.stores.disk import explained, make_folder, write_whole

VARIABLE = "ESTIBA_SECRETS"
"""Names another folder of secrets than the project's."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


def folder(project: Path) -> Path:
    """Where the secrets of a project are: `$ESTIBA_SECRETS`, else `.estiba/secrets` below its folder."""
    named = os.environ.get(VARIABLE)
    return Path(named).absolute() if named else project / ".estiba" / "secrets"


def place(project: Path, name: str) -> Path:
    """The file of a secret, whether it is there or not.

    Raises:
        BadProject: a name that could lead out of the folder.
    """
    if not _NAME.fullmatch(name):
        raise BadProject(f"{name!r} cannot be the name of a secret.", hint="Letters, digits, and _ . - inside.")
    return folder(project) / name


def ensure(project: Path, names: Iterable[str], given: Collection[str] = ()) -> dict[str, Path]:
    """Makes up the secrets that are not there yet: 43 random characters of URLs, in files that only their owner reads.

    Args:
        given: those that others decide on, such as what lets into a bucket.

    Returns:
        The file of each.

    Raises:
        NotFound: one that is given is not there. EstibaError: a file cannot be written, or one that is there is empty.
    """
    found = {name: place(project, name) for name in names}
    for name, path in found.items():
        if not path.exists():
            if name in given:
                hint = "Write what lets into the registry into that file: nobody can make it up."
                raise NotFound(f"The secret {name} is not in {path}.", hint=hint)
            _make(project, path)
        elif not read(project, name):
            raise EstibaError(f"The secret {name} in {path} is empty.", hint="Write it, or remove it to get another.")
    return found


def read(project: Path, name: str) -> str:
    """What a secret is, without a line feed at its end.

    Raises:
        NotFound: it is not there.
    """
    path = place(project, name)
    try:
        with explained("read", path):
            return path.read_text().rstrip("\r\n")
    except NotFound as error:
        hint = "Write it into that file, or let estiba up make one up."
        raise NotFound(error.message, hint=hint) from None


def _make(project: Path, path: Path) -> None:
    """A file of mode 0600 in a folder of mode 0700, which git ignores whatever the project's .gitignore says."""
    with explained("write", path):
        make_folder(path.parent)
        if path.parent.is_relative_to(project / ".estiba"):
            path.parent.chmod(0o700)
            (path.parent / ".gitignore").write_text("*\n")
    write_whole(path, secrets.token_urlsafe(32).encode(), mode=0o600)


def hand_out(project: Path, names: Iterable[str], target: Path, given: Collection[str] = ()) -> list[str]:
    """Copies secrets to where containers find them; what is there already stays.

    The folder is its owner's alone, and the files are readable by all: a container reads them as another user, and
    gets them without the folder.

    Args:
        given: see `ensure`.

    Returns:
        Names of those that were copied.

    Raises:
        NotFound: one that is given is not there. EstibaError: a file cannot be read or written.
    """
    missing = [name for name in names if not (target / name).exists()]
    for name in ensure(project, missing, given):
        with explained("write", target):
            make_folder(target)
            target.chmod(0o700)
            (target / ".gitignore").write_text("*\n")
        write_whole(target / name, read(project, name).encode(), mode=0o644)
    return missing
