"""What a stage holds where: the files that COPY brings, as far as the Dockerfile tells."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from posixpath import basename

from estiba.doctor.read.build_context import BuildContext, relative_source
from estiba.doctor.read.dockerfile_stages import Stage, Step, joined

_PLAIN = re.compile(
    r"(?:apt-get|apt|apk|pip3?|uv|poetry|conda|useradd|adduser|groupadd|addgroup|usermod|chown|chmod|mkdir|rm|find|touch|"
    r"python3? -m (?:venv|pip|compileall)|echo|true|set|export|ldconfig|install -d|ln|sed|test|\[|strip|"
    r"--mount\S*|\.|source|/opt/\S*/pip3?|/opt/\S*/uv|pip-sync|apt-mark)\b"
)
"""Commands that bring no file of a project into an image."""

_INSTALLS = re.compile(r"(?:apt-get|apt|apk|pip3?)\s[^&;|]*?(?:install|add|purge|remove)[^&;|]*")
_FETCHES = re.compile(r"\b(?:curl|wget|aws|gsutil|gcloud|azcopy|dvc|mlflow|huggingface-cli|hf|git|tar|unzip|cp|mv)\b")


@dataclass(frozen=True)
class CopiedFile:
    """A file of the context in an image. `owner` is empty for root."""

    source: str
    owner: str
    mode: str
    step: Step


@dataclass
class ImageFiles:
    """Files by their absolute path in the image; `unknown` are paths below which more may lie than is known."""

    files: dict[str, CopiedFile] = field(default_factory=dict)
    unknown: list[str] = field(default_factory=list)

    def has(self, path: str) -> bool | None:
        """Whether a file or folder is there; None where the Dockerfile does not tell."""
        below = path.rstrip("/") + "/"
        if path in self.files or any(file.startswith(below) for file in self.files):
            return True
        if any(below.startswith(place.rstrip("/") + "/") for place in self.unknown):
            return None
        return False


def contents(stage: Stage, every: list[Stage], context: BuildContext) -> ImageFiles:
    """What the stage holds at its end."""
    found = contents(stage.below, every, context) if stage.below else ImageFiles()
    if stage.below is None and not _plain_base(stage.base):
        found.unknown.append("/")
    if not context.complete:
        found.unknown.append("/")
    for step in stage.steps:
        if step.instruction.name in ("COPY", "ADD"):
            _copy(step, stage, every, context, found)
        elif step.instruction.name == "RUN" and not plain(step.text):
            found.unknown.append("/")
    return found


def plain(command: str) -> bool:
    """Whether a RUN only installs, makes users and sets rights: then it brings no file of the project."""
    if _FETCHES.search(_INSTALLS.sub("", command)):
        return False
    parts = re.split(r"&&|\|\||;|\n", command)
    return all(_PLAIN.match(part.strip()) for part in parts if part.strip())


def _plain_base(base: str) -> bool:
    """Whether nobody puts a project's files in that image."""
    name = base.split("@")[0].rsplit(":", 1)[0] if ":" in base.rsplit("/", 1)[-1] else base.split("@")[0]
    known = ("python", "debian", "ubuntu", "alpine", "scratch", "fedora", "node", "continuumio/miniconda3")
    return name.removeprefix("docker.io/").removeprefix("library/") in known


def _copy(step: Step, stage: Stage, every: list[Stage], context: BuildContext, found: ImageFiles) -> None:
    if len(step.words) < 2:
        return
    *sources, target = step.words
    folder = target.endswith("/") or target in (".", "..") or len(sources) > 1
    place = joined(step.folder, target)
    owner, mode = step.instruction.flags.get("chown", ""), step.instruction.flags.get("chmod", "")
    if step.instruction.heredocs or "$" in target:
        found.unknown.append("/" if "$" in target else place)
    elif "from" in step.instruction.flags:
        _copy_stage(step.instruction.flags["from"], (sources, place, folder), stage, (every, context, found))
    else:
        for source in sources:
            for path, inner in placed(source, place, folder, context).items():
                found.files[path] = CopiedFile(inner, owner, mode, step)
            if re.match(r"https?://|git@", source) or source.endswith((".tar", ".gz", ".xz", ".bz2")) or "$" in source:
                found.unknown.append(place)


def placed(source: str, place: str, folder: bool, context: BuildContext) -> dict[str, str]:
    """Where in the image the files of one source come to lie, by path in the image."""
    bare = relative_source(source)
    if bare in context.included and not context.included[bare].folder:
        return {joined(place, basename(bare)) if folder else place: bare}
    wild = any(sign in bare for sign in "*?[")
    found = {}
    for path in context.matching(source):
        if path not in context.included:
            continue
        if wild:  # what a pattern matches is copied into the target; of a folder, what is in it
            depth = bare.count("/") + 1
            parts = path.split("/")
            inner = "/".join(parts[depth:]) or parts[depth - 1]
        else:
            inner = path.removeprefix(bare).lstrip("/") if bare else path
        found[joined(place, inner)] = path
    return found


def _copy_stage(
    name: str,
    what: tuple[list[str], str, bool],
    stage: Stage,
    around: tuple[list[Stage], BuildContext, ImageFiles],
) -> None:
    """Copies from another stage what is known to be there; what is not may be there too."""
    sources, place, folder = what
    every, context, found = around
    found.unknown.append(place)
    other = named(name, stage, every)
    if other is None:
        return
    inside = contents(other, every, context)
    for source in sources:
        base = joined("/", source)
        for path, there in inside.files.items():
            if path == base:
                found.files[joined(place, basename(base)) if folder else place] = there
            elif path.startswith(base.rstrip("/") + "/"):
                found.files[joined(place, path.removeprefix(base).lstrip("/"))] = there


def named(name: str, stage: Stage, every: list[Stage]) -> Stage | None:
    """The stage before this one that `--from` names, by its name or number."""
    before = every[: every.index(stage)]
    if name.isdigit():
        return before[int(name)] if int(name) < len(before) else None
    return next((one for one in before if one.name and one.name.lower() == name.lower()), None)
