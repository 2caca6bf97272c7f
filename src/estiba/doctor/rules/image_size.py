"""What makes an image big, and its build slow: the order of its layers, tools that stay, and what the folder brings."""

from __future__ import annotations

import re
from collections.abc import Iterator

from estiba.doctor.catalogue import Finding, finding, listed
from estiba.doctor.read.build_context import relative_source
from estiba.doctor.read.containers import Image
from estiba.doctor.read.dockerfile_stages import Stage, Step

_INSTALLS = re.compile(
    r"pip3?\s+install\s[^&;|]*-r\s*\S|pip3?\s+install\s[^&;|]*--requirement|uv\s+sync|poetry\s+install|pipenv\s+(?:install|sync)|"
    r"conda\s+env\s+(?:create|update)|mamba\s+env|npm\s+(?:ci|install)\b|pip3?\s+wheel\s[^&;|]*-r\s*\S"
)
_TOOLS = re.compile(
    r"\b(build-essential|build-base|gcc(?:-\d+)?|g\+\+(?:-\d+)?|clang|cmake|make|gfortran|rustc|cargo|python3?-dev|musl-dev|"
    r"[a-z0-9.+-]+-dev|git)\b"
)
_APT = re.compile(r"(?:apt-get|apt|apk)\s[^&;|]*?\b(?:install|add)\b([^&;|]*)")
_PURGES = re.compile(r"(?:apt-get|apt)\s[^&;|]*(?:purge|remove)|apk\s+del")
_PIP = re.compile(r"\bpip3?\s+install\b[^&;|]*")
DATA = re.compile(r"\.(?:csv|parquet|feather|xlsx?|h5|hdf5|zip|tar|gz|sqlite|db|npy|npz|mp4|log)$", re.I)
BIG = 10_000_000
"""Bytes of data from which on it is worth a word."""


def check(image: Image) -> Iterator[Finding]:
    """What is wrong with the layers of a Dockerfile."""
    for stage in image.used:
        yield from _order(stage, image)
    final = image.final
    if final is None:
        return
    yield from _tools(final, image)
    yield from _cache(final, image)
    yield from _ignore(final, image)


def _order(stage: Stage, image: Image) -> Iterator[Finding]:
    copied: Step | None = None
    for step in stage.steps:
        if step.instruction.name == "RUN" and _INSTALLS.search(step.text):
            if copied is not None:
                what = "The code is" if relative_source(copied.words[0]) else "Everything is"
                message = f"{what} copied before the dependencies are installed, so each change installs them again."
                fix = "Copy the requirements alone, install them, and copy the code after that."
                yield finding("cache-order", image.at(copied.instruction.line), message, fix)
            return
        if (
            step.instruction.name in ("COPY", "ADD")
            and "from" not in step.instruction.flags
            and _brings_code(step, image)
        ):
            copied = copied or step


def _brings_code(step: Step, image: Image) -> bool:
    """Whether it copies everything, or a folder of code that the image comes to hold."""
    kept = {file.source for file in image.contents.files.values()}
    for source in step.words[:-1]:
        bare = relative_source(source)
        if not bare:
            return True
        inside = set(image.context.matching(source)) - {bare}
        if any(path.endswith(".py") for path in inside & kept):
            return True
    return False


def _tools(final: Stage, image: Image) -> Iterator[Finding]:
    for step in final.steps_of("RUN"):
        found = [tool for part in _APT.findall(step.text) for tool in _TOOLS.findall(part)]
        if found and not _PURGES.search(step.text):
            names = listed(dict.fromkeys(found))
            message = (
                f"{names} stay{'s' if len(set(found)) == 1 else ''} in the image that runs, which needs no compiler."
            )
            fix = "Install them in a stage of their own, and copy the virtual environment or the wheels from there."
            yield finding("build-tools", image.at(step.instruction.line_of(found[0])), message, fix)
            return


def _cache(final: Stage, image: Image) -> Iterator[Finding]:
    for step in final.steps_of("RUN"):
        kept = not step.environment.get("PIP_NO_CACHE_DIR")  # any value switches it off, 0 too
        mounted = "type=cache" in step.instruction.flags.get("mount", "")
        commands = [part for part in _PIP.findall(step.text) if not re.search(r"\buv\s+pip\b", step.text)]
        if kept and not mounted and any("--no-cache-dir" not in part for part in commands):
            message = "pip keeps everything that it downloads in the image."
            yield finding(
                "pip-cache", image.at(step.instruction.line_of("pip")), message, "Give pip install --no-cache-dir."
            )
            return


def _ignore(final: Stage, image: Image) -> Iterator[Finding]:
    context = image.context
    whole = [step for step in final.steps_of("COPY", "ADD") if "from" not in step.instruction.flags and _whole(step)]
    elsewhere = [
        step
        for stage in image.used
        for step in stage.steps
        if step.instruction.name in ("COPY", "ADD") and _whole(step)
    ]
    brought = listed(_needless(image))
    if context.known and not context.ignored.name and (whole or elsewhere):
        at = image.at((whole or elsewhere)[0].instruction.line)
        with_it = f": {brought} {'come' if ' and ' in brought else 'comes'} along" if brought and whole else ""
        message = f"The whole folder is copied, and there is no .dockerignore{with_it}."
        fix = "Write a .dockerignore with .git, .venv, data, notebooks, tests and .env in it."
        yield finding("missing-dockerignore", at, message, fix)
    elif context.ignored.name and brought:
        message = f"{context.ignored.name} does not keep {brought} out of the image."
        yield finding("dockerignore-gaps", context.at(".dockerignore"), message, "Add a line for each of them.")


def _whole(step: Step) -> bool:
    return "from" not in step.instruction.flags and any(not relative_source(source) for source in step.words[:-1])


def _needless(image: Image) -> Iterator[str]:
    """What the image holds of the folder and no program needs, in words."""
    placed = {file.source for file in image.contents.files.values() if not file.source.startswith("/")}
    entries = [image.context.entries[source] for source in sorted(placed) if source in image.context.entries]
    tops = {entry.path.rpartition("/")[2] for entry in entries if entry.folder}
    yield from sorted(f"`{name}`" for name in tops - {"__pycache__"})
    notebooks = sum(entry.path.endswith(".ipynb") for entry in entries)
    if notebooks:
        yield f"{notebooks} notebook{'s' if notebooks > 1 else ''}"
    data = sum(entry.size for entry in entries if DATA.search(entry.path))
    if data >= BIG:
        yield f"{data / 1e6:.0f} MB of data"
