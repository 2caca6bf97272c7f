"""The child-process protocol, with a spec on standard input and reports as JSON lines on standard output.

The parent writes one line of JSON and keeps the child's standard input open; when it closes, the parent is gone and the
child has to end too. The child writes its reports, one JSON object a line, to what was its standard output. Everything
that other code prints goes to standard error.

Parents: `estiba.core.shell.converse`, and `estiba.core.process_group.ProcessGroup` with `on_message`.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import TypeVar

import msgspec

from estiba.core.errors import EstibaError

Spec = TypeVar("Spec")

_READ_BYTES = 4096


class Failed(msgspec.Struct, frozen=True, tag="failed", omit_defaults=True):
    """Report of a child that cannot do its work.

    Args:
        expected: True for an error that Estiba raises on purpose, which needs no trace.
    """

    message: str
    hint: str | None = None
    exit_code: int = 1
    expected: bool = True

    @classmethod
    def of(cls, error: EstibaError) -> Failed:
        return cls(error.message, error.hint, error.exit_code)

    def error(self) -> EstibaError:
        """The error for the parent to raise."""
        error = EstibaError(self.message, hint=self.hint)
        error.exit_code = self.exit_code
        return error


def read_spec(kind: type[Spec]) -> Spec:
    """Read the spec from standard input; raises msgspec.DecodeError where the parent wrote none."""
    # Not buffered: what follows the line must stay in the pipe, and a thread that waits in a buffered read keeps an
    # interpreter from ending.
    with open(0, "rb", buffering=0, closefd=False) as stdin:
        return msgspec.json.decode(stdin.readline(), type=kind)


def open_reports() -> Callable[[msgspec.Struct], None]:
    """Keep standard output for reports, and send what anything else prints to standard error."""
    reports = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)

    def report(message: msgspec.Struct) -> None:
        reports.write(msgspec.json.encode(message) + b"\n")

    return report


def on_parent_exit(act: Callable[[], None]) -> None:
    """Call `act` in a thread when the parent is gone. From now on, standard input is empty for everything else."""
    stdin = os.dup(0)
    with open(os.devnull, "rb") as nothing:  # noqa: PTH123
        os.dup2(nothing.fileno(), 0)

    def watch() -> None:
        while os.read(stdin, _READ_BYTES):
            pass
        act()

    threading.Thread(target=watch, name="parent", daemon=True).start()
