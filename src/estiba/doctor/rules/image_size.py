"""Rules about the size of an image and the speed of its build: order of layers, compilers, caches, .dockerignore."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import date
from typing import ClassVar

from estiba.doctor.finding import Finding, listed
from estiba.doctor.read.build_context import relative_source
from estiba.doctor.read.containers import Image
from estiba.doctor.read.dockerfile_stages import Stage, Step
from estiba.doctor.read.inspected_container import InspectedContainer
from estiba.doctor.rule import Rule

_INSTALLS = re.compile(
    r"pip3?\s+install\s[^&;|]*-r\s*\S|pip3?\s+install\s[^&;|]*--requirement|uv\s+sync|poetry\s+install|pipenv\s+(?:install|sync)|"
    r"conda\s+env\s+(?:create|update)|mamba\s+env|npm\s+(?:ci|install)\b|pip3?\s+wheel\s[^&;|]*-r\s*\S"
)
_TOOLS = re.compile(
    r"\b(build-essential|build-base|gcc(?:-\d+)?|g\+\+(?:-\d+)?|clang|cmake|make|gfortran|rustc|cargo|python3?-dev|musl-dev|"
    r"[a-z0-9.+-]+-dev|git)\b"
)
_APT = re.compile(r"(?:apt-get|apt|apk)\s[^&;|]*?\b(?:install|add)\b([^&;|]*)")
_APT_UPDATE = re.compile(r"\bapt(?:-get)?\s+(?:-\S+\s+)*update\b")
_PURGES = re.compile(r"(?:apt-get|apt)\s[^&;|]*(?:purge|remove)|apk\s+del")
_PIP = re.compile(r"\bpip3?\s+install\b[^&;|]*")
_DATA = re.compile(r"\.(?:csv|parquet|feather|xlsx?|h5|hdf5|zip|tar|gz|sqlite|db|npy|npz|mp4|log)$", re.I)
_LIBRARIES = {
    "libpq-dev": "libpq5",
    "default-libmysqlclient-dev": "libmariadb3",
    "libmariadb-dev": "libmariadb3",
    "libffi-dev": "libffi8",
    "libssl-dev": "libssl3",
    "libxml2-dev": "libxml2",
    "unixodbc-dev": "unixodbc",
}
"""By Debian's package of headers, that of the library which is loaded at run time."""

MIN_DATA_BYTES = 10_000_000
"""Less data than this in an image is not reported."""

MAX_IMAGE_BYTES = 1_000_000_000


class CacheOrder(Rule):
    code = "cache-order"
    severity = "warning"
    title = "The code is copied before the dependencies are installed, again at every change."
    reason = "A changed line of code makes the builder download and install all packages again: minutes for seconds."
    example: ClassVar = {
        "Dockerfile": "FROM python:3.12-slim\nCOPY . .\nRUN pip install --no-cache-dir -r requirements.txt\n"
        'USER 10001\nCMD ["python", "-m", "http.server", "8000"]\n',
    }
    remedy = "Copy the requirements alone, install them, and copy the code after that."

    @classmethod
    def check_image(cls, image: Image, today: date) -> Iterator[Finding]:
        for stage in image.used:
            copied = _code_copied_before_install(stage, image)
            if copied is not None:
                subject = "The code is" if relative_source(copied.arguments[0]) else "Everything is"
                message = f"{subject} copied before the dependencies are installed, so each change installs them again."
                yield cls.finding(image.at(copied.instruction.line), message, cls.remedy)


def _code_copied_before_install(stage: Stage, image: Image) -> Step | None:
    copied: Step | None = None
    for step in stage.steps:
        if step.instruction.name == "RUN" and _INSTALLS.search(step.text):
            return copied
        if copied is None and _copies_from_context(step) and _copies_code(step, image):
            copied = step
    return None


def _copies_from_context(step: Step) -> bool:
    return step.instruction.name in ("COPY", "ADD") and "from" not in step.instruction.flags


def _copies_code(step: Step, image: Image) -> bool:
    """Return True if it copies everything, or a folder with Python files that the image comes to hold."""
    kept = {file.source for file in image.contents.files.values()}
    for source in step.arguments[:-1]:
        path = relative_source(source)
        if not path:
            return True
        inside = set(image.context.matching(source)) - {path}
        if any(entry.endswith(".py") for entry in inside & kept):
            return True
    return False


class BuildTools(Rule):
    code = "build-tools"
    severity = "warning"
    title = "Image too big: compilers stay in the image that runs."
    reason = "They add hundreds of megabytes, and give an intruder a compiler."
    example: ClassVar = {
        "Dockerfile": "FROM python:3.12-slim\nRUN apt-get update && apt-get install -y build-essential\n"
        'USER 10001\nCMD ["python", "-m", "http.server", "8000"]\n',
    }
    remedy = (
        "Install them in an earlier stage, and copy the virtual environment or the wheels from there. In a single "
        "stage, remove them in the same RUN that installs them."
    )

    @classmethod
    def check_image(cls, image: Image, today: date) -> Iterator[Finding]:
        for step in image.final.steps_of("RUN") if image.final else ():
            tools = [tool for part in _APT.findall(step.text) for tool in _TOOLS.findall(part)]
            if tools and not _PURGES.search(step.text):
                yield cls.finding(
                    image.at(step.instruction.line_of(tools[0])), *_tools_stay(list(dict.fromkeys(tools)))
                )
                return


def _tools_stay(tools: list[str]) -> tuple[str, str]:
    """Return the message and the remedy for tools, and for headers, whose libraries the program still needs."""
    stay = "stays" if len(tools) == 1 else "stay"
    if tools == ["git"]:
        message = "git stays in the image that runs, which probably does not need it."
        return message, "Fetch the sources in another stage, and copy what is installed from there."
    headers = [
        tool for tool in tools if tool.endswith("-dev") and tool not in ("python-dev", "python3-dev", "musl-dev")
    ]
    message = f"{listed(tools)} {stay} in the image that runs, which needs no compiler{' or headers' * bool(headers)}."
    fix = "Install them in another stage, and copy the virtual environment or the wheels from there."
    if headers:
        libraries = listed(_LIBRARIES.get(name, name.removesuffix("-dev")) for name in headers)
        fix = f"{fix[:-1]}; the last stage still needs the library itself: {libraries}."
    return message, fix


class PipCache(Rule):
    code = "pip-cache"
    severity = "note"
    title = "pip's cache stays in the image."
    reason = "Each wheel is in the image twice: installed, and as it was downloaded."
    example: ClassVar = {
        "Dockerfile": "FROM python:3.12-slim\nCOPY requirements.txt .\nRUN pip install -r requirements.txt\n"
        'USER 10001\nCMD ["python", "-m", "http.server", "8000"]\n',
    }
    remedy = "Call `pip install --no-cache-dir`, or set `ENV PIP_NO_CACHE_DIR=1`."

    @classmethod
    def check_image(cls, image: Image, today: date) -> Iterator[Finding]:
        for step in image.final.steps_of("RUN") if image.final else ():
            kept = not step.environment.get("PIP_NO_CACHE_DIR")  # any value switches it off, 0 too
            mounted = "type=cache" in step.instruction.flags.get("mount", "")
            commands = [part for part in _PIP.findall(step.text) if not re.search(r"\buv\s+pip\b", step.text)]
            if kept and not mounted and any("--no-cache-dir" not in part for part in commands):
                at = image.at(step.instruction.line_of("pip"))
                message = "pip keeps everything that it downloads in the image."
                yield cls.finding(at, message, "Call pip install with --no-cache-dir.")
                return


class AptLists(Rule):
    code = "apt-lists"
    severity = "note"
    title = "apt's lists of packages stay in the image."
    reason = "They take about 20 MB, are out of date the next day, and nothing in the container reads them."
    example: ClassVar = {
        "Dockerfile": "FROM python:3.12-slim\n"
        "RUN apt-get update && apt-get install -y --no-install-recommends libgomp1\n"
        'USER 10001\nCMD ["python", "-m", "http.server", "8000"]\n',
    }
    remedy = "End the same RUN with `&& rm -rf /var/lib/apt/lists/*`: a later one does not make the image smaller."

    @classmethod
    def check_image(cls, image: Image, today: date) -> Iterator[Finding]:
        for step in image.final.steps_of("RUN") if image.final else ():
            text = " ".join([step.text, *step.instruction.heredocs.values(), step.instruction.flags.get("mount", "")])
            if _APT_UPDATE.search(text) and not re.search(r"/var/lib/(?:apt|\*|\{)", text):
                at = image.at(step.instruction.line_of("update"))
                fix = "End this RUN with: && rm -rf /var/lib/apt/lists/*."
                yield cls.finding(at, "apt's lists of packages stay in the image, about 20 MB.", fix)
                return


class MissingDockerignore(Rule):
    code = "missing-dockerignore"
    severity = "warning"
    title = "There is no .dockerignore, and the whole folder is copied."
    reason = (
        "`.git`, virtual environments, data and `.env` are sent to the builder each time and end up in the image, "
        "where everyone who has the image can read them."
    )
    example: ClassVar = {
        "Dockerfile": 'FROM python:3.12-slim\nCOPY . .\nUSER 10001\nCMD ["python", "-m", "http.server", "8000"]\n',
    }
    remedy = "Write a .dockerignore with .git, .venv, data, notebooks, tests and .env in it."

    @classmethod
    def check_image(cls, image: Image, today: date) -> Iterator[Finding]:
        if image.final is None or not image.context.known or image.context.ignored.name:
            return
        in_final = [step for step in image.final.steps_of("COPY", "ADD") if _copies_everything(step)]
        steps = in_final or [step for stage in image.used for step in stage.steps if _copies_everything(step)]
        if steps:
            needless = listed(_needless(image)) if in_final else ""
            with_it = f", with {needless}" if needless else ""
            message = f"The whole folder is copied{with_it}, and there is no .dockerignore."
            yield cls.finding(image.at(steps[0].instruction.line), message, cls.remedy)


def _copies_everything(step: Step) -> bool:
    return _copies_from_context(step) and any(not relative_source(source) for source in step.arguments[:-1])


class DockerignoreGaps(Rule):
    code = "dockerignore-gaps"
    severity = "warning"
    title = "The .dockerignore lets needless files into the image."
    reason = "Notebooks, data and folders of tools make the image larger, and may hold what should not be published."
    example: ClassVar = {
        "Dockerfile": 'FROM python:3.12-slim\nCOPY . .\nUSER 10001\nCMD ["python", "-m", "http.server", "8000"]\n',
        ".dockerignore": ".git\n",
        "explore.ipynb": "{}",
    }
    remedy = "Add a line to .dockerignore for each of them, such as `*.ipynb`."

    @classmethod
    def check_image(cls, image: Image, today: date) -> Iterator[Finding]:
        context = image.context
        needless = listed(_needless(image)) if image.final and context.ignored.name else ""
        if needless:
            message = f"{context.ignored.name} does not keep {needless} out of the image."
            yield cls.finding(context.at(".dockerignore"), message, "Add a line for each of them.")


def _needless(image: Image) -> Iterator[str]:
    """Describe what is in the image and no program needs: folders of tools, notebooks, data."""
    sources = {file.source for file in image.contents.files.values() if not file.source.startswith("/")}
    entries = [image.context.entries[source] for source in sorted(sources) if source in image.context.entries]
    folders = {entry.path.rpartition("/")[2] for entry in entries if entry.folder}
    yield from sorted(f"`{name}`" for name in folders - {"__pycache__"})
    notebooks = sum(entry.path.endswith(".ipynb") for entry in entries)
    if notebooks:
        yield f"{notebooks} notebook{'s' if notebooks > 1 else ''}"
    data_bytes = sum(entry.size for entry in entries if _DATA.search(entry.path))
    if data_bytes >= MIN_DATA_BYTES:
        yield f"{data_bytes / 1e6:.0f} MB of data"


class ImageTooBig(Rule):
    code = "image-too-big"
    severity = "warning"
    title = "Image too big: over a gigabyte, measured."
    reason = "A new machine pulls it for minutes before the service can start there."
    example: ClassVar = {"docker image inspect": '"Size": 2100000000\n'}
    remedy = "Run `docker history` to see which layer is large, and `estiba doctor` on the folder of its Dockerfile."
    shown_by = "test_passwords_and_threads_of_what_runs"

    @classmethod
    def check_running(cls, container: InspectedContainer) -> Iterator[Finding]:
        size = container.image.get("Size")
        if isinstance(size, int) and size > MAX_IMAGE_BYTES:
            fix = "See what is in it: docker history, and estiba doctor on its folder."
            yield cls.finding(container.at, f"Its image has {size / 1e6:.0f} MB.", fix)
