"""Follow the registry and replace what is served in all workers at once (hot swap).

The registry is asked in threads, reference by reference. A newer version, or another route with the versions that it
names, becomes part of the next configuration. Every worker prepares it: loads the versions beside those that it serves,
and proves them. One worker begins, because loading may end its process for want of memory; once it is through, the
others follow. Once all have, all apply it. If one cannot, dies, or takes too long, the old configuration stays in force
in all.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from estiba.core import memory
from estiba.core.errors import EstibaError
from estiba.core.log import Log
from estiba.serving.route_spec import RouteSpec
from estiba.serving.telemetry.metrics import Metrics
from estiba.serving.workers import messages
from estiba.serving.workers.messages import Configuration, ServedModel
from estiba.serving.workers.store_query import StoreQuery
from estiba.serving.workers.worker_process import Process

Resolve = Callable[[str], ServedModel]
Stamp = Callable[[], object]


class Resolved(NamedTuple):
    """The versions that a reference means now.

    Args:
        models: the one that represents the model is the first.
        route: their shares of its requests; None where the first answers all.
        error: why the route cannot be followed, where that is known before any worker tried.
    """

    models: tuple[ServedModel, ...]
    route: RouteSpec | None = None
    error: str = ""

    @property
    def name(self) -> str:
        return self.models[0].name

    @property
    def is_routed(self) -> bool:
        """The model has a route, also if it cannot be followed."""
        return self.route is not None or (bool(self.error) and not self.models[0].error)

    @property
    def text(self) -> str:
        """The versions, for people."""
        if self.route is not None:
            return f"its route ({', '.join(f'{each.variant} = version {each.version}' for each in self.route.every)})"
        return "its route" if self.is_routed else f"version {self.models[0].version}"


def _alone(model: ServedModel) -> Resolved:
    return Resolved((model,), None, model.error)


class Source(NamedTuple):
    """The registry.

    Args:
        resolve: the version that a reference means now.
        stamp: changes whenever `resolve` or `route` may give another result.
        poll: seconds between reads of the stamp.
        route: all versions of a reference that was resolved, where its model has a route.
    """

    resolve: Resolve
    stamp: Stamp
    poll: float
    route: Callable[[ServedModel], Resolved] = _alone


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
        self._source = source
        self._stamp, self._poll = source.stamp, source.poll
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
        self._queries: dict[str, StoreQuery[Resolved]] = {}
        self._due: dict[str, float] = {}  # references to resolve, and when
        self._logged: dict[str, str] = {}
        self._served: dict[str, Resolved] = {}  # by reference, what the configuration in force serves
        self._wanted: dict[str, Resolved] = {}  # newer versions and routes that wait for their turn
        self._refused: dict[str, list[Resolved]] = {}
        self._next: Configuration | None = None
        self._next_resolved: tuple[str, Resolved] | None = None
        self._preparing: set[Process] = set()
        self._prepared: set[Process] = set()
        self._expires_at = 0.0

    @property
    def generation(self) -> int:
        """The number of the configuration in force."""
        return self.configuration.generation

    def start(self) -> None:
        """Resolve all references for the first time; raises EstibaError.

        A route that cannot be followed keeps no model from being served: its own version answers.
        """
        self._seen_stamp = self._stamp()
        for ref in self._refs:
            resolved = self._resolve(ref)
            self._served[ref] = resolved
            if resolved.error:
                self._served[ref] = _alone(self._source.resolve(ref))
                self._refuse(ref, resolved, resolved.error)
        self.configuration = self._write(self._served)
        for model in self.configuration.models:  # present at 0, or Prometheus would not see the first one as a rise
            self._metrics.slot("estiba_swap_failures_total", model.name)

    def without_routes(self, reason: str) -> bool:
        """Serve every reference by its own version, as a worker could not start with the routes; False without any."""
        routed = {ref: resolved for ref, resolved in self._served.items() if resolved.route is not None}
        for ref, resolved in routed.items():
            self._served[ref] = _alone(self._source.resolve(ref))
            self._refuse(ref, resolved, reason)
        if routed:
            self.configuration = self._write(self._served)
        return bool(routed)

    def _resolve(self, ref: str) -> Resolved:
        return self._source.route(self._source.resolve(ref))

    def _write(self, served: Mapping[str, Resolved]) -> Configuration:
        self._last_generation += 1
        models = dict.fromkeys(model for resolved in served.values() for model in resolved.models)
        routes = {resolved.name: resolved.route for resolved in served.values() if resolved.route is not None}
        configuration = Configuration(self._last_generation, tuple(models), tuple(routes.values()))
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
            ref = next(iter(self._wanted))
            self._begin(ref, self._wanted.pop(ref), workers)

    def _begin(self, ref: str, resolved: Resolved, workers: Sequence[Process]) -> None:
        """Begin to prepare versions, unless they cannot fit into memory."""
        free = memory.available()
        size = sum(model.model_bytes for model in resolved.models if model not in self.configuration.models)
        if free is not None and size > free:
            self._refuse(ref, resolved, f"its model has {size / 1e6:.0f} MB, and {free / 1e6:.0f} MB are free")
            return
        self._next_resolved, self._next = (ref, resolved), self._write({**self._served, ref: resolved})
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

    def _take(self, ref: str, query: StoreQuery[Resolved]) -> None:
        """Compare the versions that a reference means now with what is served."""
        try:
            resolved = query.result()
        except EstibaError as error:
            self._warn(ref, error.message)
            self._due.setdefault(ref, time.monotonic() + RETRY_SECONDS)
            return
        self._logged.pop(ref, None)
        self._wanted.pop(ref, None)
        if resolved == self._served[ref]:
            self.failed.pop(resolved.name, None)
            self._refused.pop(ref, None)  # whoever returns to one may try it
        elif resolved in self._refused.get(ref, ()) or (ref, resolved) == self._next_resolved:
            pass
        elif resolved.error:
            self._refuse(ref, resolved, resolved.error)
        else:
            self._wanted[ref] = resolved

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
        at_once = self._prepared or set(self._next.models) <= set(self.configuration.models)  # nothing is loaded
        if not at_once and any(not (worker.ended or worker.draining) for worker in self._preparing):
            return
        for worker in workers if at_once else workers[:1]:
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
        """Refuse the versions that are being prepared; all workers stay with what they serve."""
        if self._next is None or self._next_resolved is None:
            return
        self._refuse(*self._next_resolved, reason)
        for worker in self._preparing:
            worker.tell(messages.Discard(self._next.generation))
        self._end()

    def _refuse(self, ref: str, resolved: Resolved, reason: str) -> None:
        """Record that versions cannot be served: they are not tried again, and the old ones stay."""
        self._refused.setdefault(ref, []).append(resolved)
        self.failed[resolved.name] = f"{resolved.text}: {_FOLDERS.sub('', reason)}"
        self._metrics.slot("estiba_swap_failures_total", resolved.name).add()
        if not resolved.is_routed:
            text = "the version is not served; the one before it stays"
            self._log.error(text, model=resolved.name, version=resolved.models[0].version, reason=reason)
        else:
            self._log.error("the route is not followed; the one before it stays", model=resolved.name, reason=reason)

    def advance(self, workers: Sequence[Process]) -> None:
        """Apply the next configuration once every worker has prepared it; workers that are new prepare it too."""
        if self._next is None or not workers:
            return
        self._prepare(workers)
        if self._prepared.issuperset(workers):
            self._apply(self._next, workers)
        elif time.monotonic() > self._expires_at:
            self.stuck |= self._preparing - self._prepared
            self._give_up(f"a worker did not load it within {self._timeout:g} seconds (start_timeout in [server])")

    def _apply(self, configuration: Configuration, workers: Sequence[Process]) -> None:
        assert self._next_resolved is not None
        ref, resolved = self._next_resolved
        before, self._served[ref] = self._served[ref], resolved
        self.configuration = configuration
        for worker in workers:
            worker.tell(messages.Apply(configuration.generation))
            worker.generation = configuration.generation
        self.failed.pop(resolved.name, None)
        self._end()
        if resolved.models[:1] != before.models[:1] or resolved.route is None:
            self._log.info("now serving", model=resolved.name, version=resolved.models[0].version)
        if resolved.route is not None:
            targets = {each.variant: f"{each.version} ({each.weight:g})" for each in resolved.route.targets}
            self._log.info("now following a route", model=resolved.name, targets=targets)

    def _end(self) -> None:
        """End the swap. The reference may have moved meanwhile, or back, so it is resolved again."""
        assert self._next_resolved is not None
        self._due[self._next_resolved[0]] = 0.0
        self._next = self._next_resolved = None
        self._preparing = set()
