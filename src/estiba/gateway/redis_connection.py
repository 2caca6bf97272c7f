"""A connection to Redis or Valkey on the event loop: commands are written at once; answers arrive in their order.

A call never blocks and never waits longer than a timeout. When an answer is late, wrong or lost, all calls that wait
are told so, and none is made until there is another connection.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, cast

from estiba.core.log import Log
from estiba.gateway.options import StoreAddress

RETRY_SECONDS = 0.5
"""Time between two attempts to connect."""

CONNECT_SECONDS = 1.0
"""Time for one attempt, in which no request waits."""

MAX_WAITING = 10_000
"""Calls that wait for answers; more are told at once that there is none."""

Reply = Callable[[Any], None]
"""Called once with the answer; with None if there is none."""


class RedisConnection:
    """A connection that is opened again whenever it is lost. Lives on one event loop.

    Attributes:
        failing: why there is none; empty while there is one, or while the first is being opened.
    """

    def __init__(
        self,
        address: StoreAddress,
        timeout: float,
        prepare: Sequence[Sequence[str]],
        log: Log,
        *,
        name: str = "the store of the limits",
        is_binary: bool = False,
    ) -> None:
        """Connect to nothing yet.

        Args:
            timeout: seconds until an answer is late.
            prepare: commands to send first on each connection.
            name: of the store, in the log.
            is_binary: answers are bytes, and a command that is refused ends no connection.
        """
        self._name = name
        self._is_binary = is_binary
        self._refused = ""
        self._address = address
        self._timeout = timeout
        self._log = log
        login = [("AUTH", *address.login)] if address.login else []
        self._prepare = [*login, ("SELECT", str(address.database)), *prepare]
        self._link: _Link | None = None
        self._early: deque[tuple[tuple[str | int | bytes, ...], Reply]] = deque()
        self._task: asyncio.Task[None] | None = None
        self._opened: Callable[[], None] = lambda: None
        self.failing = ""

    def start(self, opened: Callable[[], None]) -> None:
        """Connect, from the running event loop.

        Args:
            opened: called whenever a connection is ready.
        """
        self._opened = opened
        loop = asyncio.get_running_loop()
        self._task = loop.create_task(self._keep_open())
        loop.call_later(self._timeout, self._give_up_early)

    def close(self) -> None:
        """Connect no more."""
        if self._task is not None:
            self._task.cancel()
        if self._link is not None:
            self._link.fail("closed")

    def call(self, reply: Reply, *command: str | int | bytes) -> None:
        """Send a command."""
        if self._link is not None:
            self._link.call(reply, *command)
        elif not self.failing and len(self._early) < MAX_WAITING:
            self._early.append((command, reply))
        else:
            reply(None)

    def _give_up_early(self) -> None:
        if self._link is None and not self.failing:
            self._fail("it could not be reached in time")
        while self._early:
            self._early.popleft()[1](None)

    async def _keep_open(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            lost: asyncio.Future[str] = loop.create_future()
            link = _Link(self._timeout, lost, is_binary=self._is_binary)
            try:
                async with asyncio.timeout(CONNECT_SECONDS):
                    where = self._address
                    await loop.create_connection(lambda: link, where.host, where.port, ssl=where.encrypted or None)  # noqa: B023
                    await link.prepare(self._prepare)
            except (OSError, TimeoutError) as error:
                link.fail("")
                self._fail(str(error) or "it did not answer in time")
            else:
                self._use(link)
                self._fail(await lost)
                self._link = None
            await asyncio.sleep(RETRY_SECONDS)

    def _use(self, link: _Link) -> None:
        if self.failing:
            self._log.info(f"{self._name} can be reached again")
        self._link, self.failing = link, ""
        if self._is_binary:
            link.refused = self._note_refusal
        self._opened()
        while self._early:
            command, reply = self._early.popleft()
            link.call(reply, *command)

    def _fail(self, reason: str) -> None:
        self._link = None
        if not self.failing:
            self._log.warning(f"{self._name} cannot be reached", reason=reason)
        self.failing = reason

    def _note_refusal(self, reason: str) -> None:
        if reason != self._refused:
            self._refused = reason
            self._log.warning(f"{self._name} refuses commands", reason=reason)


class _Link(asyncio.Protocol):
    """One connection. It fails once, as a whole.

    Attributes:
        refused: called with the reason when a command is refused; None where that ends the connection.
    """

    def __init__(self, timeout: float, lost: asyncio.Future[str], *, is_binary: bool) -> None:
        self._is_binary = is_binary
        self.refused: Callable[[str], None] | None = None
        self._timeout = timeout
        self._lost = lost
        self._transport: asyncio.Transport | None = None
        self._waiting: deque[tuple[Reply, float]] = deque()
        self._buffer = b""
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    async def prepare(self, commands: Sequence[Sequence[str]]) -> None:
        """Send the first commands; raises OSError for an error."""
        for command in commands:
            done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
            self.call(lambda answer, done=done: done.done() or done.set_result(answer), *command)  # type: ignore[misc]
            if await done is None:
                raise OSError(self._lost.result() if self._lost.done() else "it closed the connection")

    def call(self, reply: Reply, *command: str | int | bytes) -> None:
        transport = self._transport
        if transport is None or self._lost.done() or len(self._waiting) >= MAX_WAITING:
            reply(None)
            return
        parts = [b"*%d\r\n" % len(command)]
        for each in command:
            text = each if isinstance(each, bytes) else str(each).encode()
            parts.append(b"$%d\r\n%b\r\n" % (len(text), text))
        self._waiting.append((reply, time.monotonic() + self._timeout))
        transport.write(b"".join(parts))
        if self._timer is None:
            self._arm(self._timeout)

    def _arm(self, seconds: float) -> None:
        due = time.monotonic() + seconds
        self._timer = asyncio.get_running_loop().call_later(seconds, self._check, due)

    def _check(self, due: float) -> None:
        """End the connection if an answer is late; not if this process itself was."""
        self._timer = None
        if not self._waiting or self._lost.done():
            return
        now = time.monotonic()
        if now > due + self._timeout / 2:
            self._arm(self._timeout)
        elif now >= self._waiting[0][1]:
            self.fail("it did not answer in time")
        else:
            self._arm(self._waiting[0][1] - now)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        at = 0
        try:
            while at < len(self._buffer) and self._waiting:
                answer, at = _parsed(self._buffer, at)
                if not isinstance(answer, _Error):
                    self._waiting.popleft()[0](answer if self._is_binary else _decoded(answer))
                elif self.refused is None:
                    self.fail(answer.text)
                    return
                else:
                    self.refused(answer.text)
                    self._waiting.popleft()[0](None)
        except _Incomplete:
            pass
        except Exception as error:  # each later call would get the answer of the one before it
            self.fail(f"{type(error).__name__}: {error}")
            raise
        self._buffer = self._buffer[at:]

    def connection_lost(self, exc: Exception | None) -> None:
        self.fail(str(exc or "it closed the connection"))

    def fail(self, reason: str) -> None:
        """End the connection, and tell all calls that wait."""
        if not self._lost.done():
            self._lost.set_result(reason)
        if self._transport is not None:
            self._transport.abort()
        while self._waiting:
            self._waiting.popleft()[0](None)


class _Incomplete(Exception):
    """The rest of an answer has not arrived."""


class _Error(NamedTuple):
    text: str


def _decoded(answer: Any) -> Any:
    """The answer with text in place of bytes."""
    if isinstance(answer, list):
        return [_decoded(each) for each in answer]
    return answer.decode() if isinstance(answer, bytes) else answer


def _parsed(data: bytes, at: int) -> tuple[Any, int]:
    """The answer at a position, and the position behind it (the protocol RESP2)."""
    end = data.find(b"\r\n", at)
    if end < 0:
        raise _Incomplete
    kind, text, after = data[at : at + 1], data[at + 1 : end], end + 2
    if kind == b":":
        return int(text), after
    if kind == b"+":
        return text.decode(), after
    if kind == b"-":
        return _Error(text.decode(errors="replace")), after
    length = int(text)
    if kind == b"$":
        if length < 0:
            return b"", after
        if len(data) < after + length + 2:
            raise _Incomplete
        return data[after : after + length], after + length + 2
    answers = []
    for _ in range(length):
        answer, after = _parsed(data, after)
        answers.append(answer)
    return answers, after
