"""The rule about sources of COPY that the build context, or another stage, does not have."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import date
from itertools import pairwise
from os.path import relpath
from posixpath import basename, dirname
from typing import ClassVar, NamedTuple

from estiba.core.suggest import nearest
from estiba.doctor.finding import Finding, Location, Problem
from estiba.doctor.read.build_context import BuildContext, parse_ignore_file, relative_source
from estiba.doctor.read.build_context import text as read_text
from estiba.doctor.read.containers import Image
from estiba.doctor.read.dockerfile_stages import Stage, Step, resolve_path
from estiba.doctor.read.image_files import referenced_stage
from estiba.doctor.read.image_names import parse_image_name
from estiba.doctor.read.python_sources import MODEL_FILE
from estiba.doctor.rule import Rule
from estiba.doctor.rules.dockerfile import continued_comment, shell_syntax

_SYSTEM_FOLDERS = (
    "/usr",
    "/lib",
    "/etc",
    "/bin",
    "/sbin",
    "/opt",
    "/root",
    "/home",
    "/var",
    "/tmp",
    "/lib64",
    "/srv",
)


class MissingSource(NamedTuple):
    """A source of COPY that is missing in the build context. `model` is true for a model file or its folder."""

    problem: Problem
    model: bool


class CopyMissing(Rule):
    code = "copy-missing"
    severity = "error"
    title = "COPY names something that the build context, or the other stage, does not have."
    reason = (
        "The build fails there. Often the file exists, but .dockerignore keeps it out, or the build runs in another "
        "folder."
    )
    example: ClassVar = {
        "Dockerfile": "FROM python:3.12-slim\nCOPY requirments.txt .\nUSER 10001\n"
        'CMD ["python", "-m", "http.server", "8000"]\n',
    }
    remedy = "Correct the path relative to the build context, or add `!path` at the end of .dockerignore."

    @classmethod
    def check_image(cls, image: Image, today: date) -> Iterator[Finding]:
        for missing in missing_sources(image):
            if not missing.model:
                yield cls.finding(*missing.problem)
        for stage in image.stages:
            for step in _readable_copies(stage):
                for source in step.arguments[:-1] if "from" in step.instruction.flags else ():
                    yield from cls._from_stage(source, step, stage, image)

    @classmethod
    def _from_stage(cls, source: str, step: Step, stage: Stage, image: Image) -> Iterator[Finding]:
        name = step.instruction.flags["from"]
        at = image.at(step.instruction.line)
        other = referenced_stage(name, stage, image.stages)
        if other is None:
            similar = nearest(name, [stage.name for stage in image.stages if stage.name])
            if similar:
                message = f"There is no stage `{name}` before this line, so the builder looks for an image `{name}`."
                yield cls.finding(at, message, f"Did you mean --from={similar}?")
            return
        path = resolve_path("/", source)
        system = any((path + "/").startswith(folder + "/") for folder in _SYSTEM_FOLDERS)
        if not ("$" in source or path == "/" or system or _may_make(other, path)):
            message = f"Nothing in the stage `{other.name or name}` makes `{path}`, so probably the build fails here."
            fix = f"pip wheel, --wheel-dir {path}" if "wheel" in path else "a RUN or COPY of that stage"
            yield cls.finding(at, message, f"Make {path} there, with {fix}; or correct the path.")


def missing_sources(image: Image) -> Iterator[MissingSource]:
    """Find sources of COPY and ADD that are not in the build context, or that .dockerignore keeps out."""
    for stage in image.stages:
        for step in _readable_copies(stage):
            for source in step.arguments[:-1]:
                if "from" not in step.instruction.flags and not re.match(r"https?://|git@", source):
                    yield from _missing_source(source, step, image)


def _readable_copies(stage: Stage) -> Iterator[Step]:
    """Leave out instructions that another rule finds broken, and here-documents."""
    for step in stage.steps:
        broken = continued_comment(step.instruction) or step.instruction.heredocs or shell_syntax(step)
        if step.instruction.name in ("COPY", "ADD") and not broken:
            yield step


def _missing_source(source: str, step: Step, image: Image) -> Iterator[MissingSource]:
    context, path = image.context, relative_source(source)
    if "$" in source or not path or not context.complete:
        return
    matching = context.matching(source)
    if re.search(r"[*?\[]", path) and not matching:
        return  # BuildKit accepts a pattern that matches nothing
    if any(entry in context.included for entry in matching):
        return
    at = image.at(step.instruction.line_of(source))
    model = bool(MODEL_FILE.search(path)) or basename(path) in ("model", "models", "artifacts")
    if matching:
        yield MissingSource(_ignored_source(path, matching[0], at, context), model)
    elif not context.exists(path):
        yield MissingSource(_absent_source(path, at, image), model)


def _ignored_source(path: str, entry: str, at: Location, context: BuildContext) -> Problem:
    pattern = context.ignored.excluding_pattern(entry)
    line = f"{context.ignored.name}:{pattern.line}" if pattern else context.ignored.name
    message = f"`{path}` is copied here, but {line} keeps it out of the build, which fails."
    return Problem(at, message, f"Add a line `!{path}` at the end of {context.ignored.name}.")


def _absent_source(path: str, at: Location, image: Image) -> Problem:
    generated = _generated(path, image)
    unless = f", unless something makes it before ({generated} expects that)" if generated else ""
    fix = "Make it before the build, or in a stage of its own." if generated else "Put it there, or remove the line."
    folder = f"`{image.context.name.rstrip('/')}`" if image.context.name else "the folder"
    message = f"There is no `{path}` in {folder} to copy, so the build fails{unless}."
    similar = _similar_path(path, image.context)
    return Problem(at, message, f"Did you mean `{similar}`?" if similar else fix)


def _similar_path(path: str, context: BuildContext) -> str:
    """Suggest a path for a missing one: a similar name in the same folder, else the same name in another folder."""
    folder, slash, name = path.rpartition("/")
    prefix = folder + slash
    beside = {entry[len(prefix) :].partition("/")[0] for entry in context.entries if entry.startswith(prefix)}
    if similar := nearest(name, sorted(beside)):
        return prefix + similar
    return next((entry for entry in context.entries if basename(entry) == name), "")


def _generated(path: str, image: Image) -> str:
    """Return the line of a .gitignore that matches a path: the file is generated, so it is not in version control."""
    folder, inner = dirname(path), basename(path)
    while True:
        prefix = f"{folder}/" if folder else ""
        if line := _ignoring_line(image.context.text(f"{prefix}.gitignore"), inner):
            return f"{prefix}.gitignore:{line}"
        if not folder:
            return _ignored_above(path, image)
        inner = f"{basename(folder)}/{inner}"
        folder = dirname(folder)


def _ignored_above(path: str, image: Image) -> str:
    """Return the line of a .gitignore above the build context, up to the top of the repository."""
    root = image.context.folder.resolve()
    inner = path
    for below, above in pairwise((root, *root.parents)):
        if (below / ".git").exists():
            break
        inner = f"{below.name}/{inner}"
        line = _ignoring_line(read_text(above / ".gitignore"), inner)
        if line and any((top / ".git").exists() for top in (above, *above.parents)):
            return f"{relpath(above / '.gitignore', image.context.folder)}:{line}"
    return ""


def _ignoring_line(text: str | None, path: str) -> int:
    """Return the line of a .gitignore that matches a path relative to its folder; 0 if none does."""
    lines = (line.strip() for line in (text or "").splitlines())
    patterns = "\n".join(line if not line or "/" in line.rstrip("/") else f"**/{line}" for line in lines)
    pattern = parse_ignore_file(patterns, ".gitignore").excluding_pattern(path)
    return pattern.line if pattern else 0


def _may_make(stage: Stage, path: str) -> bool:
    """Return True if a stage may make a path: it names its top folder, or works in or around that folder."""
    if "/" in parse_image_name(stage.base).name:  # an image that is not an official one may bring any file
        return True
    top = "/" + path.split("/")[1]
    for step in stage.all_steps:
        if step.folder != "/" and (step.folder + "/").startswith(top + "/"):
            return True
        if any(top in line.text for line in step.instruction.lines):
            return True
    works_in_root = stage.folder == "/" and _runs_other_commands(stage)
    return not stage.all_steps or (stage.folder + "/").startswith(top + "/") or works_in_root


def _runs_other_commands(stage: Stage) -> bool:
    """Return True if it runs commands of unknown effect, and not only package managers."""
    return any(
        step.instruction.name == "RUN" and not re.match(r"\s*(?:pip|apt|python -m pip)", step.text)
        for step in stage.all_steps
    )
