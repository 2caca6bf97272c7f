"""Write the pictures of terminals in docs/images again, each from a real run: python scripts/pictures.py [NAME...]

A command runs in tmux, whose screen, colours included, becomes an SVG file without anything that a browser would fetch.
`plan` needs Docker with the images redis:8 and postgres:17 (scripts/lab/images).
"""

from __future__ import annotations

import io
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.text import Text

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "docs" / "images"
MAX_BYTES = 150_000
TIMEOUT_SECONDS = 600
COLUMNS = 112

SHOP = """\
[project]
name = "shop"

[services.redis]
image = "redis:8"
command = ["redis-server", "--port", "${port}", "--dir", "${volumes.data}"]
volumes = { data = "/data" }
user = 999
port = 6379
public = false
memory = "128MB"
"""

POSTGRES = """
[services.postgres]
image = "postgres:17"
port = 5432
public = false
user = 999
writable = ["/var/run/postgresql"]
environment = { PGDATA = "${volumes.data}/pgdata", POSTGRES_PASSWORD_FILE = "${secrets.postgres-password}" }
secrets = ["postgres-password"]
volumes = { data = "/var/lib/postgresql/data" }
"""


@dataclass(frozen=True)
class Picture:
    """A command, and the folder that it runs in.

    Args:
        prepare: makes the folder ready. until: text on the screen that shows that the command has done its work.
        rows: of the terminal. clean: removes what the command made outside of the folder.
    """

    command: str
    prepare: Callable[[Path], None]
    until: str
    rows: int = 40
    clean: Callable[[Path], None] = lambda folder: None


def _portfolio(folder: Path) -> None:
    ignored = shutil.ignore_patterns(".estiba", "__pycache__", "data")
    shutil.copytree(ROOT / "examples/portfolio", folder, ignore=ignored, dirs_exist_ok=True)


def _broken(folder: Path) -> None:
    for name in ("course-api",):
        shutil.copytree(ROOT / "tests/doctor/broken" / name, folder, dirs_exist_ok=True)


def _deployed_shop(folder: Path) -> None:
    (folder / "estiba.toml").write_text(SHOP)
    _run(folder, "estiba deploy compose --yes")
    (folder / "estiba.toml").write_text(SHOP.replace("128MB", "256MB") + POSTGRES)


def _remove_shop(folder: Path) -> None:
    _run(folder, "docker compose --project-directory deploy/compose down --volumes")


PICTURES = {
    "up": Picture("estiba up", _portfolio, r"users_behavior|curl -s \S+/models/telecom", rows=60),
    "doctor": Picture("estiba doctor", _broken, r"\d+ error.* files?"),
    "plan": Picture("estiba deploy compose --plan", _deployed_shop, r"services change", clean=_remove_shop),
}


def main() -> int:
    names = sys.argv[1:] or list(PICTURES)
    for name in names:
        with tempfile.TemporaryDirectory() as parent:
            folder = Path(parent) / "project"
            folder.mkdir()
            picture = PICTURES[name]
            picture.prepare(folder)
            try:
                screen = _screen(picture, folder)
            finally:
                picture.clean(folder)
        target = FOLDER / f"terminal-{name}.svg"
        target.write_text(_drawn(f"$ {picture.command}\n{screen}", picture.command))
        print(f"wrote {target.relative_to(ROOT)}, {target.stat().st_size:,} bytes")
        assert target.stat().st_size < MAX_BYTES
    return 0


def _environment() -> dict[str, str]:
    """This machine's, with the programs of this environment, and none of the settings that change the output."""
    kept = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "TMUX", "LANG", "LC_ALL")}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return kept | {"PATH": path, "LANG": "C.UTF-8", "COLORTERM": "truecolor"}


def _run(folder: Path, command: str) -> None:
    subprocess.run(shlex.split(command), cwd=folder, env=_environment(), check=True, stdout=subprocess.DEVNULL)


def _screen(picture: Picture, folder: Path) -> str:
    """Run the command in a terminal of its own until it shows a text; return the screen with its colours."""
    with _terminal(picture, folder) as tmux:
        until = time.monotonic() + TIMEOUT_SECONDS
        while not re.search(picture.until, tmux("capture-pane", "-p", "-J")):
            if time.monotonic() > until:
                raise TimeoutError(tmux("capture-pane", "-p"))
            time.sleep(0.3)
        time.sleep(1)
        return tmux("capture-pane", "-p", "-e").rstrip()


@contextmanager
def _terminal(picture: Picture, folder: Path) -> Iterator[Callable[..., str]]:
    server = ["tmux", "-L", f"estiba-pictures-{os.getpid()}", "-f", "/dev/null"]

    def tmux(*arguments: str, check: bool = True) -> str:
        command = [*server, *arguments]
        return subprocess.run(command, check=check, capture_output=True, text=True, env=_environment()).stdout

    size = ["-x", str(COLUMNS), "-y", str(picture.rows)]
    # The shell stays when the command has ended, so that the screen does.
    tmux("new-session", "-d", *size, "-c", str(folder), f"{picture.command}; sleep {TIMEOUT_SECONDS}")
    try:
        yield tmux
    finally:
        tmux("send-keys", "C-c", check=False)
        time.sleep(5)
        tmux("kill-server", check=False)  # with its last program it has ended by itself


def _drawn(screen: str, title: str) -> str:
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    for line in screen.splitlines():
        console.print(Text.from_ansi(line), overflow="crop", no_wrap=True)
    svg = console.export_svg(title=title, unique_id="estiba")
    return re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)


if __name__ == "__main__":
    sys.exit(main())
