"""Follow the certificate of a server: read its files again when they change, and hand a new pair to the workers."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path

from estiba.core.errors import EstibaError
from estiba.core.log import Log
from estiba.serving.http import tls
from estiba.serving.telemetry.metrics import Metrics
from estiba.serving.workers.messages import UseCertificate
from estiba.serving.workers.worker_process import Process

POLL_SECONDS = 1.0
"""Interval of looks at the files."""

Stamp = tuple[tuple[int, int, int], ...]


class CertificateWatch:
    """A certificate and its private key. A new pair that cannot be used leaves the old one in force.

    Attributes:
        pem: the pair in force.
        error: why a newer pair is not used; empty if there is none.
    """

    def __init__(self, certificate: str, key: str, log: Log, metrics: Metrics) -> None:
        """Read the pair; raises EstibaError where it cannot be used."""
        self._files = Path(certificate), Path(key)
        self._log = log
        self._expiry = metrics.slot("estiba_certificate_expiry_seconds")
        self._stamp = self._look()
        self.pem = b""
        self.error = ""
        self._looked_at = time.monotonic()
        self._use(tls.read_pair(*self._files))
        if tls.others_may_read(self._files[1]):
            log.warning("every user of this machine may read the private key", file=key)

    def poll(self, workers: Iterable[Process]) -> None:
        """Look for a new pair now and then, and hand it to the workers. To be called often."""
        now = time.monotonic()
        if now < self._looked_at + POLL_SECONDS:
            return
        self._looked_at = now
        stamp = self._look()
        if stamp == self._stamp and not self.error:
            return
        try:
            pem = tls.read_pair(*self._files)
        except EstibaError as error:
            self._refuse(error, settled=stamp == self._stamp)
        else:
            if pem != self.pem:
                self._use(pem)
                for worker in workers:
                    worker.tell(UseCertificate(pem))
                self._log.info("certificate replaced", certificate=str(self._files[0]))
            self.error = ""
        self._stamp = stamp

    def _refuse(self, error: EstibaError, *, settled: bool) -> None:
        """Keep the old pair; log why, unless the files changed just now and may be written still."""
        if settled and error.message != self.error:
            self._log.error("the new certificate cannot be used; the old one stays in force", reason=error.message)
        self.error = error.message if settled else self.error or "A new certificate is being read."

    def _use(self, pem: bytes) -> None:
        self.pem = pem
        self._expiry.set(tls.expiry(pem))

    def _look(self) -> Stamp:
        """The identity of the files behind all links; empty where one is missing."""
        try:
            found = [file.stat() for file in self._files]
        except OSError:
            return ()
        return tuple((file.st_ino, file.st_mtime_ns, file.st_size) for file in found)
