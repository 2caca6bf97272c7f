"""Limit the requests of each key and of each model: their rate, how many at a time, and rows a day.

The fields of an answer are those of draft-ietf-httpapi-ratelimit-headers (September 2025): RateLimit-Policy says what
is allowed, RateLimit what is left of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

from estiba.core.errors import EstibaError, Unavailable
from estiba.gateway.jwt import CALLER_PREFIX
from estiba.gateway.limit_memory import DAY_SECONDS, Left, LimitMemory, Meter, Refusal
from estiba.gateway.limits_redis import RedisCounters
from estiba.gateway.options import Limit, has_limits
from estiba.gateway.policy import Policy
from estiba.serving.exchange import Exchange
from estiba.serving.pipeline import Done, TooManyRequests
from estiba.serving.telemetry.metrics import Metrics

SECOND = 10**9
MAX_NAMES = 200
"""Names of keys in metrics; further ones are counted together."""

MAX_PLANS = 100_000
"""Pairs of a key and a model whose limits are kept compiled."""

OTHERS = "others"

MAX_CALLERS = 2000
"""Subjects of tokens with limits of their own in each worker; further ones share those of one."""

OTHER_TOKENS = CALLER_PREFIX


class Plan(NamedTuple):
    """The limits of the requests of one key for one model.

    Args:
        counted: the meters that limit rows.
        held: positions of the records of meters that limit requests at a time.
        policy_field: the header line RateLimit-Policy.
        fields: both header lines; `%d` stands for what is left, and for seconds until it is more.
        release: ends a request that was admitted; None where nothing is held.
        release_stored: the same where the store has counted it.
    """

    meters: tuple[Meter, ...]
    counted: tuple[Meter, ...] = ()
    held: tuple[int, ...] = ()
    policy_field: bytes = b""
    fields: bytes = b""
    release: Callable[[], None] | None = None
    release_stored: Callable[[], None] | None = None


NO_LIMITS = Plan(())


def are_needed(policy: Policy) -> bool:
    """Return True if the policy limits anything."""
    return has_limits(policy.limits) or any(not key.limits.is_empty for key in policy.keys or ())


class Limits:
    """The limits of one worker; the counters are shared with others."""

    def __init__(
        self, policy: Policy, memory: LimitMemory, metrics: Metrics, store: RedisCounters | None = None
    ) -> None:
        """Compile the limits of all keys and models.

        Args:
            memory: the counters of this server.
            store: those of several servers; without it those of this one hold.

        Raises:
            EstibaError: there are too many of them.
        """
        self._memory = memory
        self._store = store
        self._without_store = policy.limits.without_store
        self._metrics = metrics
        self._headers = policy.limits.headers
        default = policy.limits.for_keys
        names = [("", Limit())] if policy.keys is None else [(key.name, key.limits) for key in policy.keys]
        self._of_keys = {name: own.over(default) for name, own in names}
        self._of_models = policy.limits.models
        subjects = [_subject("key", name) for name, limit in self._of_keys.items() if not limit.is_empty]
        subjects += [_subject("model", name) for name, limit in self._of_models.items() if not limit.is_empty]
        self._subjects = subjects
        self._of_tokens = None if policy.tokens is None or default.is_empty else default
        if self._of_tokens is not None:
            subjects.append(_subject("key", OTHER_TOKENS))
        self._at = memory.at_of(subjects)
        self._callers: set[str] = set()
        self._plans: dict[tuple[str, str], Plan] = {}
        self._names: set[str] = set()

    def gate(self, exchange: Exchange, done: Done) -> None:
        """Admit a request, or refuse it with TooManyRequests."""
        plan = self._plan(exchange)
        if not plan.meters:
            done(exchange, None)
            return
        if self._store is not None:
            self._store.admit(plan.meters, partial(self._judge_stored, exchange, plan, done))
            return
        verdict = self._memory.admit(plan.meters)
        if isinstance(verdict, Refusal):
            done(exchange, self._refused(exchange, plan, verdict))
            return
        exchange.release = plan.release
        if self._headers:
            exchange.policy_fields = plan.fields % _numbers(plan, verdict)
        done(exchange, None)

    def _judge_stored(self, exchange: Exchange, plan: Plan, done: Done, verdict: Left | Refusal | None) -> None:
        """Take the decision of the store, or decide without it."""
        release = plan.release_stored
        if verdict is None:
            if self._decide_without_store(exchange, done):
                return
            verdict, release = self._memory.admit([meter.shared(self._servers) for meter in plan.meters]), plan.release
        if isinstance(verdict, Refusal):
            done(exchange, self._refused(exchange, plan, verdict))
            return
        exchange.release = release
        if self._headers:
            exchange.policy_fields = plan.fields % _numbers(plan, verdict)
        done(exchange, None)

    def _decide_without_store(self, exchange: Exchange, done: Done) -> bool:
        """Admit or refuse a request that the store cannot judge; False where this server's counters decide."""
        self._metrics.slot("estiba_limits_without_store_total", self._without_store).add()
        if self._without_store == "local":
            return False
        closed = Unavailable("The limits of this request cannot be checked now.", hint="Retry after a second.")
        done(exchange, closed if self._without_store == "closed" else None)
        return True

    @property
    def _servers(self) -> int:
        return 1 if self._store is None else self._store.servers

    def charge(self, exchange: Exchange, done: Done) -> None:
        """Count the rows of a request, or refuse it with TooManyRequests."""
        plan = self._plan(exchange)
        if not plan.counted:
            done(exchange, None)
        elif self._store is not None:
            self._store.charge(plan.counted, exchange.count, partial(self._charge_stored, exchange, plan, done))
        else:
            self._finish_charge(exchange, plan, done, self._memory.charge(plan.counted, exchange.count))

    def _charge_stored(self, exchange: Exchange, plan: Plan, done: Done, verdict: Refusal | bool | None) -> None:
        if verdict is None:
            if self._decide_without_store(exchange, done):
                return
            shares = [meter.shared(self._servers) for meter in plan.counted]
            verdict = self._memory.charge(shares, exchange.count)
        self._finish_charge(exchange, plan, done, verdict if isinstance(verdict, Refusal) else None)

    def _finish_charge(self, exchange: Exchange, plan: Plan, done: Done, refusal: Refusal | None) -> None:
        done(exchange, None if refusal is None else self._refused(exchange, plan, refusal))

    @property
    def counts_rows(self) -> bool:
        """True if any limit is one of rows."""
        limits = (*self._of_keys.values(), *self._of_models.values(), *([self._of_tokens] if self._of_tokens else []))
        return any(limit.rows_per_day for limit in limits)

    def _plan(self, exchange: Exchange) -> Plan:
        pair = (exchange.caller, exchange.route)
        plan = self._plans.get(pair)
        if plan is None:
            if len(self._plans) >= MAX_PLANS:
                self._plans.clear()
            plan = self._plans[pair] = self._compiled(*pair)
        return plan

    def _meet(self, caller: str) -> str:
        """The subject of a token's limits. Where there are too many, further ones have the limits of one together."""
        if caller not in self._callers:
            subject = _subject("key", caller)
            try:
                if len(self._callers) >= MAX_CALLERS:
                    return OTHER_TOKENS
                self._at = self._memory.at_of([*self._subjects, subject])
            except EstibaError:
                return OTHER_TOKENS
            self._subjects.append(subject)
            self._callers.add(caller)
        return caller

    def _compiled(self, caller: str, model: str) -> Plan:
        whom = f"the key {caller}" if caller else "all callers"
        limits = {"key": (caller, self._of_keys.get(caller), whom)}
        if self._of_tokens is not None and caller.startswith(CALLER_PREFIX):
            limits["key"] = (self._meet(caller), self._of_tokens, f"the token of {caller}")
        limits["model"] = (model, self._of_models.get(model), f"the model {model}")
        meters = tuple(
            _meter(name, subject, limit, whom, self._at[_subject(name, subject)])
            for name, (subject, limit, whom) in limits.items()
            if limit is not None and not limit.is_empty
        )
        if not meters:
            return NO_LIMITS
        held = tuple(meter.at for meter in meters if meter.concurrent)
        release = partial(self._memory.hold, held, -1) if held else None
        stored = None
        if held and self._store is not None:
            stored = partial(self._store.release, [meter.subject for meter in meters if meter.concurrent])
        policies = ", ".join(item for meter in meters for item in _policies(meter))
        field = f"ratelimit-policy: {policies}\r\n".encode()
        fields = field + f"ratelimit: {', '.join(item for meter in meters for item in _states(meter))}\r\n".encode()
        return Plan(meters, tuple(meter for meter in meters if meter.rows), held, field, fields, release, stored)

    def _refused(self, exchange: Exchange, plan: Plan, refusal: Refusal) -> TooManyRequests:
        meter, kind, wait, _ = refusal
        policy = meter.name if kind == "rate" else f"{meter.name}-{kind}"
        self._count(exchange, policy)
        seconds = -(-wait // SECOND)
        if self._headers:
            state = f'"{policy}";r={refusal.left}' + ("" if kind == "concurrent" else f";t={seconds}")
            exchange.policy_fields = b"%bratelimit: %b\r\n" % (plan.policy_field, state.encode())
        return TooManyRequests(
            _message(refusal, exchange.count), hint=_hint(kind, seconds), retry_after=seconds, policies=(policy,)
        )

    def _count(self, exchange: Exchange, policy: str) -> None:
        name = exchange.caller
        if name not in self._names:
            if len(self._names) < MAX_NAMES:
                self._names.add(name)
            else:
                name = OTHERS
        self._metrics.slot("estiba_limited_total", exchange.route, name, policy).add()


def _meter(name: str, subject: str, limit: Limit, whom: str, at: int) -> Meter:
    interval = tolerance = 0
    if limit.rate is not None:
        interval = max(1, round(SECOND / limit.rate))
        burst = limit.burst if limit.burst is not None else max(1, int(limit.rate))
        tolerance = burst * interval
    return Meter(
        at, interval, tolerance, limit.concurrent or 0, limit.rows_per_day or 0, name, _subject(name, subject), whom
    )


def _subject(name: str, subject: str) -> str:
    return f"{name}:{subject}"


def _policies(meter: Meter) -> Sequence[str]:
    """Items of the field RateLimit-Policy. Its window is as long as the burst lasts, in whole seconds."""
    items = []
    if meter.interval:
        window = max(1, -(-meter.tolerance // SECOND))
        items.append(f'"{meter.name}";q={max(1, int(window * SECOND / meter.interval + 1e-3))};w={window}')
    if meter.concurrent:
        items.append(f'"{meter.name}-concurrent";q={meter.concurrent};qu="concurrent-requests"')
    if meter.rows:  # rows are not among the draft's units
        items.append(f'"{meter.name}-rows";q={meter.rows};w={DAY_SECONDS};estiba-unit="rows"')
    return items


def _states(meter: Meter) -> Sequence[str]:
    """Items of the field RateLimit, with `%d` for their numbers."""
    items = [f'"{meter.name}";r=%d;t=%d'] if meter.interval else []
    items += [f'"{meter.name}-concurrent";r=%d'] if meter.concurrent else []
    return items + ([f'"{meter.name}-rows";r=%d'] if meter.rows else [])


def _numbers(plan: Plan, left: Left) -> tuple[int, ...]:
    """The numbers of the field RateLimit of a request that was admitted."""
    numbers: list[int] = []
    remainders = iter(left)
    for meter in plan.meters:
        interval = meter.interval
        if interval:
            requests, more = divmod(next(remainders), interval)
            numbers += (requests, 1 if interval <= SECOND else -((more - interval) // SECOND))
        if meter.concurrent:
            numbers.append(next(remainders))
        if meter.rows:
            numbers.append(next(remainders))
    return tuple(numbers)


def _message(refusal: Refusal, count: int) -> str:
    meter, kind, _, left = refusal
    if kind == "rate":
        return f"The rate of {meter.whom}, {SECOND / meter.interval:g} requests a second, is used up."
    if kind == "concurrent":
        return f"{meter.concurrent} requests of {meter.whom} are being answered, the most at a time."
    if count and left:
        return f"The request has {count} rows; of the {meter.rows} rows a day of {meter.whom}, {left} are left."
    return f"The {meter.rows} rows a day of {meter.whom} are used up."


def _hint(kind: str, seconds: int) -> str:
    if kind == "rows":
        return "The day ends at midnight (UTC)."
    return f"Retry after {seconds} s."
