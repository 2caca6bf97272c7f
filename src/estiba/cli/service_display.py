"""Show running services in a table until all have started, then their output and changes of their state."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import click
import msgspec

from estiba.cli import terminal
from estiba.core.language import translated
from estiba.local.status import SETTLED, State, Status

if TYPE_CHECKING:
    from rich.console import Console
    from rich.live import Live
    from rich.table import Table
    from rich.text import Text

HEADS = ("service", "state", "url", "pid", "seconds", "")

_COLOURS = ("cyan", "magenta", "green", "blue", "yellow", "bright_cyan", "bright_magenta", "bright_green")
_MARKS = {
    "healthy": "✔",
    "running": "✔",
    "done": "✔",
    "failed": "✘",
    "unhealthy": "✘",
    "restarting": "✘",
    "left out": "-",
    "stopped": "-",
}
_TROUBLE = (State.UNHEALTHY, State.RESTARTING, State.FAILED)
"""States that are reported also beside a table."""

_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])|[\x00-\x08\x0b-\x1f\x7f]")


class Board:
    """Shows services on standard output: as lines in a pipe, as a live table on a terminal until all have settled."""

    def __init__(self, names: Sequence[str], on_settled: Callable[[], None]) -> None:
        """Open the live table on a terminal.

        Args:
            names: of all services, in the order of the table.
            on_settled: called once, as soon as no service is still starting.
        """
        self._names = list(names)
        self._width = max(map(len, self._names), default=0)
        self._on_settled = on_settled
        self._statuses: dict[str, Status] = {}
        self._since: dict[str, float] = {}
        self._settled = False
        self._console: Console | None = None
        self._live: Live | None = None
        if terminal.is_terminal(sys.stdout):
            self._open()

    def _open(self) -> None:
        from rich.live import Live

        self._console = terminal.console(sys.stdout)
        self._live = Live(get_renderable=self._table, console=self._console, refresh_per_second=8)
        self._live.start()

    @property
    def readable(self) -> bool:
        """True if a person reads the log."""
        return sys.stdout.isatty()

    def close(self) -> None:
        """End the live table; it stays on the screen."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def status(self, status: Status) -> None:
        """Show a change of status, as a line unless the live table shows it."""
        self._statuses[status.service] = status
        self._since[status.service] = time.monotonic()
        if self._live is None or status.state in _TROUBLE:
            for text in report_lines(status):
                self.note(text)
        if not self._settled and all(self._state(name) in SETTLED for name in self._names):
            self._settled = True
            live = self._live is not None
            self.close()
            if status.state == "stopped":  # before all had come up: there is nothing to announce
                return
            if not live:
                terminal.table(HEADS, [self._cells(name) for name in self._names])
            self._on_settled()

    def line(self, name: str, text: str) -> None:
        """Print a line of a service after its name."""
        if self._console is None:
            click.echo(f"{name:<{self._width}} | {_ESCAPES.sub('', text)}")
            return
        from rich.text import Text

        shown = Text(f"{name:<{self._width}} | ", self._colour(name))
        self._print(shown.append_text(Text.from_ansi(text)))

    def note(self, text: str) -> None:
        """Print a message that belongs to no service."""
        text = translated(text)
        if self._console is None:
            click.echo(text)
            return
        from rich.text import Text

        self._print(Text(text, "bold"))

    def _print(self, text: Text) -> None:
        assert self._console is not None
        self._console.print(text, soft_wrap=True)

    def _colour(self, name: str) -> str:
        return _COLOURS[self._names.index(name) % len(_COLOURS)] if name in self._names else "bright_black"

    def _state(self, name: str) -> State:
        return self._statuses[name].state if name in self._statuses else State.WAITING

    def _cells(self, name: str) -> tuple[str, ...]:
        status = self._statuses.get(name) or Status(name, State.WAITING)
        url = status.url if status.state in ("healthy", "running") else ""
        return (name, status.state, url, str(status.pid or ""), self._seconds(status), status.detail)

    def _seconds(self, status: Status) -> str:
        if status.seconds is not None:
            return f"{status.seconds:.1f}"
        if status.state in ("starting", "installing"):
            return f"{time.monotonic() - self._since.get(status.service, time.monotonic()):.0f}"
        return ""

    def _table(self) -> Table:
        from rich.table import Table
        from rich.text import Text

        shown = Table.grid(padding=(0, 2))
        for name in self._names:
            _, state, *cells = self._cells(name)
            style = {"✔": "green", "✘": "red"}.get(_MARKS.get(state, ""), "dim")
            mark = Text(_MARKS.get(state, "…"), style)
            shown.add_row(mark, Text(name, "bold"), Text(translated(state), style), *map(Text, cells))
        return shown


class ServerLog:
    """Shows a model server that runs alone: its log on standard error, its address on standard output."""

    def __init__(self, on_settled: Callable[[], None]) -> None:
        """Show nothing yet.

        Args:
            on_settled: called once, as soon as the server answers.
        """
        self._on_settled = on_settled
        self._settled = False

    @property
    def readable(self) -> bool:
        """True if a person reads the log."""
        return sys.stderr.isatty()

    def status(self, status: Status) -> None:
        if status.state == State.LEFT_OUT:
            terminal.line(f"{status.service}: {sentence(status)}")
        elif status.state == State.HEALTHY and not self._settled:
            self._settled = True
            self._on_settled()
        elif status.state in _TROUBLE:
            for text in report_lines(status):
                self.note(text)

    def line(self, name: str, text: str) -> None:
        click.echo(text, err=True)

    def note(self, text: str) -> None:
        click.echo(translated(text), err=True)

    def close(self) -> None:
        """Do nothing: nothing is open."""


class Events:
    """Prints events as JSON for programs, one object per line."""

    @property
    def readable(self) -> bool:
        """True if a person reads the log."""
        return sys.stdout.isatty()

    def status(self, status: Status) -> None:
        fields = {key: value for key, value in msgspec.to_builtins(status).items() if value not in (None, "", [])}
        _event("status", fields)

    def line(self, name: str, text: str) -> None:
        _event("line", {"service": name, "text": text})

    def note(self, text: str) -> None:
        _event("note", {"text": text})

    def close(self) -> None:
        """Do nothing: nothing is open."""


def _event(kind: str, fields: dict[str, Any]) -> None:
    click.echo(msgspec.json.encode({"event": kind, **fields}).decode())


def sentence(status: Status) -> str:
    """A status in words, to follow the name of the service."""
    where = f" at {status.url}" if status.url and status.state in ("healthy", "running") else ""
    took = f"{status.seconds:.1f} s" if status.seconds is not None and not status.detail else ""
    pid = f"pid {status.pid}" if status.pid is not None and status.state in ("healthy", "running") else ""
    facts = ", ".join(fact for fact in (pid, took) if fact)
    detail = f": {status.detail}" if status.detail else ""
    return f"{status.state}{where}{f' ({facts})' if facts else ''}{detail}"


def report_lines(status: Status) -> Iterator[str]:
    """A status with what explains it, as lines of text."""
    yield f"{status.service}: {sentence(status)}"
    if status.output:
        yield f"{status.service}: its last lines were:"
        for text in status.output:
            yield f"    {_ESCAPES.sub('', text)}"
    if status.hint:
        yield f"{status.service}: {status.hint}"
