"""Versions: what is served, and how another version takes its place.

Every worker loads it beside the one that it serves, and proves it there; once all have it, all switch. If one cannot,
the version before it stays in all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from estiba.core.errors import EstibaError
from estiba.core.log import Log
from estiba.serving import messages
from estiba.serving.messages import ServedModel
from estiba.serving.metrics import Metrics
from estiba.serving.process import Process

Resolve = Callable[[], Sequence[ServedModel]]
Stamp = Callable[[], object]


class Versions:
    """The versions being served, by reference."""

    def __init__(self, resolve: Resolve, stamp: Stamp, log: Log, metrics: Metrics) -> None:
        self._resolve = resolve
        self._stamp = stamp
        self._log = log
        self._metrics = metrics
        self.served: tuple[ServedModel, ...] = ()
        self.failed: dict[str, str] = {}
        self._seen: object = None
        self._refused: set[ServedModel] = set()
        self._next: ServedModel | None = None
        self._complaint = ""
        self._loading: set[Process] = set()
        self._loaded: set[Process] = set()

    def start(self) -> None:
        """Resolves for the first time; raises EstibaError."""
        self._seen = self._stamp()
        self.served = tuple(self._resolve())

    def look(self, workers: Sequence[Process]) -> None:
        """Looks whether other versions are wanted than are served; begins to load the first such."""
        try:
            stamp = self._stamp()
            if stamp == self._seen or self._next is not None or not workers:
                return
            wanted = tuple(self._resolve())
        except EstibaError as error:
            if error.message != self._complaint:  # once, not twice a second
                self._complaint = error.message
                self._log.warning("the registry cannot be read", reason=error.message)
            return
        self._complaint = ""
        current = {model.ref: model for model in self.served}
        for model in wanted:
            if current[model.ref] == model:
                self.failed.pop(model.name, None)
            elif model.error and model not in self._refused:
                self._refuse(model, model.error)
            elif model not in self._refused:
                self._next = model
                self._begin(workers)
                return
        self._seen = stamp

    def _begin(self, workers: Sequence[Process]) -> None:
        assert self._next is not None
        self._loading, self._loaded = set(workers), set()
        for worker in workers:
            worker.tell(messages.Load(self._next))

    def told(self, worker: Process, message: messages.Loaded) -> None:
        """A worker has loaded the next version, or could not."""
        model = self._next
        if model is None or (message.name, message.version) != (model.name, model.version):
            return
        if not message.error:
            self._loaded.add(worker)
            return
        self._refuse(model, message.error)
        for other in self._loading:
            other.tell(messages.Discard(model.name, model.version))
        self._next = None

    def _refuse(self, model: ServedModel, reason: str) -> None:
        """A version that failed is not tried again; the old one goes on serving, and everybody can see why."""
        self._refused.add(model)
        self.failed[model.name] = f"version {model.version}: {reason}"
        self._metrics.slot("estiba_swap_failures_total", model.name).add()
        said = "the version is not served; the one before it stays"
        self._log.error(said, model=model.name, version=model.version, reason=reason)

    def go_on(self, workers: Sequence[Process]) -> None:
        """Switches once every worker has loaded; begins again where the workers are not the same any more."""
        model = self._next
        if model is None:
            return
        if set(workers) != self._loading:
            if workers:
                self._begin(workers)
        elif self._loaded == self._loading:
            for worker in workers:
                worker.tell(messages.Switch(model.name, model.version))
            self.served = tuple(model if old.ref == model.ref else old for old in self.served)
            for worker in workers:
                worker.models = self.served
            self.failed.pop(model.name, None)
            self._next = None
            self._log.info("now serving", model=model.name, version=model.version)
