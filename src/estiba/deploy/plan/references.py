"""Parse and resolve references to other services, such as `${services.postgres.host}`.

| reference | value |
|---|---|
| `${port}`, `${host}` | the port that this service listens on, and the address to bind |
| `${services.NAME.url}`, `.host`, `.port` | the address of another service; `models` serves all models |
| `${models.NAME.url}` | the URL of a model; `/predict` below it predicts |
| `${secrets.NAME}` | the path of the file that holds a secret |
| `${volumes.NAME}`, `${files.NAME}` | the path at which this service finds its volume or file |
| `${env.NAME}`, `${env.NAME:-default}` | a variable of the environment or of the `.env` file |
| `$$` | a dollar sign |
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from estiba.core.errors import BadProject

_PIECES = re.compile(r"\$(?:(?P<dollar>\$)|\{(?P<inside>[^{}]*)\}|(?P<stray>))")

_FORM = re.compile(
    r"(?P<own>port|host)"
    r"|services\.(?P<service>[A-Za-z0-9-]+)\.(?P<service_part>url|host|port)"
    r"|models\.(?P<model>[A-Za-z0-9._-]+?)\.(?P<model_part>url)"
    r"|(?P<path>secrets|volumes|files)\.(?P<named>[A-Za-z0-9_.-]+)"
    r"|env\.(?P<variable>[A-Za-z_][A-Za-z0-9_]*)(?P<default>:-.*)?"
)


@dataclass(frozen=True)
class Reference:
    """One reference.

    Args:
        kind: `own`, `services`, `models`, `secrets`, `volumes`, `files` or `env`.
        name: the name of its target; empty for `own`.
        part: `url`, `host` or `port`; empty for other kinds.
        default: for `env`, the value if the variable is not set; None without one.
    """

    kind: str
    name: str
    part: str = ""
    default: str | None = None


def parse(text: str, path: str) -> tuple[str | Reference, ...]:
    """Split a text into plain pieces and references.

    Args:
        path: the key of the text in the project file, such as `services.api.command`.

    Raises:
        BadProject: a `$` that begins no reference, or a reference of an unknown form.
    """
    pieces: list[str | Reference] = []
    end = 0
    for match in _PIECES.finditer(text):
        pieces.append(text[end : match.start()])
        end = match.end()
        if match["dollar"]:
            pieces.append("$")
        elif match["inside"] is not None:
            pieces.append(_reference(match["inside"], path))
        else:
            raise BadProject(
                f"{path}: a $ that begins no reference, in {text!r}.",
                hint="Write $$ for a dollar sign, ${...} to refer.",
            )
    pieces.append(text[end:])
    return tuple(piece for piece in pieces if piece != "")


def references(text: str, path: str) -> Iterator[Reference]:
    """The references of a text; raises BadProject as `parse`."""
    return (piece for piece in parse(text, path) if isinstance(piece, Reference))


def resolve(text: str, lookup: Callable[[Reference], str]) -> str:
    """Replace each reference of a checked text by what `lookup` returns for it."""
    return "".join(piece if isinstance(piece, str) else lookup(piece) for piece in parse(text, "text"))


def _reference(inside: str, path: str) -> Reference:
    match = _FORM.fullmatch(inside)
    if match is None:
        known = "services.NAME.url, models.NAME.url, secrets.NAME, volumes.NAME, files.NAME, env.NAME, port, host"
        raise BadProject(f"{path}: ${{{inside}}} is not a known reference.", hint=f"Forms: {known}.")
    if match["own"]:
        return Reference("own", "", match["own"])
    if match["service"]:
        return Reference("services", match["service"], match["service_part"])
    if match["model"]:
        return Reference("models", match["model"], match["model_part"])
    if match["path"]:
        return Reference(match["path"], match["named"])
    default = match["default"]
    return Reference("env", match["variable"], default=None if default is None else default[2:])
