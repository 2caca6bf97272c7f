"""Read the log of predictions."""

from __future__ import annotations

import operator
import re
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

import msgspec

from estiba.core.errors import BadRequest
from estiba.core.suggest import did_you_mean
from estiba.state.database import Database, Row

PAGE_ROWS = 1_000
"""Rows of one transaction."""

MAX_EXAMINED_ROWS = 1_000_000
"""Rows that a query reads at most."""

LOOK_BACK_SECONDS = 5.0
"""Time from an answer to its row: workers write at different moments, so a row may come after a later one."""

_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    ">=": operator.ge, "<=": operator.le, "!=": operator.ne, "=": operator.eq, ">": operator.gt, "<": operator.lt,
}  # fmt: skip
_CONDITION = re.compile(r"\s*(?P<name>[^<>=!]+?)\s*(?P<operator>>=|<=|!=|=|>|<)\s*(?P<value>.*?)\s*")


class Logged(msgspec.Struct, frozen=True):
    """A prediction of the log.

    Args:
        at: ISO 8601, in UTC. id, row: the request, and the row within it.
        key: the name of the caller's API key; empty without one.
        ms: time of its batch in the model. cached: the answer was known before, and the model did not run.
        variant: the target of the model's route; empty without one, `shadow` for a copy that nobody got an answer to.
    """

    at: str
    id: str
    row: int
    model: str
    version: str
    key: str
    trace: str
    ms: float
    input: dict[str, Any]
    output: dict[str, Any]
    variant: str = ""
    cached: bool = False


class Condition(NamedTuple):
    """A comparison of a value of the input, of the output, or of `version`, `variant`, `key` or `cached`."""

    name: str
    operator: str
    value: str

    def holds(self, logged: Logged) -> bool:
        """Return True if the prediction has a value of that name for which the comparison holds."""
        value = self._value_of(logged)
        if value is None:
            return self.operator == "=" and self.value == "null"
        if isinstance(value, bool):
            value = str(value).lower()
        if isinstance(value, int | float):
            try:
                return _COMPARE[self.operator](value, float(self.value))
            except ValueError:
                return self.operator == "!="
        return _COMPARE[self.operator](str(value), self.value)

    def _value_of(self, logged: Logged) -> Any:
        for values in (logged.input, logged.output):
            if self.name in values:
                return values[self.name]
        known = {"version": logged.version, "variant": logged.variant, "key": logged.key, "cached": logged.cached}
        return known.get(self.name)


class Query(NamedTuple):
    """A question to the log.

    Args:
        model: its name; empty for all. since, until: in seconds since 1970.
        conditions: all of them hold. limit: the newest rows, at most so many; 0 for all.
    """

    model: str = ""
    since: float = 0.0
    until: float = 1e11
    conditions: Sequence[Condition] = ()
    limit: int = 0


def condition(text: str) -> Condition:
    """Read a condition such as `age>=40` or `country=ES`; raises BadRequest."""
    found = _CONDITION.fullmatch(text)
    if found is None:
        raise BadRequest(
            f"{text!r} is no condition.", hint="Write NAME OPERATOR VALUE, such as age>=40; operators: = != < <= > >=."
        )
    return Condition(found["name"], found["operator"], found["value"])


def find(database: Database, query: Query) -> list[Logged]:
    """The newest predictions that a query asks for, oldest first.

    Raises:
        BadRequest: the model has no value that a condition names, or there are too many rows.
    """
    kept: list[Logged] = []
    for examined, logged in enumerate(_newest(database, query), start=1):
        if examined > MAX_EXAMINED_ROWS:
            hint = "Ask for less: --since, --until, or a model."
            raise BadRequest(f"The query reads more than {MAX_EXAMINED_ROWS:,} rows.", hint=hint)
        if examined == 1:
            _check_names(logged, query)
        if all(each.holds(logged) for each in query.conditions):
            kept.append(logged)
            if len(kept) == query.limit:
                break
    return kept[::-1]


class Follower:
    """Finds predictions that have come since the last look, each once, also where an older one is written later."""

    def __init__(self, database: Database, query: Query, since: float) -> None:
        """Read nothing yet.

        Args:
            since: in seconds since 1970; older predictions are left out.
        """
        self._database = database
        self._query = query._replace(until=Query().until, limit=0)
        self._since = since
        self._seen: set[tuple[str, str, int]] = set()

    def newer(self) -> list[Logged]:
        """Predictions that no look has found yet, oldest first."""
        since = max(self._since, time.time() - LOOK_BACK_SECONDS)
        found = find(self._database, self._query._replace(since=since))
        keys = [(logged.at, logged.id, logged.row) for logged in found]
        fresh = [logged for key, logged in zip(keys, found, strict=True) if key not in self._seen]
        self._seen = set(keys)
        return fresh


def _newest(database: Database, query: Query) -> Iterator[Logged]:
    """Predictions from the newest to the oldest, page by page, so that no transaction is long."""
    until, skip = int(query.until * 1e6), 0
    while True:
        where = "at >= ? AND at <= ?" + (" AND prediction.model = ?" if query.model else "")
        values = [int(query.since * 1e6), until, *([query.model] if query.model else [])]
        statement = (
            "SELECT at, request, row, prediction.model, prediction.version, caller, trace, ms, input, output, fields,"
            " variant, cached"
            " FROM prediction JOIN deployment"
            " ON deployment.digest = prediction.digest AND deployment.version = prediction.version"
            f" WHERE {where} ORDER BY at DESC, request DESC, row DESC LIMIT ? OFFSET ?"
        )
        with database.transaction(write=False) as reading:
            rows = reading.execute(statement, [*values, PAGE_ROWS, skip])
        yield from map(_logged, rows)
        if len(rows) < PAGE_ROWS:
            return
        last = int(rows[-1][0])
        same = sum(int(row[0]) == last for row in rows)  # rows of one moment may go over the end of a page
        skip = skip + len(rows) if last == until else same
        until = last


def _check_names(logged: Logged, query: Query) -> None:
    known = [*logged.input, *logged.output, "version", "key", "variant", "cached"]
    for each in query.conditions:
        if query.model and each.name not in known:
            hint = f"Names: {', '.join(known)}."
            raise BadRequest(f"{query.model} has no value {each.name!r}{did_you_mean(each.name, known)}", hint=hint)


def _logged(row: Row) -> Logged:
    at, request, number, model, version, caller, trace, ms, packed, output, fields, variant, cached = row
    names = msgspec.json.decode(fields, type=list[str])
    return Logged(
        at=datetime.fromtimestamp(at / 1e6, UTC).isoformat(timespec="microseconds"),
        id=request,
        row=number,
        model=model,
        version=version,
        key=caller,
        trace=trace,
        ms=ms,
        input=dict(zip(names, msgspec.msgpack.decode(packed), strict=True)),
        output=msgspec.msgpack.decode(output),
        variant=variant,
        cached=bool(cached),
    )
