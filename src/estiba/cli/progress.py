"""Show the progress of trainings and builds: live lines on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import click

from estiba.cli import terminal
from estiba.core.language import translated

if TYPE_CHECKING:
    from rich.status import Status
    from rich.table import Table

    from estiba.model.training.runner import Event

_MARKS = {"done": "✔", "unchanged": "=", "failed": "✘"}


@contextmanager
def trainings() -> Iterator[Callable[[Event], None]]:
    """Show events on standard error while the block runs."""
    if not terminal.is_terminal(sys.stderr):
        yield _plain
        return
    from rich.live import Live

    lines = _Lines()
    with Live(get_renderable=lines.render, console=terminal.console(sys.stderr), refresh_per_second=8):
        try:
            yield lines.take
        except BaseException:
            lines.fail()
            raise


def _plain(event: Event) -> None:
    if event.stage == "warning":
        terminal.warning(f"{event.model}: {event.detail}")
        return
    detail = {"training": f" ({event.detail})"}.get(event.stage, f" {event.detail}")
    click.echo(translated(f"{event.model}: {event.stage}{detail if event.detail else ''}"), err=True)


@dataclass
class _Line:
    stage: str
    detail: str
    began: float = field(default_factory=time.monotonic)
    seconds: float | None = None


class _Lines:
    """The live lines, by model."""

    def __init__(self) -> None:
        from rich.spinner import Spinner

        self._lines: dict[str, _Line] = {}
        self._warnings: list[str] = []
        self._spinner = Spinner("dots")

    def take(self, event: Event) -> None:
        if event.stage == "warning":
            self._warnings.append(f"{event.model}: {event.detail}")
            return
        known = self._lines.setdefault(event.model, _Line(event.stage, event.detail))
        known.stage = event.stage
        known.detail = event.detail or known.detail
        if event.stage in _MARKS:
            known.seconds = time.monotonic() - known.began

    def fail(self) -> None:
        for known in self._lines.values():
            if known.seconds is None:
                known.stage, known.seconds = "failed", time.monotonic() - known.began

    def render(self) -> Table:
        from rich.table import Table
        from rich.text import Text

        shown = Table.grid(padding=(0, 2))
        for model, known in self._lines.items():
            mark = _MARKS.get(known.stage)
            seconds = known.seconds if known.seconds is not None else time.monotonic() - known.began
            spent = "" if known.stage == "unchanged" else f"{seconds:.0f} s"
            first = Text(mark) if mark else self._spinner
            stage, detail = translated(known.stage), Text(translated(known.detail), "dim")
            shown.add_row(first, Text(model, "bold"), stage, detail, spent)
        for text in self._warnings:
            shown.add_row(
                Text("!", "yellow"), Text(text.partition(":")[0], "bold"), "warning", Text(text, "yellow"), ""
            )
        return shown


class Steps:
    """Steps of builds, each a line on standard error; on a terminal, with the builder's current output below it."""

    def __init__(self) -> None:
        self._status: Status | None = None

    def __enter__(self) -> Steps:
        return self

    def __exit__(self, *_: object) -> None:
        self._quiet()

    def tell(self, service: str, doing: str, detail: str) -> None:
        """Show a step, or, if `doing` is empty, a line of the builder's output."""
        if doing:
            self._quiet()
            click.echo(translated(f"{service}: {doing}{f' ({detail})' if detail else ''}"), err=True)
        elif detail.strip() and terminal.is_terminal(sys.stderr):
            self._show_output(detail.strip())

    def _show_output(self, line: str) -> None:
        from rich.text import Text

        shown = Text(line, "dim", no_wrap=True, overflow="ellipsis")
        if self._status is None:
            self._status = terminal.console(sys.stderr).status(shown)
            self._status.start()
        self._status.update(shown)

    def _quiet(self) -> None:
        if self._status is not None:
            self._status.stop()
            self._status = None
