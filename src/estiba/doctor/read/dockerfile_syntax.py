"""Parse a Dockerfile into instructions, with continuations, comments, here-documents, flags and JSON forms."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

KNOWN = frozenset(
    """
    ADD ARG CMD COPY ENTRYPOINT ENV EXPOSE FROM HEALTHCHECK LABEL MAINTAINER ONBUILD RUN SHELL STOPSIGNAL USER
    VOLUME WORKDIR
    """.split()  # noqa: SIM905
)

_HEREDOC = re.compile(r"<<(-?)([\"']?)([A-Za-z_][A-Za-z0-9_]*)\2")
_FLAG = re.compile(r"--([a-z][a-z-]*)(?:=(\S*))?\s*")
_DIRECTIVE = re.compile(r"#\s*([A-Za-z][A-Za-z0-9]*)\s*=\s*(.*?)\s*$")


class Line(NamedTuple):
    """A physical line, counted from 1."""

    number: int
    text: str


@dataclass(frozen=True)
class Instruction:
    """One instruction.

    Args:
        name: in capitals.
        text: its arguments on one line, without flags and comments.
        lines: its physical lines, here-documents included.
        argv: the list of its JSON form; None in shell form.
        heredocs: the texts of its here-documents, by name.
    """

    name: str
    text: str
    lines: tuple[Line, ...]
    flags: dict[str, str] = field(default_factory=dict)
    argv: tuple[str, ...] | None = None
    heredocs: dict[str, str] = field(default_factory=dict)

    @property
    def line(self) -> int:
        return self.lines[0].number

    @property
    def arguments(self) -> tuple[str, ...]:
        """The list of the JSON form, or the arguments as a shell would split them."""
        return self.argv if self.argv is not None else tuple(split(self.text))

    def line_of(self, part: str) -> int:
        """Return the physical line that contains a text; the first if none does."""
        return next((line.number for line in self.lines if part in line.text), self.line)


def split(text: str) -> list[str]:
    """Split arguments as a shell does; at white space if quotes do not match."""
    try:
        return shlex.split(text, comments=False)
    except ValueError:
        return text.split()


def parse(text: str) -> tuple[Instruction, ...]:
    """Parse any text as instructions of a Dockerfile, unknown ones included. It never raises."""
    lines = [Line(number, line) for number, line in enumerate(text.lstrip("\ufeff").splitlines(), 1)]
    escape = _escape(lines)
    instructions = []
    position = 0
    while position < len(lines):
        if not lines[position].text.strip() or lines[position].text.lstrip().startswith("#"):
            position += 1
            continue
        taken = list(_continued(lines, position, escape))
        position += len(taken)
        head = _joined(taken, escape)
        heredocs, more = _heredocs(head, lines, position)
        position += len(more)
        instructions.append(_instruction(head, (*taken, *more), heredocs))
    return tuple(instructions)


def _escape(lines: list[Line]) -> str:
    """Return the escape character: a directive at the top of the file may choose the backtick."""
    for line in lines:
        directive = _DIRECTIVE.match(line.text.strip())
        if directive is None:
            break
        if directive[1].lower() == "escape" and directive[2] in ("\\", "`"):
            return directive[2]
    return "\\"


def _continued(lines: list[Line], position: int, escape: str) -> Iterator[Line]:
    """Yield the lines of one instruction. Comments and empty lines inside it do not end it."""
    for line in lines[position:]:
        yield line
        bare = line.text.strip()
        inside = line is not lines[position] and (not bare or bare.startswith("#"))
        if not inside and not bare.endswith(escape):
            return


def _joined(lines: list[Line], escape: str) -> str:
    parts = []
    for line in lines:
        bare = line.text.rstrip()
        if line is not lines[0] and (not bare.strip() or bare.lstrip().startswith("#")):
            continue
        parts.append(bare.removesuffix(escape))
    return "".join(parts).strip()


def _heredocs(head: str, lines: list[Line], position: int) -> tuple[dict[str, str], list[Line]]:
    """Return the here-documents that an instruction announces, and their lines."""
    name = head.partition(" ")[0].upper()
    documents: dict[str, str] = {}
    taken: list[Line] = []
    if name not in ("RUN", "COPY", "ADD"):
        return documents, taken
    for dash, _, word in _HEREDOC.findall(head):
        body = []
        for line in lines[position + len(taken) :]:
            taken.append(line)
            if (line.text.lstrip("\t") if dash else line.text) == word:
                break
            body.append(line.text)
        documents[word] = "\n".join(body)
    return documents, taken


def _instruction(head: str, lines: tuple[Line, ...], heredocs: dict[str, str]) -> Instruction:
    name, _, rest = head.partition(" ") if " " in head else head.partition("\t")
    rest = rest.strip()
    flags: dict[str, str] = {}
    while name.upper() in KNOWN and (flag := _FLAG.match(rest)):
        before = flags.get(flag[1], "")
        flags[flag[1]] = f"{before} {flag[2] or ''}".strip() if before else flag[2] or ""
        rest = rest[flag.end() :]
    return Instruction(name.upper(), rest, lines, flags, exec_form(rest), heredocs)


def exec_form(text: str) -> tuple[str, ...] | None:
    """Parse a JSON list of strings; None if it is not one."""
    if not text.startswith("["):
        return None
    try:
        listed = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if isinstance(listed, list) and all(isinstance(word, str) for word in listed):
        return tuple(listed)
    return None
