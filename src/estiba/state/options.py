"""`[state]` of the project file, and the URLs of state stores."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import parse_qsl, urlencode, urlsplit

import msgspec

from estiba.core.errors import BadProject

DEFAULT_STATE = "sqlite:///.estiba/state.db"
SQLITE = "sqlite:///"
POSTGRES = ("postgresql://", "postgres://")

PASSWORD_FILE = "password_file"
"""Parameter of a PostgreSQL URL: the path of a file with the password."""


class StateOptions(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """`[state]` of the project file: where keys and the log of predictions are kept.

    Args:
        url: an SQLite file, relative to the project file, or a PostgreSQL database, whose password may be in a file:
            `postgresql://USER@HOST/DATABASE?password_file=${secrets.NAME}`. $ESTIBA_STATE overrides it.
        service: a PostgreSQL service of the project, whose database the model servers use in containers.
    """

    url: str = DEFAULT_STATE
    service: str = ""


def location(url: str, folder: Path, *, override: bool = True) -> str:
    """The URL of the state store, with an absolute path where it is a file.

    Args:
        url: as in the project file.
        folder: which a relative path starts from; for $ESTIBA_STATE it is the working directory.
        override: let $ESTIBA_STATE come first.

    Raises:
        BadProject: neither SQLite nor PostgreSQL.
    """
    if override and (named := os.environ.get("ESTIBA_STATE")):
        url, folder = named, Path.cwd()
    if url.startswith(POSTGRES):
        return url
    if not url.startswith(SQLITE) or len(url) == len(SQLITE):
        raise BadProject(
            f"state.url: {shown(url)!r} is not the URL of a state store.",
            hint="Use sqlite:///PATH (relative to the project), sqlite:////PATH (absolute) or "
            "postgresql://USER@HOST/DATABASE.",
        )
    return f"{SQLITE}{folder.absolute() / url.removeprefix(SQLITE)}"


def without_password_file(url: str) -> tuple[str, str]:
    """The URL of a PostgreSQL database as its driver takes it, and the path of the file with the password, or ""."""
    parts = urlsplit(url)
    parameters = parse_qsl(parts.query, keep_blank_values=True)
    file = next((value for name, value in parameters if name == PASSWORD_FILE), "")
    if not file:
        return url, ""
    others = [(name, value) for name, value in parameters if name != PASSWORD_FILE]
    return parts._replace(query=urlencode(others)).geturl(), file


def shown(url: str) -> str:
    """The URL without its password, for messages."""
    parts = urlsplit(url)
    if not parts.password:
        return url
    return parts._replace(netloc=parts.netloc.replace(f":{parts.password}@", ":***@", 1)).geturl()
