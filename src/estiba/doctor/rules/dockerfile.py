"""What is wrong with a Dockerfile as it is written: what no builder reads, and what the context does not have."""

from __future__ import annotations

import re
from collections.abc import Iterator
from posixpath import basename

from estiba.core.suggest import nearest
from estiba.doctor.catalogue import Finding, finding
from estiba.doctor.read.build_context import BuildContext, ignored, relative_source
from estiba.doctor.read.containers import Image
from estiba.doctor.read.dockerfile_stages import NO_COMMENTS, Stage, Step, joined
from estiba.doctor.read.dockerfile_syntax import KNOWN, Instruction
from estiba.doctor.read.image_files import named
from estiba.doctor.read.python_sources import MODEL_FILE

_CONTINUED_COMMENT = re.compile(r"\\[ \t]+#")
_SHELL = re.compile(r"(?:^|\s)(\d?>{1,2}\s*\S+|\|\||&&|\||;)(?=\s|$)")
_SYSTEM = ("/usr", "/lib", "/etc", "/bin", "/sbin", "/opt", "/root", "/home", "/var", "/tmp", "/lib64", "/srv")


def check(image: Image) -> Iterator[Finding]:
    """Every fault of the text itself."""
    yield from _unknown(image)
    for instruction in image.instructions:
        yield from _remarks(instruction, image)
        yield from _exec_form(instruction, image)
    for stage in image.stages:
        for step in stage.steps:
            if step.instruction.name in ("COPY", "ADD"):
                yield from _copy(step, stage, image)


def _unknown(image: Image) -> Iterator[Finding]:
    """Instructions that nobody knows, unless a comment before them explains that; and no FROM at all."""
    broken = False
    for instruction in image.instructions:
        if instruction.name not in KNOWN and not broken:
            near = nearest(instruction.name, KNOWN)
            meant = f"Did you mean {near}?" if near else "End the line before it with a `\\` if it belongs to that one."
            message = f"`{instruction.name[:40]}` is no instruction, so the build stops here."
            yield finding("dockerfile-syntax", image.at(instruction.line), message, meant)
            return
        broken = bool(_CONTINUED_COMMENT.search(instruction.lines[-1].text)) or (
            broken and instruction.name not in KNOWN
        )
    if not any(instruction.name == "FROM" for instruction in image.instructions):
        fix = "Begin it with the image to build on, such as FROM python:3.12-slim."
        yield finding("dockerfile-syntax", image.at(0), "There is no FROM, so nothing can be built.", fix)


def _remarks(instruction: Instruction, image: Image) -> Iterator[Finding]:
    last = instruction.lines[-1]
    if instruction.heredocs:
        return
    if _CONTINUED_COMMENT.search(last.text):
        message = "The comment after `\\` ends the instruction here, and the next line is read as another one."
        yield finding(
            "comment-after-backslash", image.at(last.number), message, "Put the comment on a line of its own."
        )
    elif instruction.name in NO_COMMENTS and re.search(r"\s#(?:\s|$)", _unquoted(instruction.text)):
        message = "Behind an instruction `#` begins no comment: what follows is taken as its arguments."
        line = instruction.line_of("#")
        yield finding("trailing-comment", image.at(line), message, "Put the comment on a line of its own.")
    elif instruction.name in ("CMD", "ENTRYPOINT") and re.match(r"\[.*\]\s*#", instruction.text):
        message = f"The comment behind {instruction.name} makes its list a shell command, which fails."
        fix = "Put the comment on a line of its own."
        yield finding("trailing-comment", image.at(instruction.line_of("#")), message, fix)


def _unquoted(text: str) -> str:
    return re.sub(r"\"[^\"]*\"|'[^']*'", "", text)


def _exec_form(instruction: Instruction, image: Image) -> Iterator[Finding]:
    if instruction.name not in ("CMD", "ENTRYPOINT"):
        return
    at = image.at(instruction.line)
    text = instruction.text
    if instruction.argv is None and re.fullmatch(r"\[.*'.*\]", text):
        message = (
            f"{instruction.name} lists its words in single quotes, so a shell looks for a program `{text.split()[0]}`."
        )
        yield finding("json-quotes", at, message, "Write the words in double quotes.")
    for word in instruction.argv or ():
        shell = (instruction.argv or ("",))[0].rpartition("/")[2] in ("sh", "bash", "ash", "dash")
        if not shell and (found := re.search(r"\$\{?[A-Z_]\w*\}?", word)):
            message = f"`{found[0]}` in the exec form is not filled in: the program gets these very characters."
            fix = f'Write the value, or let a shell substitute it in: {instruction.name} ["sh", "-c", "exec ..."].'
            yield finding("exec-variable", at, message, fix)


def _copy(step: Step, stage: Stage, image: Image) -> Iterator[Finding]:
    name = step.instruction.name
    if (
        found := _SHELL.search(_unquoted(step.instruction.text))
        if step.instruction.argv is None and not step.instruction.heredocs
        else None
    ):
        message = f"{name} runs no shell: `{found[1]}` and what follows are taken as file names, so the build fails."
        fix = f"Write {name} SOURCE TARGET alone; to copy what may not be there, copy its folder and keep a file in it."
        yield finding("copy-shell", image.at(step.instruction.line_of(found[1])), message, fix)
        return
    words = step.words
    if _CONTINUED_COMMENT.search(step.instruction.lines[-1].text) or step.instruction.heredocs:
        return
    for source in words[:-1]:
        if "from" in step.instruction.flags:
            yield from _from_stage(source, step, stage, image)
        elif not re.match(r"https?://|git@", source) and "$" not in source:
            yield from _from_context(source, step, image)


def _from_context(source: str, step: Step, image: Image) -> Iterator[Finding]:
    context, path = image.context, relative_source(source)
    if not path or not context.complete or (re.search(r"[*?\[]", path) and not context.matching(source)):
        return  # a pattern that matches nothing is no fault to BuildKit
    inside = context.matching(source)
    if any(entry in context.included for entry in inside):
        return
    at = image.at(step.instruction.line_of(source))
    model = bool(MODEL_FILE.search(path)) or basename(path) in ("model", "models", "artifacts")
    code = "model-missing" if model else "copy-missing"
    if inside:
        rule = context.ignored.excluding_pattern(inside[0])
        number = f"{context.ignored.name}:{rule.line}" if rule else context.ignored.name
        message = f"`{path}` is copied here, but {number} keeps it out of the build, which fails."
        yield finding(code, at, message, f"Add a line `!{path}` at the end of {context.ignored.name}.")
    elif not context.exists(path):
        made = _made(path, image)
        now = f", unless something makes it before ({made} expects that)" if made else ""
        message = f"There is no `{path}` in {_folder(image)} to copy, so the build fails{now}."
        near = _similar_path(path, context)
        fix = f"Did you mean `{near}`?" if near else "Put it there before building, or take the line out."
        yield finding(code, at, message, fix)


def _similar_path(path: str, context: BuildContext) -> str:
    """Suggest a path for a missing one: a similar name in the same folder, else the same name in another folder."""
    folder, slash, name = path.rpartition("/")
    prefix = folder + slash
    beside = {entry[len(prefix) :].partition("/")[0] for entry in context.entries if entry.startswith(prefix)}
    if similar := nearest(name, sorted(beside)):
        return prefix + similar
    return next((entry for entry in context.entries if basename(entry) == name), "")


def _made(path: str, image: Image) -> str:
    """The line of .gitignore that keeps a path out of version control, as something makes it."""
    lines = (image.context.text(".gitignore") or "").splitlines()
    deep = "\n".join(
        line if "/" in line.strip().rstrip("/") else f"**/{line.strip()}" if line.strip() else "" for line in lines
    )
    rule = ignored(deep, ".gitignore").excluding_pattern(path)
    return f".gitignore:{rule.line}" if rule else ""


def _folder(image: Image) -> str:
    return f"`{image.context.name.rstrip('/')}`" if image.context.name else "the folder"


def _from_stage(source: str, step: Step, stage: Stage, image: Image) -> Iterator[Finding]:
    given = step.instruction.flags["from"]
    at = image.at(step.instruction.line)
    other = named(given, stage, image.stages)
    if other is None:
        names = [one.name for one in image.stages if one.name]
        near = nearest(given, names)
        if near:
            message = f"There is no stage `{given}` before this line, so an image of that name is looked for."
            yield finding("copy-missing", at, message, f"Did you mean --from={near}?")
        return
    path = joined("/", source)
    if "$" in source or path == "/" or any((path + "/").startswith(place + "/") for place in _SYSTEM):
        return
    if not _mentions(other, path):
        message = f"Nothing in the stage `{other.name or given}` makes `{path}`, so probably the build fails here."
        yield finding("copy-missing", at, message, f"Make {path} there: with pip wheel, --wheel-dir {path}.")


def _mentions(stage: Stage, path: str) -> bool:
    """Whether something in a stage may make a path: it is named, or lies in or around a folder where work is done."""
    top = "/" + path.split("/")[1]
    for step in stage.all_steps:
        if step.folder != "/" and (step.folder + "/").startswith(top + "/"):
            return True
        if any(top in line.text for line in step.instruction.lines):
            return True
    return not stage.all_steps or (stage.folder + "/").startswith(top + "/") or (stage.folder == "/" and _works(stage))


def _works(stage: Stage) -> bool:
    """Whether commands of unknown effect run in the root folder."""
    return any(
        step.instruction.name == "RUN" and not re.match(r"\s*(?:pip|apt|python -m pip)", step.text)
        for step in stage.all_steps
    )
