"""Follow the policies of the server: read them at intervals, and tell the workers when they have changed.

Policies change without a version of a model being loaded, so they have a way of their own to the workers: a key that is
revoked must not wait for a large model. What they mean only the worker's module knows.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from estiba.core.errors import EstibaError
from estiba.core.log import Log
from estiba.serving.telemetry.metrics import Metrics
from estiba.serving.workers import messages
from estiba.serving.workers.store_query import StoreQuery
from estiba.serving.workers.worker_process import Process

READ_TIMEOUT_SECONDS = 10.0
"""Time for one read; after it the next begins."""


class PolicySource(NamedTuple):
    """The place where policies are kept.

    Args:
        read: the content of the policy file, cheap where nothing has changed; called in threads, never two at once
            unless one is beyond READ_TIMEOUT_SECONDS. Raises EstibaError.
        last: the content that was read last by a server before this one, and its age in seconds; empty without one.
        poll: seconds between reads.
        attach: called once with the folder that the processes of the server share.
    """

    read: Callable[[], bytes]
    last: Callable[[], tuple[bytes, float]] = lambda: (b"", 0.0)
    poll: float = 0.25
    attach: Callable[[Path], None] | None = None


class PolicyFollower:
    """The policies in force.

    Attributes:
        error: why they are not up to date; empty if they are.
    """

    def __init__(self, source: PolicySource, folder: Path, log: Log, metrics: Metrics) -> None:
        """Read nothing yet.

        Args:
            folder: shared with the workers.
        """
        self._source = source
        if source.attach is not None:
            source.attach(folder)
        self._file = folder / messages.POLICY_FILE
        self._log = log
        self._age = metrics.slot("estiba_policy_age_seconds")
        self._content = b""
        self._query: StoreQuery[bytes] | None = None
        self._began_at = 0.0
        self._read_at = time.monotonic()
        self.error = ""

    def start(self) -> None:
        """Read for the first time.

        Where that fails the server starts with what one before it read last. Without that, its worker's module decides
        what it does.
        """
        query = self._ask()
        query.wait()
        self._take(query)
        if self.error:
            content, age = self._source.last()
            if content:
                self._write(content)
                self._content, self._read_at = content, time.monotonic() - age

    def poll(self, workers: Iterable[Process]) -> None:
        """Continue to read, and tell the workers of a change. Never blocks; to be called often."""
        now = time.monotonic()
        if self._query is not None and self._query.done:
            query, self._query = self._query, None
            if self._take(query):
                for worker in workers:
                    worker.tell(messages.Reload())
        if self._query is None and now >= self._began_at + self._source.poll:
            self._began_at = now
            self._query = self._ask()
        self._age.set(time.monotonic() - self._read_at)

    def _ask(self) -> StoreQuery[bytes]:
        return StoreQuery(self._source.read, READ_TIMEOUT_SECONDS, "The store of the policies")

    def _take(self, query: StoreQuery[bytes]) -> bool:
        """Write what was read to the policy file; True if it is new."""
        try:
            content = query.result()
            if content != self._content:
                self._write(content)
        except (EstibaError, OSError) as error:
            reason = error.message if isinstance(error, EstibaError) else str(error.strerror or error)
            if reason != self.error:
                self._log.warning("policies cannot be read; those before stay in force", reason=reason)
            self.error = reason
            return False
        if self.error:
            self._log.info("policies can be read again")
        self.error, self._read_at = "", time.monotonic()
        changed, self._content = content != self._content, content
        return changed

    def _write(self, content: bytes) -> None:
        """Replace the file whole. It holds hashes of keys, so only this user may read it."""
        new = self._file.with_suffix(".new")
        new.touch(0o600)
        new.write_bytes(content)
        new.replace(self._file)
