"""Versions: what is served, and how another version takes its place.

The registry is asked in threads, reference by reference. Every worker loads a newer version beside the one that it
serves, and proves it there; once all have it, all switch. If one cannot, the version before it stays in all.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from estiba.core.errors import EstibaError
from estiba.core.log import Log
from estiba.serving.telemetry.metrics import Metrics
from estiba.serving.workers import messages
from estiba.serving.workers.messages import ServedModel
from estiba.serving.workers.registry_query import Question
from estiba.serving.workers.worker_process import Process

Resolve = Callable[[str], ServedModel]
Stamp = Callable[[], object]


class Source(NamedTuple):
    """Where versions come from.

    Args:
        resolve: the version that a reference means now.
        stamp: changes whenever `resolve` may say something else.
        poll: seconds between looks at the stamp.
    """

    resolve: Resolve
    stamp: Stamp
    poll: float


STAMP_PATIENCE = 30.0
"""Seconds for the registry to say whether anything changed."""

PATIENCE = 600.0
"""Seconds to look one reference up, and to fetch an artifact that is not on this machine yet."""

AGAIN = 2.0
"""Seconds before a reference that could not be looked up is tried again."""


class Versions:
    """The versions being served, by reference."""

    def __init__(self, refs: Sequence[str], source: Source, log: Log, metrics: Metrics) -> None:
        self._refs = tuple(refs)
        self._resolve, self._stamp, self._poll = source
        self._log = log
        self._metrics = metrics
        self.served: tuple[ServedModel, ...] = ()
        self.failed: dict[str, str] = {}
        self._seen: object = None
        self._stamping: Question[object] | None = None
        self._looked = 0.0
        self._questions: dict[str, Question[ServedModel]] = {}
        self._due: dict[str, float] = {}  # references to look up, and when
        self._complaints: dict[str, str] = {}
        self._wanted: dict[str, ServedModel] = {}  # other versions than are served, which wait for their turn
        self._refused: set[ServedModel] = set()
        self._next: ServedModel | None = None
        self._loading: set[Process] = set()
        self._loaded: set[Process] = set()

    def start(self) -> None:
        """Resolves for the first time; raises EstibaError."""
        self._seen = self._stamp()
        self.served = tuple(self._resolve(ref) for ref in self._refs)
        for model in self.served:  # there at 0, or Prometheus would not see the first failure as a rise
            self._metrics.slot("estiba_swap_failures_total", model.name)

    # The registry

    def look(self, workers: Sequence[Process]) -> None:
        """Goes on asking the registry what is wanted; begins to load the first version that is not served yet.

        Waits for nothing: to be called again and again.
        """
        self._look_for_changes()
        self._ask_what_is_due()
        for ref, question in list(self._questions.items()):
            if question.done:
                del self._questions[ref]
                self._take(ref, question)
            elif question.slow:
                self._complain(ref, "it takes long")
        if self._next is None and self._wanted and workers:
            self._next = self._wanted.pop(next(iter(self._wanted)))
            self._loading, self._loaded = set(), set()
            self._load(workers)

    def _look_for_changes(self) -> None:
        question = self._stamping
        if question is not None and question.done:
            self._stamping = None
            try:
                stamp = question.answer()
            except EstibaError as error:
                self._complain("", error.message)
                return
            self._complaints.pop("", None)
            if stamp != self._seen:
                self._seen = stamp
                self._due = dict.fromkeys(self._refs, 0.0)
        elif question is not None and question.slow:
            self._complain("", "it does not answer")
        if self._stamping is None and time.monotonic() > self._looked + self._poll:
            self._looked = time.monotonic()
            self._stamping = Question(self._stamp, STAMP_PATIENCE)

    def _ask_what_is_due(self) -> None:
        now = time.monotonic()
        for ref in [ref for ref, at in self._due.items() if at <= now and ref not in self._questions]:
            del self._due[ref]
            self._questions[ref] = Question(lambda ref=ref: self._resolve(ref), PATIENCE)  # type: ignore[misc]

    def _take(self, ref: str, question: Question[ServedModel]) -> None:
        """What a reference means now."""
        try:
            model = question.answer()
        except EstibaError as error:
            self._complain(ref, error.message)
            self._due.setdefault(ref, time.monotonic() + AGAIN)
            return
        self._complaints.pop(ref, None)
        self._wanted.pop(ref, None)
        if model in self.served:
            self.failed.pop(model.name, None)
        elif model in self._refused or model == self._next:
            pass
        elif model.error:
            self._refuse(model, model.error)
        else:
            self._wanted[ref] = model

    def _complain(self, ref: str, reason: str) -> None:
        """Once, not twice a second."""
        if self._complaints.get(ref) != reason:
            self._complaints[ref] = reason
            about = {"ref": ref} if ref else {}
            self._log.warning("the registry cannot be read", **about, reason=reason)

    # The workers

    def _load(self, workers: Iterable[Process]) -> None:
        """Tells those that do not know of the next version yet."""
        assert self._next is not None
        now = set(workers)
        for worker in now - self._loading:
            worker.tell(messages.Load(self._next))
        self._loading = now

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
        self._leave(model)

    def _refuse(self, model: ServedModel, reason: str) -> None:
        """A version that failed is not tried again; the old one goes on serving, and everybody can see why."""
        self._refused.add(model)
        self.failed[model.name] = f"version {model.version}: {reason}"
        self._metrics.slot("estiba_swap_failures_total", model.name).add()
        said = "the version is not served; the one before it stays"
        self._log.error(said, model=model.name, version=model.version, reason=reason)

    def go_on(self, workers: Sequence[Process]) -> None:
        """Switches once every worker has loaded; where other workers are there now, they load too."""
        model = self._next
        if model is None or not workers:
            return
        if set(workers) != self._loading:
            self._load(workers)
        if self._loaded >= self._loading:
            self._switch(model, workers)

    def _switch(self, model: ServedModel, workers: Sequence[Process]) -> None:
        for worker in workers:
            worker.tell(messages.Switch(model.name, model.version))
        self.served = tuple(model if old.ref == model.ref else old for old in self.served)
        for worker in workers:
            worker.models = self.served
        self.failed.pop(model.name, None)
        self._leave(model)
        self._log.info("now serving", model=model.name, version=model.version)

    def _leave(self, model: ServedModel) -> None:
        """It is no longer the next one. Its reference may have moved on meanwhile, or back."""
        self._next = None
        self._due[model.ref] = 0.0
