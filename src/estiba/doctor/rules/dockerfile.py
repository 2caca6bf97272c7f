"""Rules about the syntax of a Dockerfile: text that no builder reads, or reads in another way than it looks."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import date
from typing import ClassVar

from estiba.core.suggest import nearest
from estiba.doctor.finding import Finding
from estiba.doctor.read.command_lines import SHELLS, unwrap
from estiba.doctor.read.containers import Image
from estiba.doctor.read.dockerfile_stages import NO_COMMENTS, Step
from estiba.doctor.read.dockerfile_syntax import KNOWN, Instruction
from estiba.doctor.read.image_names import parse_image_name
from estiba.doctor.rule import Rule

_CONTINUED_COMMENT = re.compile(r"\\[ \t]+#")
_SHELL_SYNTAX = re.compile(r"(?:^|\s)(\d?>{1,2}\s*\S+|\|\||&&|\||;)(?=\s|$)")
_OWN_LINE = "Put the comment on a line of its own."


def continued_comment(instruction: Instruction) -> bool:
    """Return True if a comment after a backslash cuts the instruction off."""
    return bool(_CONTINUED_COMMENT.search(instruction.lines[-1].text))


def shell_syntax(step: Step) -> str:
    """Return the first piece of shell syntax in a COPY or ADD; empty if there is none."""
    if step.instruction.argv is not None or step.instruction.heredocs:
        return ""
    match = _SHELL_SYNTAX.search(_without_quoted(step.instruction.text))
    return match[1] if match else ""


def _without_quoted(text: str) -> str:
    return re.sub(r"\"[^\"]*\"|'[^']*'", "", text)


class DockerfileSyntax(Rule):
    code = "dockerfile-syntax"
    severity = "error"
    title = "The Dockerfile has an instruction that no builder knows, or no FROM."
    reason = "The build stops there, and no image is made."
    example: ClassVar = {
        "Dockerfile": 'FROM python:3.12-slim\nCOPPY app/ app/\nUSER 10001\nCMD ["python", "app/main.py"]\n'
    }
    remedy = "Correct the name of the instruction, or end the line before it with a backslash if it continues that one."

    @classmethod
    def check_image(cls, image: Image, today: date) -> Iterator[Finding]:
        """Report the first unknown instruction, unless a comment that cuts off the line before explains it."""
        cut_off = False
        for instruction in image.instructions:
            known = instruction.name in KNOWN
            if not known and not cut_off:
                similar = nearest(instruction.name, KNOWN)
                fix = "End the line before it with a `\\` if it belongs to that one."
                message = f"`{instruction.name[:40]}` is not an instruction, so the build stops here."
                yield cls.finding(image.at(instruction.line), message, f"Did you mean {similar}?" if similar else fix)
                return
            cut_off = continued_comment(instruction) or (cut_off and not known)
        if not any(instruction.name == "FROM" for instruction in image.instructions):
            fix = "Begin it with the image to build on, such as FROM python:3.12-slim."
            yield cls.finding(image.at(0), "There is no FROM, so nothing can be built.", fix)


class CommentAfterBackslash(Rule):
    code = "comment-after-backslash"
    severity = "error"
    title = "A comment after a `\\` ends the line, so that the rest is lost."
    reason = (
        "The backslash continues a line only as its last character. With a comment behind it, the instruction ends, "
        "and the next line is read as an unknown instruction or not at all."
    )
    example: ClassVar = {
        "Dockerfile": "FROM python:3.12-slim\nRUN pip install --no-cache-dir \\  # for the API\n    flask==3.1.0\n"
        'USER 10001\nCMD ["python", "-m", "http.server", "8000"]\n',
    }
    remedy = "Put the comment on a line of its own: lines that begin with `#` may stand inside a continued instruction."

    @classmethod
    def check_image(cls, image: Image, today: date) -> Iterator[Finding]:
        for instruction in image.instructions:
            if continued_comment(instruction) and not instruction.heredocs:
                message = "The comment after `\\` ends the instruction here, and the next line is read as another one."
                yield cls.finding(image.at(instruction.lines[-1].number), message, _OWN_LINE)


class TrailingComment(Rule):
    code = "trailing-comment"
    severity = "error"
    title = "A comment behind an instruction is taken as its arguments."
    reason = "A Dockerfile has comments only on lines of their own. Behind an instruction, the words become file names."
    example: ClassVar = {
        "Dockerfile": "FROM python:3.12-slim\nCOPY app/ app/  # the code\nUSER 10001\n"
        'CMD ["python", "-m", "http.server", "8000"]\n',
    }
    remedy = _OWN_LINE

    @classmethod
    def check_image(cls, image: Image, today: date) -> Iterator[Finding]:
        for instruction in image.instructions:
            if instruction.heredocs or continued_comment(instruction):
                continue
            at = image.at(instruction.line_of("#"))
            text = instruction.text
            taken = instruction.name in NO_COMMENTS and instruction.name != "ARG"  # ARG takes `#` for one more name
            if taken and re.search(r"\s#(?:\s|$)", _without_quoted(text)):
                message = "Behind an instruction `#` begins no comment: the rest is taken as its arguments."
                yield cls.finding(at, message, _OWN_LINE)
            elif instruction.name in ("CMD", "ENTRYPOINT") and re.match(r"\[.*\]\s*#", text):
                message = f"The comment behind {instruction.name} makes its list a shell command, which fails."
                yield cls.finding(at, message, _OWN_LINE)


class CopyShell(Rule):
    code = "copy-shell"
    severity = "error"
    title = "COPY or ADD with shell syntax such as `2>/dev/null || true`, which no shell reads."
    reason = "COPY runs no shell: the builder looks for files of these names, finds none, and the build fails."
    example: ClassVar = {
        "Dockerfile": "FROM python:3.12-slim\nCOPY models/ models/ 2>/dev/null || true\nUSER 10001\n"
        'CMD ["python", "-m", "http.server", "8000"]\n',
    }
    remedy = (
        "Write only sources and target. To copy a file that may be missing, copy the folder that would hold it, and "
        "keep another file in that folder."
    )

    @classmethod
    def check_image(cls, image: Image, today: date) -> Iterator[Finding]:
        for stage in image.stages:
            for step in stage.steps:
                syntax = shell_syntax(step) if step.instruction.name in ("COPY", "ADD") else ""
                if syntax:
                    name = step.instruction.name
                    message = (
                        f"{name} runs no shell: `{syntax}` and all after it are taken as file names, "
                        "so the build fails."
                    )
                    fix = (
                        f"Write only {name} SOURCE TARGET; to copy a file that may be missing, copy its folder and "
                        "keep another file in it."
                    )
                    yield cls.finding(image.at(step.instruction.line_of(syntax)), message, fix)


class JsonQuotes(Rule):
    code = "json-quotes"
    severity = "error"
    title = "An exec form in single quotes is not JSON and runs as a shell command."
    reason = "The shell looks for a program named `[uvicorn,`, and the container exits at once."
    example: ClassVar = {
        "Dockerfile": "FROM python:3.12-slim\nUSER 10001\nCMD ['python', '-m', 'http.server', '8000']\n"
    }
    remedy = 'Write the list in double quotes: `CMD ["python", "-m", "http.server"]`.'

    @classmethod
    def check_image(cls, image: Image, today: date) -> Iterator[Finding]:
        for instruction in _commands(image):
            if instruction.argv is None and re.fullmatch(r"\[.*'.*\]", instruction.text):
                program = instruction.text.split()[0]
                message = f"{instruction.name} is a list in single quotes, so a shell looks for a program `{program}`."
                yield cls.finding(image.at(instruction.line), message, "Write the list in double quotes.")


class ExecVariable(Rule):
    code = "exec-variable"
    severity = "error"
    title = "A variable in an exec form stays as it is written, as no shell reads it."
    reason = 'The program gets the characters `$PORT` themselves, and fails with something like "not an integer".'
    example: ClassVar = {
        "Dockerfile": "FROM python:3.12-slim\nENV PORT=8000\nUSER 10001\n"
        'CMD ["python", "-m", "http.server", "$PORT"]\n',
    }
    remedy = 'Write the value, or let a shell expand it: `CMD ["sh", "-c", "exec python -m http.server $PORT"]`.'

    @classmethod
    def check_image(cls, image: Image, today: date) -> Iterator[Finding]:
        for instruction in _commands(image):
            argv = instruction.argv or ("",)
            if _may_expand(argv[0]) or (instruction.name == "CMD" and _may_expand(_entry_program(instruction, image))):
                continue
            for argument in argv:
                if variable := re.search(r"\$\{?[A-Z_]\w*\}?", argument):
                    message = f"`{variable[0]}` in the exec form is not expanded: the program gets these characters."
                    fix = f'Write the value, or let a shell expand it: {instruction.name} ["sh", "-c", "exec ..."].'
                    yield cls.finding(image.at(instruction.line), message, fix)


def _may_expand(program: str) -> bool:
    """Return True for a shell, and for a script, which may expand its arguments."""
    name = program.rpartition("/")[2]
    return name in SHELLS or name.endswith((".sh", ".bash")) or "entrypoint" in name


def _entry_program(command: Instruction, image: Image) -> str:
    """Return the program of the ENTRYPOINT that gets a CMD as its arguments, or the argument that an init starts."""
    for stage in image.stages:
        entry = stage.last_step("ENTRYPOINT")
        if entry is not None and any(step.instruction is command for step in stage.steps):
            argv = unwrap(entry.arguments, {})
            return argv[0] if argv else ""
    return ""


def _commands(image: Image) -> Iterator[Instruction]:
    return (instruction for instruction in image.instructions if instruction.name in ("CMD", "ENTRYPOINT"))


class CopyWithoutWorkdir(Rule):
    code = "copy-without-workdir"
    severity = "note"
    title = "COPY to a relative path, where no WORKDIR says relative to what."
    reason = (
        "The files go into `/`, between the folders of the system. A base image that sets a WORKDIR later moves them, "
        "and the program does not find them any more."
    )
    example: ClassVar = {
        "Dockerfile": 'FROM python:3.12-slim\nCOPY app/ app/\nUSER 10001\nCMD ["python", "app/main.py"]\n'
    }
    remedy = "Write `WORKDIR /app` before it, or an absolute target."

    @classmethod
    def check_image(cls, image: Image, today: date) -> Iterator[Finding]:
        final = image.final
        if final is None or not parse_image_name(final.base).known_root:
            return  # a base image may have a WORKDIR
        for step in final.all_steps:
            if step.instruction.name == "WORKDIR":
                return
            target = step.arguments[-1] if len(step.arguments) > 1 else "/"
            copies = step.instruction.name in ("COPY", "ADD") and not shell_syntax(step)
            if copies and not target.startswith(("/", "$", "C:")) and not continued_comment(step.instruction):
                message = f"No WORKDIR is named before it, so `{target}` is a path below `/`."
                yield cls.finding(image.at(step.instruction.line), message, "Write WORKDIR /app before it.")
                return
