"""README and docs are true: both languages agree, every link leads somewhere, and the commands of tested pages work.

A page whose first line begins with `<!-- tested` is executed: its `python` blocks share one namespace, as the cells of
a notebook do, and in its `console` blocks each command after `$ ` must print what stands below it, where `...` stands
for anything and white space does not count. `sh` and `text` blocks are only shown. `README.md` is tested too.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import tomllib
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import estiba
from estiba.core import options
from estiba.core.ports import free
from estiba.model.registry.registry import open_registry
from estiba.project import Tree
from estiba.serving.telemetry.metrics import METRICS

ROOT = Path(__file__).parent.parent
README, SPANISH = ROOT / "README.md", ROOT / "README.es.md"
FAULTY = ROOT / "docs/reference/doctor.md"
"""The page of the doctor's rules: its examples are wrong on purpose, and tested with the rules."""

PAGES = [README, SPANISH, *sorted((ROOT / "docs").rglob("*.md"))]
OTHERS = [ROOT / name for name in ("CONTRIBUTING.md", "bench/README.md", "examples/portfolio/README.md")]
GUIDES = ROOT / "docs/guides"
TOURS = {
    "readme": [README],
    "quickstart": [ROOT / "docs/start/quickstart.md", *(GUIDES / f"{n}.md" for n in ("client", "score-files"))],
    "registries": [GUIDES / "registries.md"],
    "project": [ROOT / "docs/start/project.md"],
}
"""Pages that are read one after the other in one folder."""

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(([^)\s]+)\)")


class Block(NamedTuple):
    language: str
    text: str


def blocks(page: Path, language: str = "") -> list[Block]:
    found = [Block(*match.groups()) for match in _FENCE.finditer(page.read_text())]
    return [block for block in found if language in ("", block.language)]


def prose(page: Path) -> str:
    return _FENCE.sub("", page.read_text())


def headings(page: Path) -> list[str]:
    return re.findall(r"^(#+) ", prose(page), re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives to a page's headings."""
    titles = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


def shown(page: Path) -> str:
    return str(page.relative_to(ROOT))


def test_both_languages_have_the_same_sections_and_links() -> None:
    assert headings(README) == headings(SPANISH)
    there, here = (_LINK.findall(prose(page)) for page in (README, SPANISH))
    assert [link for link in there if link != SPANISH.name] == [link for link in here if link != README.name]
    assert there.count(SPANISH.name) == here.count(README.name) == 1


def test_both_languages_show_the_same_code() -> None:
    there, here = blocks(README), blocks(SPANISH)
    assert [block.language for block in there] == [block.language for block in here]
    run = [[block for block in found if block.language in ("python", "console")] for found in (there, here)]
    assert run[0] == run[1]


def test_both_languages_have_the_same_tables() -> None:
    there, here = (re.findall(r"^\|.*", prose(page), re.MULTILINE) for page in (README, SPANISH))
    assert [row.count("|") for row in there] == [row.count("|") for row in here]


@pytest.mark.parametrize("page", [*PAGES, *OTHERS], ids=shown)
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    for link in _LINK.findall(prose(page)):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path) if path else page
        assert target.exists(), f"{shown(page)} links to {link}"
        assert not anchor or anchor in anchors(target), f"{shown(page)} links to {link}"


@pytest.mark.parametrize("page", [page for page in PAGES if page != FAULTY], ids=shown)
def test_blocks_are_what_they_say(page: Path) -> None:
    for block in blocks(page, "toml"):
        options.read(tomllib.loads(block.text), Tree)
    for block in blocks(page, "python"):
        compile(block.text, shown(page), "exec")


def test_every_page_is_in_the_index() -> None:
    index = ROOT / "docs/README.md"
    linked = {(index.parent / link.partition("#")[0]).resolve() for link in _LINK.findall(prose(index))}
    assert [shown(page) for page in PAGES if page.is_relative_to(ROOT / "docs") and page not in linked] == [
        "docs/README.md"
    ]


def test_every_tested_page_is_on_a_tour() -> None:
    marked = {page for page in PAGES if page.read_text().startswith("<!-- tested")}
    assert marked | {README} == {page for pages in TOURS.values() for page in pages}


def test_every_metric_is_described() -> None:
    page = (GUIDES / "operate.md").read_text()
    table = "".join(re.findall(r"^(\| `(?:estiba|process)_[^|]*\|)", page, re.MULTILINE))
    assert sorted(re.findall(r"`(\w+)`", table)) == sorted(metric.name for metric in METRICS)


class Reader:
    """A reader who does what a page says. `port` replaces 8000 throughout."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder = folder
        self.port = str(port)
        self.names: dict[str, Any] = {}
        self.servers: list[subprocess.Popen[bytes]] = []

    def read(self, page: Path) -> None:
        self.settle()
        for block in blocks(page):
            text = re.sub(r"\b8000\b", self.port, block.text)
            if block.language == "python":
                exec(compile(text, shown(page), "exec"), self.names)
            elif block.language == "console":
                for command, output in commands(text):
                    self.run(command, output)

    def settle(self) -> None:
        """Wait until a server that an earlier page started serves the version that the page packed last."""
        registry = open_registry(self.folder / ".estiba/registry")
        until = time.monotonic() + 20
        while self.servers and "wine" in registry.list() and time.monotonic() < until:
            newest = str(registry.resolve("wine").version)
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/models", timeout=5) as answer:
                    served = {model["name"]: model["version"] for model in json.load(answer)["models"]}
            except OSError:
                return
            if served.get("wine", newest) == newest:
                return
            time.sleep(0.2)

    def run(self, command: str, output: str) -> None:
        if command.startswith("cd "):
            self.folder /= command.removeprefix("cd ")
            return
        serves = re.match(r"estiba (up|serve)\b", command)
        got = self.serve(f"exec {command} --port {self.port}") if serves else self.shell(command)
        assert agrees(output, got), f"{command}\nshould print\n{output}\nand prints\n{got}"

    def shell(self, command: str) -> str:
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
        )
        return done.stdout

    def serve(self, command: str) -> str:
        """Start a server and return its output until it was ready; one that runs is stopped first."""
        self.stop()
        log = self.folder / "server.log"
        with log.open("wb") as opened:
            self.servers.append(
                subprocess.Popen(["bash", "-c", command], cwd=self.folder, stdout=opened, stderr=subprocess.STDOUT)
            )
        until = time.monotonic() + 60
        while "/docs\n  curl" not in log.read_text() and time.monotonic() < until:
            assert self.servers[-1].poll() is None, log.read_text()
            time.sleep(0.05)
        time.sleep(0.1)
        return log.read_text()

    def stop(self) -> None:
        """Ctrl-C, after which a server must end well."""
        while self.servers:
            server = self.servers.pop()
            server.send_signal(signal.SIGINT)
            try:
                assert server.wait(20) == 0
            finally:
                server.kill()

    def close(self) -> None:
        for value in self.names.values():
            if isinstance(value, estiba.Client):
                value.close()
        self.stop()


def commands(text: str) -> Iterator[tuple[str, str]]:
    """The commands of a console block, each with the output below it."""
    for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        lines = part.splitlines()
        end = next((n for n, line in enumerate(lines[1:], 1) if not line.startswith("> ")), len(lines))
        yield "\n".join([lines[0], *(line[2:] for line in lines[1:end])]), "\n".join(lines[end:])


def agrees(shown: str, got: str) -> bool:
    parts = [re.sub(r"\s+", "", part) for part in shown.split("...")]
    return re.fullmatch(".*".join(map(re.escape, parts)), re.sub(r"\s+", "", got), re.DOTALL) is not None


@pytest.mark.slow
@pytest.mark.parametrize("tour", TOURS)
def test_what_a_page_shows_happens(tour: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ESTIBA_REGISTRY", "ESTIBA_DATA", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)
    reader = Reader(tmp_path, free("127.0.0.1"))
    try:
        for page in TOURS[tour]:
            reader.read(page)
    finally:
        reader.close()
