"""Serve toy models in one worker process as the only argument, a JSON object, says. Print the URL once it answers."""

from __future__ import annotations

import sys

import msgspec

from estiba import serve
from estiba.gateway.options import Gateway
from estiba.monitoring.options import DriftOptions
from estiba.serving.options import ServerOptions


def main() -> None:
    spec = msgspec.json.decode(sys.argv[1])
    serve.serve(
        spec["models"],
        msgspec.convert({"port": 0, "log": "json", "workers": 1, **spec.get("settings", {})}, ServerOptions),
        serve.Stores(
            spec["registry"],
            spec.get("trust", False),
            msgspec.convert(spec.get("gateway", {}), Gateway),
            msgspec.convert(spec.get("drift", {}), DriftOptions),
        ),
        ports={int(port): model for port, model in spec.get("ports", {}).items()},
        on_ready=lambda running: print(running.url, flush=True),
    )


if __name__ == "__main__":
    main()
