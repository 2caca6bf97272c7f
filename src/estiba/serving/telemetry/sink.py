"""A bounded queue between the event loop and a thread that writes or sends what is offered."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

from estiba.serving.telemetry.metrics import Slot

Item = TypeVar("Item")

CLOSE_SECONDS = 1.0
"""Time that `close` waits for the last items."""


class Sink(Generic[Item]):
    """Passes items to `drain` in a thread. Items that do not fit are dropped and counted.

    `offer` never blocks. The thread sleeps while there is nothing to do.
    """

    def __init__(
        self,
        name: str,
        drain: Callable[[deque[Item], threading.Event], None],
        *,
        max_items: int,
        delay: float,
        dropped: Slot,
        prepare: Callable[[], None] = lambda: None,
    ) -> None:
        """Start nothing yet: the thread starts with the first item.

        Args:
            drain: takes items from the left of the queue, as many as it can now; the event is set once the sink closes.
            delay: seconds to wait for further items before `drain` is called.
            prepare: called first in the thread, such as for a slow import.
            dropped: counts items that did not fit. Only changed by `offer`, so on its thread.
        """
        self._name = name
        self._prepare = prepare
        self._drain = drain
        self._max_items = max_items
        self._delay = delay
        self._dropped = dropped
        self._items: deque[Item] = deque()
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._is_pending = False
        self._thread: threading.Thread | None = None

    def offer(self, item: Item) -> None:
        """Queue an item, or drop it if the queue is full."""
        if len(self._items) >= self._max_items:
            self._dropped.add()
            return
        self._items.append(item)
        if not self._is_pending:
            self._is_pending = True
            self.start()
            self._wake.set()

    def start(self) -> None:
        """Start the thread, if it does not run yet."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            self._thread.start()

    def close(self) -> bool:
        """Drain what is left; True if that took no longer than CLOSE_SECONDS."""
        self._closing.set()
        self._wake.set()
        if self._thread is None:
            return True
        self._thread.join(CLOSE_SECONDS)
        return not self._thread.is_alive()

    def _run(self) -> None:
        self._prepare()
        while not self._closing.is_set():
            self._wake.wait()
            self._wake.clear()
            self._closing.wait(self._delay)
            self._is_pending = False  # before the queue is read: a later item wakes the thread again
            self._drain(self._items, self._closing)
            if self._items and not self._is_pending:  # there was no room for all of them
                self._is_pending = True
                self._wake.set()
        self._drain(self._items, self._closing)
