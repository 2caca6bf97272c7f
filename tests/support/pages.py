"""Read the Markdown pages of the docs as a reader does: their blocks, and the commands in them, which are executed."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import estiba
from estiba.model.registry.registry import open_registry

_FENCE = re.compile(r"^(?:<!-- (docker|file: \S+) -->\n)?```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    """A block of code. `mark` is `docker` for commands that need it, and `file: PATH` for the content of a file."""

    mark: str
    language: str
    text: str


def blocks(page: Path, language: str = "") -> list[Block]:
    found = [Block(*(part or "" for part in match.groups())) for match in _FENCE.finditer(page.read_text())]
    return [block for block in found if language in ("", block.language)]


def prose(page: Path) -> str:
    return _FENCE.sub("", page.read_text())


class Reader:
    """A reader who does what a page says. `port` replaces 8000 throughout, but not in blocks marked `docker`.

    Args:
        docker: run the blocks that are marked `docker` too.
    """

    def __init__(self, folder: Path, port: int, *, docker: bool = False) -> None:
        self.folder = folder
        self.port = str(port)
        self.docker = docker
        self.names: dict[str, Any] = {}
        self.servers: list[subprocess.Popen[bytes]] = []

    def read(self, page: Path) -> None:
        self.settle()
        for block in blocks(page):
            text = block.text if block.mark == "docker" else re.sub(r"\b8000\b", self.port, block.text)
            if block.mark.startswith("file: "):
                self.write(block.mark.removeprefix("file: "), block.text)
            elif block.mark == "docker" and not self.docker:
                continue
            elif block.language == "python":
                exec(compile(text, page.name, "exec"), self.names)
            elif block.language == "console":
                for command, output in commands(text):
                    self.run(command, output)

    def write(self, path: str, text: str) -> None:
        (self.folder / path).parent.mkdir(parents=True, exist_ok=True)
        (self.folder / path).write_text(text)

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
            self.folder = (self.folder / command.removeprefix("cd ")).resolve()
            assert self.folder.is_dir(), command
            return
        if command == "Ctrl-C":
            self.stop()
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
            timeout=300 if self.docker else 60,
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
        end = next((n for n, line in enumerate(lines[1:], 1) if line != ">" and not line.startswith("> ")), len(lines))
        yield "\n".join([lines[0], *(line[2:] for line in lines[1:end])]), "\n".join(lines[end:])


def agrees(shown: str, got: str) -> bool:
    parts = [re.sub(r"\s+", "", part) for part in shown.split("...")]
    return re.fullmatch(".*".join(map(re.escape, parts)), re.sub(r"\s+", "", got), re.DOTALL) is not None
