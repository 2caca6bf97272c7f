"""The health of a server: what the supervisor publishes about all workers, and what one worker knows about itself."""

from __future__ import annotations

from pathlib import Path

import msgspec

STATUS_FILE = "status.json"
"""Name of the file in the shared folder in which the supervisor publishes a Status as JSON."""


class Status(msgspec.Struct, frozen=True):
    """The state of the whole server.

    Args:
        workers: how many are ready, of `wanted`.
        restarts: how often a worker was replaced because it died or hung, since the start.
        failing: too many restarts within a minute: the server should be replaced as a whole.
        failed: by model, why a newer version is not served.
        policy_error: why policies are not up to date; empty if they are.
        certificate_error: why a newer certificate is not used; empty if there is none.
    """

    workers: int
    wanted: int
    threads: int
    restarts: int = 0
    draining: bool = False
    failing: bool = False
    failed: dict[str, str] = {}
    policy_error: str = ""
    certificate_error: str = ""


class Health:
    """Readiness of one worker, as health checks report it.

    Attributes:
        ready: every model is loaded.
        draining: the worker ends.
    """

    def __init__(self, status_file: Path | None = None) -> None:
        """Start as not ready. Without a status file only this worker's own state counts."""
        self._status_file = status_file
        self.ready = False
        self.draining = False

    @property
    def status(self) -> Status | None:
        """The supervisor's Status, read anew; None if there is none."""
        if self._status_file is None:
            return None
        try:
            return msgspec.json.decode(self._status_file.read_bytes(), type=Status)
        except (OSError, msgspec.DecodeError):
            return None

    @property
    def state(self) -> str:
        """`ready`, `starting` or `draining`."""
        status = self.status
        if self.draining or (status is not None and status.draining):
            return "draining"
        return "ready" if self.ready else "starting"
