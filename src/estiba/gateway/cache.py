"""Answer rows that a model was asked before from a cache, row by row; equal rows are computed once at a time.

What is kept is the model's raw answer to a coded row. Everything else of a response, such as warnings and values that
are handed through, is made for each request. The fields of a response are those of RFC 9211 (Cache-Status).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import numpy as np

from estiba.core.log import Log
from estiba.gateway.cache_key import Keys
from estiba.gateway.cache_memory import Found, MemoryStore
from estiba.gateway.cache_redis import RedisStore
from estiba.gateway.options import CacheOptions
from estiba.model.coding.coder import Coded, Warned
from estiba.model.inference.load import Model
from estiba.serving.exchange import Answer, Exchange, Part
from estiba.serving.http.deadline import Expired
from estiba.serving.http.request import Request
from estiba.serving.pipeline import Computes
from estiba.serving.telemetry.metrics import Metrics, Slot

PRIVATE = b"cache-control: private, no-store\r\n"
"""Other caches keep nothing: they would not notice a new version of the model."""

_HIT = b"hit; ttl=%d\r\nage: %d"

RESULTS = ("hit", "miss", "partial", "collapsed", "bypass")

USE, RENEW, NEVER = "use", "renew", "never"


class Asked:
    """An exchange that waits for answers to its rows.

    Attributes:
        raws: by row; None where the answer is not known yet.
        reused: rows whose answers were known, or come from the run of another exchange.
        direct: the batcher's answer, where one run had all rows.
    """

    __slots__ = (
        "age", "batcher", "coded", "collapsed", "direct", "exchange", "hits", "is_done", "is_stored", "keys",
        "missing", "raws", "reused", "wish",
    )  # fmt: skip

    def __init__(self, exchange: Exchange, batcher: Computes, coded: Coded, keys: Sequence[bytes], wish: str) -> None:
        self.exchange = exchange
        self.batcher = batcher
        self.coded = coded
        self.keys = keys
        self.wish = wish
        self.missing = len(keys)
        self.raws: list[bytes | None] = [None] * len(keys)
        self.reused: list[int] = []
        self.hits = self.collapsed = 0
        self.age = 0.0
        self.is_done = self.is_stored = False
        self.direct: Answer | None = None

    def take(self, row: int, raw: bytes) -> None:
        """Take the answer to a row."""
        if self.raws[row] is None:
            self.raws[row] = raw
            self.missing -= 1


class _Waiter(NamedTuple):
    asked: Asked
    row: int


class _Run:
    """The endpoint of a part: rows of one exchange that are computed.

    Attributes:
        leads: other exchanges may wait for its rows.
    """

    variant = ""

    def __init__(self, cache: AnswerCache, asked: Asked, rows: Sequence[int], *, leads: bool) -> None:
        self.cache = cache
        self.leads = leads
        self.asked = asked
        self.rows = rows

    def handle(self, exchange: Exchange) -> None:
        """Nothing: a part is decoded already."""

    def reject(self, exchange: Exchange, error: BaseException) -> None:
        self.refuse(exchange, error)

    def finish(self, exchange: Exchange, answer: Answer) -> None:
        self.cache.take_run(self, answer)

    def refuse(self, exchange: Exchange, error: BaseException) -> None:
        self.cache.fail_run(self, error)


class AnswerCache:
    """The cache of one worker. Lives on its event loop."""

    def __init__(self, options: CacheOptions, store: MemoryStore | RedisStore, metrics: Metrics, log: Log) -> None:
        """Take the place where answers are kept."""
        self._options = options
        self._memory = store if isinstance(store, MemoryStore) else None
        self._redis = store if isinstance(store, RedisStore) else None
        self._ttl = options.ttl
        self._metrics = metrics
        self._log = log
        self._keys: dict[str, Keys] = {}
        self._flights: dict[bytes, list[_Waiter]] = {}
        self._refused: set[str] = set()
        self._slots: dict[tuple[str, str], Slot] = {}

    def takes(self, model: Model) -> bool:
        """Return True if answers of a model are kept: one of tables that is named, or any that is exact."""
        chosen = self._options.models
        if model.name not in chosen if chosen else model.manifest.engine == "python":
            return False
        if model.signature.is_tensors:
            if chosen and model.name not in self._refused:
                self._refused.add(model.name)
                self._log.warning("the cache keeps no answers of models of tensors", model=model.name)
            return False
        for result in RESULTS:
            self._slot(model.name, result)
        return True

    def skip(self, exchange: Exchange, model: Model) -> None:
        """Take note of a large body, which is not looked up."""
        self._say(exchange, model, "bypass", b"fwd=bypass")

    def answer(self, exchange: Exchange, batcher: Computes) -> None:
        """Answer an exchange from what is known, from runs of others, and by the model."""
        wish = _wish(exchange.request)
        model = batcher.model
        if wish is NEVER:
            self._say(exchange, model, "bypass", b"fwd=request")
            batcher.submit(exchange)
            return
        coded = exchange.coded
        if coded is None:
            coded = model.coder.pack(exchange.records)
        keys = self._keys_of(model).of(coded)
        if len(keys) == 1 and wish is USE and self._memory is not None and (known := self._memory.find(keys[0])):
            self._repeat(exchange, batcher, coded, known)
            return
        asked = Asked(exchange, batcher, coded, keys, wish)
        if wish is RENEW:
            self._compute(asked, range(len(keys)), leads=False)
        elif self._memory is not None:
            self._look_up(asked, range(len(keys)), self._memory.known(keys))
        else:
            self._ask_redis(asked)

    def _repeat(self, exchange: Exchange, batcher: Computes, coded: Coded, known: Found) -> None:
        """Answer an exchange of one row that is known, which is the usual one, in as few steps as it takes."""
        raw = np.frombuffer(known.raw, np.float64).reshape(1, -1)
        predictions, nulls = batcher.model.predictions.with_warnings(raw)
        warnings = (*coded.warnings, *nulls) if nulls else coded.warnings
        self._say(exchange, batcher.model, "hit", _HIT % (max(0, int(self._ttl - known.age)), int(known.age)))
        batcher.reuse(exchange, coded, raw)
        exchange.endpoint.finish(exchange, Answer(predictions, warnings))

    def _keys_of(self, model: Model) -> Keys:
        keys = self._keys.get(model.digest)
        if keys is None:
            keys = self._keys[model.digest] = Keys(model)
        return keys

    def _ask_redis(self, asked: Asked) -> None:
        """Look rows up, but for those that another exchange is looking up or computing."""
        assert self._redis is not None
        leading = [row for row in range(len(asked.keys)) if not self._join(asked, row)]
        if leading:
            keys = [asked.keys[row] for row in leading]
            self._redis.ask(asked.batcher.model.name, keys, partial(self._take_found, asked, leading))

    def _take_found(self, asked: Asked, rows: Sequence[int], known: Sequence[Found | None]) -> None:
        unknown = []
        for row, each in zip(rows, known, strict=True):
            if each is None:
                unknown.append(row)
            else:
                self._land(asked.keys[row], each.raw, each.age, None)
        if unknown:
            self._compute(asked, unknown, leads=True)

    def _look_up(self, asked: Asked, rows: Sequence[int], known: Sequence[Found | None]) -> None:
        """Take what memory knows, join the runs of others, and compute the rest."""
        leading = []
        for row, each in zip(rows, known, strict=True):
            if each is not None:
                self._hit(asked, row, each.raw, each.age)
            elif not self._join(asked, row):
                leading.append(row)
        if leading:
            self._compute(asked, leading, leads=True)
        elif not asked.missing:
            self._finish(asked)

    def _join(self, asked: Asked, row: int) -> bool:
        """Wait for the run of another exchange for the same row; False where there is none, and this leads now."""
        waiters = self._flights.get(asked.keys[row])
        if waiters is None:
            self._flights[asked.keys[row]] = [_Waiter(asked, row)]
            return False
        waiters.append(_Waiter(asked, row))
        return True

    @staticmethod
    def _hit(asked: Asked, row: int, raw: bytes, age: float) -> None:
        asked.take(row, raw)
        asked.reused.append(row)
        asked.hits += 1
        asked.age = max(asked.age, age)

    def _compute(self, asked: Asked, rows: Sequence[int], *, leads: bool) -> None:
        """Let the model compute rows."""
        run = _Run(self, asked, rows, leads=leads)
        try:
            is_whole = len(rows) == len(asked.keys)
            coded = asked.coded if is_whole else _taken(asked.coded, rows)
            asked.batcher.submit(Part(asked.exchange, coded, () if is_whole else rows, run))
        except Exception as error:  # a run that never comes must not leave others waiting for it
            self.fail_run(run, error)

    def take_run(self, run: _Run, answer: Answer) -> None:
        """Keep what was computed, and hand it to all that wait for it."""
        asked = run.asked
        if answer.raw is None:
            self.fail_run(run, RuntimeError("The batcher did not keep the raw answer."))
            return
        raw = np.ascontiguousarray(answer.raw, np.float64)
        if len(run.rows) == len(asked.keys):
            asked.direct = answer
        for position, row in enumerate(run.rows):
            key, content = asked.keys[row], raw[position].tobytes()
            asked.is_stored = self._put(asked, key, content)
            asked.take(row, content)
            if run.leads:
                self._land(key, content, 0.0, asked)
        if not asked.missing:
            self._finish(asked)

    def _put(self, asked: Asked, key: bytes, content: bytes) -> bool:
        try:
            if self._memory is not None:
                return self._memory.put(key, content)
            return self._redis is not None and self._redis.put(asked.batcher.model.name, key, content)
        except Exception as error:  # what cannot be kept is answered all the same
            self._log.error("the cache cannot keep an answer", error=error, model=asked.batcher.model.name)
            return False

    def _land(self, key: bytes, raw: bytes, age: float, computed_for: Asked | None) -> None:
        """Hand an answer to the exchanges that wait for it."""
        for number, (asked, row) in enumerate(self._flights.pop(key, ())):
            if asked.is_done or asked.raws[row] is not None:
                continue
            if computed_for is not None:
                asked.take(row, raw)
                asked.reused.append(row)
                asked.collapsed += asked is not computed_for
            else:
                self._hit(asked, row, raw, age)
                asked.collapsed += number > 0
            if not asked.missing and asked is not computed_for:
                self._finish(asked)

    def fail_run(self, run: _Run, error: BaseException) -> None:
        """Refuse the exchange whose run failed. Those that wait for it ask the model themselves."""
        waiting: dict[Asked, list[int]] = {}
        for row in run.rows if run.leads else ():
            for asked, waiter_row in self._flights.pop(run.asked.keys[row], ()):
                if asked is not run.asked and not asked.is_done:
                    waiting.setdefault(asked, []).append(waiter_row)
        if not run.asked.is_done:
            run.asked.is_done = True
            self._say(run.asked.exchange, run.asked.batcher.model, "miss", b"fwd=uri-miss")
            run.asked.exchange.refuse(error)
        for asked, rows in waiting.items():
            self._compute(asked, rows, leads=False)

    def expire(self) -> None:
        """Refuse exchanges that wait for others' runs, and whose deadline has passed."""
        now = time.perf_counter()
        late = {
            waiter.asked: None
            for waiters in self._flights.values()
            for waiter in waiters[1:]
            if waiter.asked.exchange.deadline_at < now and not waiter.asked.is_done
        }
        for asked in late:
            asked.is_done = True
            self._say(asked.exchange, asked.batcher.model, "collapsed", b"fwd=uri-miss; collapsed")
            asked.exchange.refuse(Expired())

    def _finish(self, asked: Asked) -> None:
        """Answer an exchange whose rows are all known."""
        if asked.is_done:
            return
        asked.is_done = True
        exchange, batcher, model = asked.exchange, asked.batcher, asked.batcher.model
        try:
            self._say(exchange, model, *self._status(asked))
            if not asked.reused and asked.direct is not None:
                exchange.endpoint.finish(exchange, asked.direct)
                return
            raw = np.frombuffer(b"".join(asked.raws), np.float64).reshape(len(asked.keys), -1)  # type: ignore[arg-type]
            predictions, nulls = model.predictions.with_warnings(raw)
            if len(asked.reused) == len(asked.keys):
                batcher.reuse(exchange, asked.coded, raw)
            else:
                rows = sorted(asked.reused)
                coded = _taken(asked.coded, rows)
                batcher.reuse(Part(exchange, coded, rows, exchange.endpoint), coded, raw[rows])
            exchange.endpoint.finish(exchange, Answer(predictions, (*asked.coded.warnings, *nulls)))
        except Exception as error:
            exchange.refuse(error)

    def _status(self, asked: Asked) -> tuple[str, bytes]:
        """The result as metrics name it, and as Cache-Status does."""
        rows, stored = len(asked.keys), b"; stored" if asked.is_stored else b""
        if asked.wish is RENEW:
            return "miss", b"fwd=request" + stored
        if asked.hits == rows:
            return "hit", _HIT % (max(0, int(self._ttl - asked.age)), int(asked.age))
        if asked.hits:
            return "partial", b'fwd=partial%b; detail="%d of %d rows"' % (stored, asked.hits, rows)
        if asked.collapsed == rows:
            return "collapsed", b"fwd=uri-miss; collapsed"
        return "miss", b"fwd=uri-miss" + stored

    def _say(self, exchange: Exchange, model: Model, result: str, status: bytes) -> None:
        """Count an exchange, and add the fields of its response."""
        self._slot(model.name, result).add()
        exchange.policy_fields += b"cache-status: estiba; %b\r\n%b" % (status, PRIVATE)

    def _slot(self, model: str, result: str) -> Slot:
        slot = self._slots.get((model, result))
        if slot is None:
            slot = self._slots[model, result] = self._metrics.slot("estiba_cache_requests_total", model, result)
        return slot


def _wish(request: Request) -> str:
    """The use of the cache that a request asks for, by its Cache-Control."""
    fields = [value for name, value in request.headers if name == b"cache-control"]
    if not fields:
        return USE
    wishes = {each.strip() for each in b",".join(fields).lower().split(b",")}
    if b"no-store" in wishes:
        return NEVER
    return RENEW if wishes & {b"no-cache", b"max-age=0"} else USE


def _taken(coded: Coded, rows: Sequence[int]) -> Coded:
    """Rows at these positions, with their warnings."""
    at = {row: position for position, row in enumerate(rows)}
    warnings = tuple(Warned(w.code, at[w.row], w.field) for w in coded.warnings if w.row in at)
    taken = coded.take(np.array(rows))
    return Coded(taken.matrix, taken.texts, warnings)
