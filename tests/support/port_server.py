"""Serves toy models by worker processes as its one argument, a JSON object, says. Prints its URL once it answers."""

from __future__ import annotations

import sys

import msgspec

from estiba import serve
from estiba.serving.options import ServerOptions


def main() -> None:
    spec = msgspec.json.decode(sys.argv[1])
    ports = {int(port): model for port, model in spec["ports"].items()}
    serve.serve(
        spec["models"],
        ServerOptions(port=0, workers=1),
        registry=spec["registry"],
        ports=ports,
        on_ready=lambda running: print(running.url, flush=True),
    )


if __name__ == "__main__":
    main()
