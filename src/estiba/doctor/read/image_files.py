"""Work out which files of the build context a stage holds, and at which paths."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from posixpath import basename

from estiba.doctor.read.build_context import BuildContext, relative_source
from estiba.doctor.read.dockerfile_stages import Stage, Step, resolve_path

_PLAIN = re.compile(
    r"(?:apt-get|apt|apk|pip3?|uv|poetry|conda|useradd|adduser|groupadd|addgroup|usermod|chown|chmod|mkdir|rm|find|touch|"
    r"python3? -m (?:venv|pip|compileall)|echo|true|set|export|ldconfig|install -d|ln|sed|test|\[|strip|"
    r"--mount\S*|\.|source|/opt/\S*/pip3?|/opt/\S*/uv|pip-sync|apt-mark)\b"
)
"""Commands that add no file of a project to an image."""

_INSTALLS = re.compile(r"(?:apt-get|apt|apk|pip3?)\s[^&;|]*?(?:install|add|purge|remove)[^&;|]*")
_FETCHES = re.compile(r"\b(?:curl|wget|aws|gsutil|gcloud|azcopy|dvc|mlflow|huggingface-cli|hf|git|tar|unzip|cp|mv)\b")


@dataclass(frozen=True)
class CopiedFile:
    """A file of the build context in an image. `owner` is empty for root."""

    source: str
    owner: str
    mode: str
    step: Step


@dataclass
class ImageFiles:
    """Files by their absolute path in the image; below the paths in `unknown` there may be others."""

    files: dict[str, CopiedFile] = field(default_factory=dict)
    unknown: list[str] = field(default_factory=list)

    def has(self, path: str) -> bool | None:
        """Return True if a file or folder exists in the image; None if that cannot be known."""
        below = path.rstrip("/") + "/"
        if path in self.files or any(file.startswith(below) for file in self.files):
            return True
        if any(below.startswith(folder.rstrip("/") + "/") for folder in self.unknown):
            return None
        return False


def contents(stage: Stage, every: list[Stage], context: BuildContext) -> ImageFiles:
    """Return the files of a stage at its end."""
    files = contents(stage.below, every, context) if stage.below else ImageFiles()
    if stage.below is None and not _plain_base(stage.base):
        files.unknown.append("/")
    if not context.complete:
        files.unknown.append("/")
    for step in stage.steps:
        if step.instruction.name in ("COPY", "ADD"):
            _copy(step, stage, every, context, files)
        elif step.instruction.name == "RUN" and not adds_no_files(step.text):
            files.unknown.append("/")
    return files


def adds_no_files(command: str) -> bool:
    """Return True if a RUN only installs packages, creates users and sets permissions: it adds no project file."""
    if _FETCHES.search(_INSTALLS.sub("", command)):
        return False
    parts = re.split(r"&&|\|\||;|\n", command)
    return all(_PLAIN.match(part.strip()) for part in parts if part.strip())


def _plain_base(base: str) -> bool:
    """Return True for a public base image, which has no files of a project."""
    name = base.split("@")[0].rsplit(":", 1)[0] if ":" in base.rsplit("/", 1)[-1] else base.split("@")[0]
    known = ("python", "debian", "ubuntu", "alpine", "scratch", "fedora", "node", "continuumio/miniconda3")
    return name.removeprefix("docker.io/").removeprefix("library/") in known


def _copy(step: Step, stage: Stage, every: list[Stage], context: BuildContext, files: ImageFiles) -> None:
    if len(step.arguments) < 2:
        return
    *sources, target = step.arguments
    folder = target.endswith("/") or target in (".", "..") or len(sources) > 1
    target_path = resolve_path(step.folder, target)
    owner, mode = step.instruction.flags.get("chown", ""), step.instruction.flags.get("chmod", "")
    if step.instruction.heredocs or "$" in target:
        files.unknown.append("/" if "$" in target else target_path)
    elif "from" in step.instruction.flags:
        _copy_stage(step.instruction.flags["from"], (sources, target_path, folder), stage, (every, context, files))
    else:
        for source in sources:
            for path, inner in placed(source, target_path, folder, context).items():
                files.files[path] = CopiedFile(inner, owner, mode, step)
            if re.match(r"https?://|git@", source) or source.endswith((".tar", ".gz", ".xz", ".bz2")) or "$" in source:
                files.unknown.append(target_path)


def placed(source: str, target_path: str, folder: bool, context: BuildContext) -> dict[str, str]:
    """Map the files of one source of COPY by their path in the image."""
    bare = relative_source(source)
    if bare in context.included and not context.included[bare].folder:
        return {resolve_path(target_path, basename(bare)) if folder else target_path: bare}
    wild = any(sign in bare for sign in "*?[")
    files = {}
    for path in context.matching(source):
        if path not in context.included:
            continue
        if wild:  # a matching file is copied into the target; of a matching folder, its content
            depth = bare.count("/") + 1
            parts = path.split("/")
            inner = "/".join(parts[depth:]) or parts[depth - 1]
        else:
            inner = path.removeprefix(bare).lstrip("/") if bare else path
        files[resolve_path(target_path, inner)] = path
    return files


def _copy_stage(
    name: str,
    what: tuple[list[str], str, bool],
    stage: Stage,
    around: tuple[list[Stage], BuildContext, ImageFiles],
) -> None:
    """Add the files that another stage is known to have; it may have others."""
    sources, target_path, folder = what
    every, context, files = around
    files.unknown.append(target_path)
    other = referenced_stage(name, stage, every)
    if other is None:
        return
    inside = contents(other, every, context)
    for source in sources:
        base = resolve_path("/", source)
        for path, there in inside.files.items():
            if path == base:
                files.files[resolve_path(target_path, basename(base)) if folder else target_path] = there
            elif path.startswith(base.rstrip("/") + "/"):
                files.files[resolve_path(target_path, path.removeprefix(base).lstrip("/"))] = there


def referenced_stage(name: str, stage: Stage, every: list[Stage]) -> Stage | None:
    """Return the earlier stage that `--from` names, by its name or number."""
    before = every[: every.index(stage)]
    if name.isdigit():
        return before[int(name)] if int(name) < len(before) else None
    return next((one for one in before if one.name and one.name.lower() == name.lower()), None)
