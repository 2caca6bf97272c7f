"""Write log lines to standard error, as JSON objects or, on a terminal, as readable text."""

from __future__ import annotations

import sys
import traceback
from datetime import UTC, datetime
from typing import IO, Any, Literal

import msgspec

Format = Literal["auto", "json", "text"]


class Log:
    """Writes log lines. `auto` is text on a terminal and JSON elsewhere."""

    def __init__(self, form: Format = "auto", stream: IO[str] | None = None) -> None:
        self._stream = stream or sys.stderr
        self._json = form == "json" or (form == "auto" and not self._stream.isatty())

    def info(self, message: str, **fields: Any) -> None:
        self.write(self.line("info", message, fields))

    def warning(self, message: str, **fields: Any) -> None:
        self.write(self.line("warning", message, fields))

    def error(self, message: str, *, error: BaseException | None = None, **fields: Any) -> None:
        """Log a failure, with the exception's traceback, which is shown nowhere else."""
        if error is not None:
            fields["error"] = f"{type(error).__name__}: {error}"
            fields["trace"] = "".join(traceback.format_exception(error))
        self.write(self.line("error", message, fields))

    def line(self, level: str, message: str, fields: dict[str, Any]) -> str:
        """A formatted line, with its line feed."""
        now = datetime.now(UTC)
        if self._json:
            stamp = now.isoformat(timespec="milliseconds").replace("+00:00", "Z")
            line = msgspec.json.encode({"timestamp": stamp, "level": level, "message": message, **fields}).decode()
        else:
            trace = fields.pop("trace", "")
            pairs = "".join(f" {key}={value}" for key, value in fields.items())
            line = f"{now.astimezone():%H:%M:%S} {level:<7} {message}{pairs}" + (f"\n{trace.rstrip()}" if trace else "")
        return line + "\n"

    def write(self, text: str) -> None:
        """Write whole lines in one call."""
        self._stream.write(text)
        self._stream.flush()

    def descriptor(self) -> int:
        """The file descriptor of the log; raises io.UnsupportedOperation where the stream has none."""
        return self._stream.fileno()
