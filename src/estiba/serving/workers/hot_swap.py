"""Follow the registry and replace what is served in all workers at once (hot swap).

The registry is asked in threads, reference by reference. A newer version becomes part of the next configuration. Every
worker prepares it: loads the version beside the one that it serves, and proves it. One worker begins, because loading
may end its process for want of memory; once it is through, the others follow. Once all have, all apply it. If one
cannot, dies, or takes too long, the old configuration stays in force in all.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from estiba.core import memory
from estiba.core.errors import EstibaError
from estiba.core.log import Log
from estiba.serving.telemetry.metrics import Metrics
from estiba.serving.workers import messages
from estiba.serving.workers.messages import Configuration, ServedModel
from estiba.serving.workers.store_query import StoreQuery
from estiba.serving.workers.worker_process import Process

Resolve = Callable[[str], ServedModel]
Stamp = Callable[[], object]


class Source(NamedTuple):
    """The registry.

    Args:
        resolve: the version that a reference means now.
        stamp: changes whenever `resolve` may give another result.
        poll: seconds between reads of the stamp.
    """

    resolve: Resolve
    stamp: Stamp
    poll: float


STAMP_TIMEOUT_SECONDS = 30.0
"""Time for the registry to return its stamp."""

RESOLVE_TIMEOUT_SECONDS = 600.0
"""Time to resolve one reference, and to fetch an artifact that is not on this machine yet."""

RETRY_SECONDS = 2.0
"""Time before a reference that could not be resolved is tried again."""

_FOLDERS = re.compile(r"(?:\w+://|(?<![\w./:])/)(?:[^\s/'\"()]+/)*(?=[^\s/])")
"""Folders before the name of a file, which clients need not know; the log has them."""


class HotSwap:
    """The configuration in force, and the next one while the workers prepare it.

    Attributes:
        failed: by model, why a newer version is not served, for clients.
        stuck: workers that may go on for ever with a version that was refused; to be replaced by the supervisor.
    """

    def __init__(
        self, refs: Sequence[str], source: Source, folder: Path, log: Log, metrics: Metrics, *, timeout: float = 60.0
    ) -> None:
        """Resolve nothing yet.

        Args:
            folder: where configurations are written for the workers.
            timeout: seconds that a worker may take to prepare a configuration.
        """
        self._refs = tuple(refs)
        self._resolve, self._stamp, self._poll = source
        self._folder = folder
        self._log = log
        self._metrics = metrics
        self.configuration = Configuration(0, ())
        self.failed: dict[str, str] = {}
        self.stuck: set[Process] = set()
        self._timeout = timeout
        self._last_generation = 0
        self._seen_stamp: object = None
        self._stamp_query: StoreQuery[object] | None = None
        self._stamp_read_at = 0.0
        self._queries: dict[str, StoreQuery[ServedModel]] = {}
        self._due: dict[str, float] = {}  # references to resolve, and when
        self._logged: dict[str, str] = {}
        self._wanted: dict[str, ServedModel] = {}  # newer versions that wait for their turn
        self._refused: set[ServedModel] = set()
        self._next: Configuration | None = None
        self._next_model: ServedModel | None = None
        self._preparing: set[Process] = set()
        self._prepared: set[Process] = set()
        self._expires_at = 0.0

    @property
    def generation(self) -> int:
        """The number of the configuration in force."""
        return self.configuration.generation

    def start(self) -> None:
        """Resolve all references for the first time; raises EstibaError."""
        self._seen_stamp = self._stamp()
        self.configuration = self._write(tuple(self._resolve(ref) for ref in self._refs))
        for model in self.configuration.models:  # present at 0, or Prometheus would not see the first one as a rise
            self._metrics.slot("estiba_swap_failures_total", model.name)

    def _write(self, models: tuple[ServedModel, ...]) -> Configuration:
        self._last_generation += 1
        configuration = Configuration(self._last_generation, models)
        configuration.write(self._folder)
        return configuration

    # The registry

    def poll(self, workers: Sequence[Process]) -> None:
        """Continue to ask the registry, and begin to prepare the first version that is not served yet.

        Never blocks; to be called often.
        """
        self._poll_stamp()
        self._query_due()
        for ref, query in list(self._queries.items()):
            if query.done:
                del self._queries[ref]
                self._take(ref, query)
            elif query.slow:
                self._warn(ref, "it takes long")
        if self._next is None and self._wanted and workers:
            self._begin(self._wanted.pop(next(iter(self._wanted))), workers)

    def _begin(self, model: ServedModel, workers: Sequence[Process]) -> None:
        """Begin to prepare a version, unless it cannot fit into memory."""
        free = memory.available()
        if free is not None and model.model_bytes > free:
            self._refuse(model, f"its model has {model.model_bytes / 1e6:.0f} MB, and {free / 1e6:.0f} MB are free")
            return
        models = tuple(model if old.ref == model.ref else old for old in self.configuration.models)
        self._next_model, self._next = model, self._write(models)
        self._preparing, self._prepared = set(), set()
        self._expires_at = time.monotonic() + self._timeout
        self._prepare(workers)

    def _poll_stamp(self) -> None:
        query = self._stamp_query
        if query is not None and query.done:
            self._stamp_query = None
            try:
                stamp = query.result()
            except EstibaError as error:
                self._warn("", error.message)
                return
            self._logged.pop("", None)
            if stamp != self._seen_stamp:
                self._seen_stamp = stamp
                self._due = dict.fromkeys(self._refs, 0.0)
        elif query is not None and query.slow:
            self._warn("", "it does not answer")
        if self._stamp_query is None and time.monotonic() > self._stamp_read_at + self._poll:
            self._stamp_read_at = time.monotonic()
            self._stamp_query = StoreQuery(self._stamp, STAMP_TIMEOUT_SECONDS)

    def _query_due(self) -> None:
        now = time.monotonic()
        for ref in [ref for ref, at in self._due.items() if at <= now and ref not in self._queries]:
            del self._due[ref]
            self._queries[ref] = StoreQuery(
                lambda ref=ref: self._resolve(ref),  # type: ignore[misc]
                RESOLVE_TIMEOUT_SECONDS,
            )

    def _take(self, ref: str, query: StoreQuery[ServedModel]) -> None:
        """Compare the version that a reference means now with what is served."""
        try:
            model = query.result()
        except EstibaError as error:
            self._warn(ref, error.message)
            self._due.setdefault(ref, time.monotonic() + RETRY_SECONDS)
            return
        self._logged.pop(ref, None)
        self._wanted.pop(ref, None)
        if model in self.configuration.models:
            self.failed.pop(model.name, None)
            self._refused = {each for each in self._refused if each.ref != ref}  # whoever returns to it may try it
        elif model in self._refused or model == self._next_model:
            pass
        elif model.error:
            self._refuse(model, model.error)
        else:
            self._wanted[ref] = model

    def _warn(self, ref: str, reason: str) -> None:
        """Log a failure only when its reason changes."""
        if self._logged.get(ref) != reason:
            self._logged[ref] = reason
            about = {"ref": ref} if ref else {}
            self._log.warning("the registry cannot be read", **about, reason=reason)

    # The workers

    def _prepare(self, workers: Sequence[Process]) -> None:
        """Let workers prepare the next configuration: one at first, and the others once it has."""
        assert self._next is not None
        if not self._prepared and any(not (worker.ended or worker.draining) for worker in self._preparing):
            return
        for worker in workers if self._prepared else workers[:1]:
            if worker not in self._preparing:
                worker.tell(messages.Prepare(self._next.generation))
                self._preparing.add(worker)

    def on_prepared(self, worker: Process, message: messages.Prepared) -> None:
        """Handle a worker's answer to Prepare."""
        if self._next is None or message.generation != self._next.generation:
            return
        if message.error:
            self._give_up(message.error)
            return
        if not self._prepared:
            self._expires_at = time.monotonic() + self._timeout
        self._prepared.add(worker)

    def on_death(self, worker: Process, ending: str) -> None:
        """Handle the death of a worker: while it prepares a version, that version is the likeliest cause.

        The system may as well end one that is ready with it, as that has become the larger one.
        """
        if worker in self._preparing:
            self._give_up(f"a worker ended while it was loaded: {ending}")

    def _give_up(self, reason: str) -> None:
        """Refuse the version that is being prepared; all workers stay with what they serve."""
        if self._next is None or self._next_model is None:
            return
        self._refuse(self._next_model, reason)
        for worker in self._preparing:
            worker.tell(messages.Discard(self._next.generation))
        self._end(self._next_model)

    def _refuse(self, model: ServedModel, reason: str) -> None:
        """Record that a version cannot be served: it is not tried again, and the old one stays."""
        self._refused.add(model)
        self.failed[model.name] = f"version {model.version}: {_FOLDERS.sub('', reason)}"
        self._metrics.slot("estiba_swap_failures_total", model.name).add()
        text = "the version is not served; the one before it stays"
        self._log.error(text, model=model.name, version=model.version, reason=reason)

    def advance(self, workers: Sequence[Process]) -> None:
        """Apply the next configuration once every worker has prepared it; workers that are new prepare it too."""
        configuration, model = self._next, self._next_model
        if configuration is None or model is None or not workers:
            return
        self._prepare(workers)
        if self._prepared.issuperset(workers):
            self._apply(configuration, model, workers)
        elif time.monotonic() > self._expires_at:
            self.stuck |= self._preparing - self._prepared
            self._give_up(f"a worker did not load it within {self._timeout:g} seconds (start_timeout in [server])")

    def _apply(self, configuration: Configuration, model: ServedModel, workers: Sequence[Process]) -> None:
        self.configuration = configuration
        for worker in workers:
            worker.tell(messages.Apply(configuration.generation))
            worker.generation = configuration.generation
        self.failed.pop(model.name, None)
        self._end(model)
        self._log.info("now serving", model=model.name, version=model.version)

    def _end(self, model: ServedModel) -> None:
        """End the swap. The reference may have moved meanwhile, or back, so it is resolved again."""
        self._next = self._next_model = None
        self._preparing = set()
        self._due[model.ref] = 0.0
