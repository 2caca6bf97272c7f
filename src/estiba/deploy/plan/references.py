"""References: what a service says of others, such as `${services.postgres.host}`, and what it is where it runs.

| reference | is |
|---|---|
| `${port}`, `${host}` | what this service listens on: its own port, and the address to bind |
| `${services.NAME.url}`, `.host`, `.port` | another service, as this one reaches it; `models` serves all models |
| `${models.NAME.url}` | the URL of a model: its description there, its predictions at `/predict` below it |
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
    r"|(?P<place>secrets|volumes|files)\.(?P<named>[A-Za-z0-9_.-]+)"
    r"|env\.(?P<variable>[A-Za-z_][A-Za-z0-9_]*)(?P<default>:-.*)?"
)


@dataclass(frozen=True)
class Reference:
    """One reference.

    Args:
        kind: `own`, `services`, `models`, `secrets`, `volumes`, `files` or `env`.
        name: of what it refers to; empty for `own`.
        part: `url`, `host` or `port`; empty where there are no parts.
        default: for `env`, what stands for a variable that is not set; None where nothing does.
    """

    kind: str
    name: str
    part: str = ""
    default: str | None = None


def parse(text: str, path: str) -> tuple[str | Reference, ...]:
    """Splits a text into plain pieces and references.

    Args:
        path: of the key that holds the text, such as `services.api.command`.

    Raises:
        BadProject: a `$` that begins no reference, or a reference of no known form.
    """
    pieces: list[str | Reference] = []
    end = 0
    for found in _PIECES.finditer(text):
        pieces.append(text[end : found.start()])
        end = found.end()
        if found["dollar"]:
            pieces.append("$")
        elif found["inside"] is not None:
            pieces.append(_reference(found["inside"], path))
        else:
            raise BadProject(f"{path}: a single $ in {text!r}.", hint="Write $$ for a dollar sign, ${...} to refer.")
    pieces.append(text[end:])
    return tuple(piece for piece in pieces if piece != "")


def references(text: str, path: str) -> Iterator[Reference]:
    """The references of a text; raises BadProject as `parse`."""
    return (piece for piece in parse(text, path) if isinstance(piece, Reference))


def resolve(text: str, lookup: Callable[[Reference], str]) -> str:
    """A checked text with each reference replaced by what `lookup` says of it."""
    return "".join(piece if isinstance(piece, str) else lookup(piece) for piece in parse(text, "text"))


def _reference(inside: str, path: str) -> Reference:
    found = _FORM.fullmatch(inside)
    if found is None:
        known = "services.NAME.url, models.NAME.url, secrets.NAME, volumes.NAME, files.NAME, env.NAME, port, host"
        raise BadProject(f"{path}: ${{{inside}}} refers to nothing known.", hint=f"Forms: {known}.")
    if found["own"]:
        return Reference("own", "", found["own"])
    if found["service"]:
        return Reference("services", found["service"], found["service_part"])
    if found["model"]:
        return Reference("models", found["model"], found["model_part"])
    if found["place"]:
        return Reference(found["place"], found["named"])
    default = found["default"]
    return Reference("env", found["variable"], default=None if default is None else default[2:])
