"""The bounds of a worker by the memory that it has."""

from __future__ import annotations

import pytest

from estiba.core import cpus, memory
from estiba.serving.memory_share import LargeRequests, memory_share
from estiba.serving.options import ServerOptions

pytestmark = pytest.mark.slow

MIB = 2**20


@pytest.mark.parametrize(
    ("free", "workers", "threads", "buffered"),
    [
        (None, 1, 8, 128),
        (420, 1, 1, 70),
        (1000, 1, 6, 128),
        (64_000, 1, 8, 128),
        (64_000, 64, 6, 128),
        (60, 1, 1, 10),
    ],
)
def test_little_memory_means_fewer_threads_and_a_smaller_sum(
    monkeypatch: pytest.MonkeyPatch, free: int | None, workers: int, threads: int, buffered: int
) -> None:
    monkeypatch.setattr(cpus, "available", lambda: 8)
    monkeypatch.setattr(memory, "available", lambda: None if free is None else free * MIB)
    share = memory_share(ServerOptions(workers=workers))
    assert (share.threads, share.buffered // MIB) == (threads, buffered)


def test_a_request_that_does_not_fit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    large = LargeRequests()
    assert large.fits(1)
    large.give_back()
    monkeypatch.setattr(memory, "available", lambda: 50 * MIB)
    assert large.fits(10 * MIB)
    assert not large.fits(11 * MIB)
