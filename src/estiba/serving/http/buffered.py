"""The bytes that one worker holds for all clients together: of bodies that arrive, and of responses not yet taken."""

from __future__ import annotations


class Buffered:
    """A sum with a limit. Lives on one event loop.

    Attributes:
        limit: bytes beyond which further large bodies and responses are refused.
        held: bytes held now: of bodies that arrive or wait for a thread, and of responses that clients do not read.
    """

    __slots__ = ("held", "limit")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.held = 0

    def fits(self, size: int) -> bool:
        """Return True if so many bytes more stay within the limit. A single client is never refused for its size."""
        return self.held == 0 or self.held + size <= self.limit
