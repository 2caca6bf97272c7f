"""Serves the toy model `price` at so many seconds a row, in a thread of its own as every python engine. What reaches
the model is written down, so that a test can say what never did."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from estiba.model.coding.coder import Coded, Matrix
from estiba.model.inference.load import load
from estiba.serving.options import ServerOptions
from estiba.serving.server import serve

if TYPE_CHECKING:
    from toys import Live


class Slow:
    """An engine that takes its time, and writes every value that it is asked to a file."""

    def __init__(self, engine: Any, seconds: float, seen: Path) -> None:
        self.engine = engine
        self._seconds = seconds
        self._seen = seen.open("a", buffering=1)

    def predict(self, coded: Coded) -> Matrix:
        self._seen.write("".join(f"{value:.0f}\n" for value in coded.matrix[:, 0]))
        time.sleep(self._seconds * len(coded))
        answer: Matrix = self.engine.predict(coded)
        return answer

    def close(self) -> None:
        self._seen.close()


@contextmanager
def slow_server(registry: Path, folder: Path, seconds: float, **settings: Any) -> Iterator[Live]:
    """A server of its own process; `seen(folder)` says what reached its model."""
    from toys import Live  # the script itself does without

    log = folder / "slow.log"
    spec = {"registry": str(registry), "seen": str(folder / "seen"), "seconds": seconds, "settings": settings}
    with log.open("w") as stderr:
        command = [sys.executable, __file__, msgspec.json.encode(spec).decode()]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True)
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        assert line.startswith("http://"), log.read_text()
        yield Live(process, int(line.rsplit(":", 1)[1]), log)
    finally:
        process.kill()
        process.communicate()


def seen(folder: Path) -> list[int]:
    """The values that reached the model, rounded to whole numbers."""
    return [int(line) for line in (folder / "seen").read_text().split()]


def main() -> None:
    spec = msgspec.json.decode(sys.argv[1])
    options = msgspec.convert({"port": 0, "log": "json", **spec["settings"]}, ServerOptions)
    model = load("price", registry=spec["registry"], threads=1)
    model.engine = Slow(model.engine, spec["seconds"], Path(spec["seen"]))
    model.manifest = msgspec.structs.replace(model.manifest, engine="python")
    serve([model], options, on_ready=lambda url: print(url, flush=True))


if __name__ == "__main__":
    main()
