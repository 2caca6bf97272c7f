"""Split a Dockerfile into stages, with variables expanded, and track its folder, user and environment."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from estiba.doctor.read.dockerfile_syntax import Instruction, split

_VARIABLE = re.compile(r"\\\$|\$(?:([A-Za-z_]\w*)|\{([A-Za-z_]\w*)(?:(:?[-+?])([^{}]*))?\})")
_PAIR = re.compile(r"([A-Za-z_][\w.-]*)=(\"(?:\\.|[^\"\\])*\"|'[^']*'|(?:\\.|[^\s\\])*)")
NO_COMMENTS = ("COPY", "ADD", "FROM", "WORKDIR", "EXPOSE", "USER", "ARG", "ENV", "STOPSIGNAL", "VOLUME", "LABEL")
"""Instructions in which a `#` after the first word is an argument."""

_PREDEFINED = ("HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY", "TARGETPLATFORM", "BUILDPLATFORM")


@dataclass(frozen=True)
class Step:
    """An instruction with its arguments, and the folder, user and environment in force there."""

    instruction: Instruction
    text: str
    arguments: tuple[str, ...]
    folder: str
    user: str
    environment: Mapping[str, str]


@dataclass(eq=False)
class Stage:
    """The instructions from one FROM to the next; folder, user and environment are those at its end.

    Args:
        base: the image that it is built on, variables expanded; for a stage on top of another one, that stage's base.
        below: the stage that it is built on; None for an image.
        steps: its own; `all_steps` has those of the stages below it too.
    """

    name: str
    base: str
    instruction: Instruction
    below: Stage | None
    steps: list[Step] = field(default_factory=list)
    folder: str = "/"
    user: str = ""
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def all_steps(self) -> list[Step]:
        return [*(self.below.all_steps if self.below else []), *self.steps]

    def steps_of(self, *names: str) -> Iterator[Step]:
        return (step for step in self.all_steps if step.instruction.name in names)

    def last_step(self, name: str) -> Step | None:
        return next((step for step in reversed(self.all_steps) if step.instruction.name == name), None)


def substitute(text: str, values: Mapping[str, str]) -> str:
    """Expand `$NAME`, `${NAME}` and `${NAME:-default}`; a variable without a value stays as it is written."""

    def value(found: re.Match[str]) -> str:
        name = found[1] or found[2]
        if name is None:
            return "$"
        known, sign, other = values.get(name), found[3] or "", found[4] or ""
        if sign.endswith("-"):
            return known if known or (known is not None and sign == "-") else other
        if sign.endswith("+"):
            return other if known else ""
        return found[0] if known is None else known

    return _VARIABLE.sub(value, text)


def stages(instructions: tuple[Instruction, ...], arguments: Mapping[str, str] | None = None) -> list[Stage]:
    """Split instructions into stages, in order.

    Args:
        arguments: values given with --build-arg.
    """
    given = dict(arguments or {})
    outer: dict[str, str] = {}
    result: list[Stage] = []
    reading: _Reading | None = None
    for instruction in instructions:
        if instruction.name == "FROM":
            reading = _begin(instruction, outer, result)
            result.append(reading.stage)
        elif reading is not None:
            reading.take(instruction, outer, given)
        elif instruction.name == "ARG":
            for name, value in _arguments(instruction.text, outer):
                chosen = given.get(name, value)
                if chosen is not None:
                    outer[name] = chosen
    return result


def _begin(instruction: Instruction, outer: Mapping[str, str], before: list[Stage]) -> _Reading:
    words = substitute(instruction.text, outer).split()
    named = words[2] if len(words) >= 3 and words[1].upper() == "AS" else ""
    base = words[0] if words else ""
    below = next((stage for stage in reversed(before) if stage.name and stage.name.lower() == base.lower()), None)
    if below is None:
        return _Reading(Stage(named, base, instruction, None))
    kept = Stage(named, below.base, instruction, below, [], below.folder, below.user, dict(below.environment))
    return _Reading(kept)


class _Reading:
    """Collects the instructions of one stage."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self._arguments: dict[str, str] = {}

    def take(self, instruction: Instruction, outer: Mapping[str, str], given: Mapping[str, str]) -> None:
        stage = self.stage
        values = {**self._arguments, **stage.environment}
        shell = instruction.name in ("RUN", "CMD", "ENTRYPOINT", "HEALTHCHECK", "SHELL")
        text = instruction.text if shell else substitute(instruction.text, values)
        arguments = instruction.arguments if shell or instruction.argv is not None else tuple(split(text))
        if instruction.name in NO_COMMENTS:
            arguments, text = _without_comment(arguments, text)
        stage.steps.append(Step(instruction, text, arguments, stage.folder, stage.user, dict(values)))
        if instruction.name == "ARG":
            for name, value in _arguments(instruction.text, values):
                chosen = given.get(name, outer.get(name) if value is None else value)
                if chosen is not None:
                    self._arguments[name] = chosen
        elif instruction.name == "ENV":
            stage.environment.update(pairs(text))
        elif instruction.name == "WORKDIR" and arguments:
            stage.folder = resolve_path(stage.folder, arguments[0])
        elif instruction.name == "USER" and arguments:
            stage.user = arguments[0]


def _without_comment(arguments: tuple[str, ...], text: str) -> tuple[tuple[str, ...], str]:
    """Leave out arguments that were meant as a comment or for a shell, so that they cause no second finding."""
    end = next(
        (position for position, argument in enumerate(arguments) if re.fullmatch(r"#|\d?>.*|\|\||&&", argument)), None
    )
    return (arguments, text) if end is None else (arguments[:end], re.split(r"\s#", text)[0])


def _arguments(text: str, values: Mapping[str, str]) -> Iterator[tuple[str, str | None]]:
    for word in split(text):
        name, equals, value = word.partition("=")
        if name.upper() not in _PREDEFINED:
            yield name, substitute(value, values) if equals else None


def pairs(text: str) -> dict[str, str]:
    """Parse the names and values of an ENV or LABEL: `a=1 b="2 3"`, or the old form `a 1`."""
    first, _, rest = text.partition(" ")
    if "=" not in first:
        return {first: rest.strip()} if first else {}
    return {name: _unquoted(value) for name, value in _PAIR.findall(text)}


def _unquoted(value: str) -> str:
    if len(value) >= 2 and value[0] == value[-1] and value[0] in "\"'":
        return value[1:-1]
    return value.replace("\\ ", " ")


def resolve_path(folder: str, path: str) -> str:
    """Join paths of the image to an absolute one, without `.`, `..` and doubled slashes."""
    parts: list[str] = []
    for part in PurePosixPath(folder, path).parts[1:] if folder.startswith("/") else PurePosixPath("/", path).parts[1:]:
        if part == "..":
            parts = parts[:-1]
        else:
            parts.append(part)
    return "/" + "/".join(parts)
