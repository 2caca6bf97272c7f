"""An auxiliary process that writes its process id to a file, and ends with its standard input or at a signal."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import msgspec

from estiba.serving.workers.auxiliary_process import AuxiliaryInput


def main() -> None:
    given = msgspec.json.decode(sys.stdin.buffer.readline(), type=AuxiliaryInput)
    with Path(msgspec.json.decode(given.settings)).open("a") as file:
        file.write(f"{os.getpid()} {given.folder}\n")
    sys.stdin.buffer.read()


if __name__ == "__main__":
    main()
