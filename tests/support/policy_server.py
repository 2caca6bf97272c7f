"""Serve models with the worker module and the auxiliary processes that the only argument, a JSON object, names."""

from __future__ import annotations

import sys

import msgspec

from estiba import serve
from estiba.model.registry.registry import open_registry
from estiba.serving.options import ServerOptions
from estiba.serving.workers.auxiliary_process import AuxiliarySpec
from estiba.serving.workers.hot_swap import Source
from estiba.serving.workers.messages import WORKER_MODULE, ServedModel
from estiba.serving.workers.supervisor import Programs, supervise


def main() -> None:
    spec = msgspec.json.decode(sys.argv[1])
    store = open_registry(spec["registry"])

    def resolve(ref: str) -> ServedModel:
        artifact, version = serve.find(ref, store)
        return ServedModel(ref, artifact.manifest.name, version, str(artifact.path))

    auxiliary = tuple(
        AuxiliarySpec(name, name, msgspec.Raw(msgspec.json.encode(settings)))
        for name, settings in spec.get("auxiliary", {}).items()
    )
    supervise(
        ServerOptions(port=0, log="json", workers=1, default="price"),
        spec["models"],
        Source(resolve, store.stamp, 0.5),
        ports={},
        programs=Programs(spec.get("worker", WORKER_MODULE), auxiliary),
        on_ready=lambda url, workers, threads: print(url, flush=True),
    )


if __name__ == "__main__":
    main()
