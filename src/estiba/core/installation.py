"""Find where Estiba was installed from, so that no hint takes a stranger's package of the same name from an index."""

from __future__ import annotations

import json
from typing import Any, Literal, NamedTuple
from urllib.parse import unquote

Kind = Literal["folder", "git", "url", "index"]


class Origin(NamedTuple):
    """The place that Estiba was installed from: a folder, a commit in Git, the URL of a file, or an index of packages.

    `location` is what pip installs: a path, `git+URL@COMMIT`, or a URL with the digest of the file. It is empty for an
    index, whose address nobody records.
    """

    kind: Kind
    location: str = ""
    editable: bool = False


def origin() -> Origin:
    """The origin that pip or uv has recorded for this Estiba."""
    from importlib import metadata

    try:
        text = metadata.distribution("estiba").read_text("direct_url.json")
    except metadata.PackageNotFoundError:
        return Origin("index")
    return read(text or "{}")


def read(text: str) -> Origin:
    """The origin in a file `direct_url.json`, as packaging's specification "Direct URL" has it."""
    try:
        record: dict[str, Any] = json.loads(text)
    except ValueError:
        return Origin("index")
    url, folder = str(record.get("url", "")), record.get("subdirectory", "")
    if git := record.get("vcs_info"):
        inside = f"#subdirectory={folder}" if folder else ""
        return Origin("git", f"{git.get('vcs', 'git')}+{url}@{git.get('commit_id', '')}{inside}")
    if "dir_info" in record:
        return Origin("folder", unquote(url.removeprefix("file://")), bool(record["dir_info"].get("editable")))
    if archive := record.get("archive_info"):
        digest = archive.get("hashes", {}).get("sha256", "")
        return Origin("url", f"{url}#sha256={digest}" if digest else url)
    return Origin("index")


def install_command(extra: str) -> str:
    """The command that adds an extra to this Estiba, from where it was installed."""
    source = origin()
    match source.kind:
        case "folder":
            return f"pip install {'--editable ' if source.editable else ''}'{source.location}[{extra}]'"
        case "index":
            from estiba import __version__

            return f"pip install 'estiba[{extra}]=={__version__}', from the index that you got Estiba from"
        case _:
            return f"pip install 'estiba[{extra}] @ {source.location}'"
