"""The state of one request on its way from the parsed message to the response."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

from estiba.model.coding.coder import Coded, Matrix, Warned
from estiba.model.coding.record_type import Record
from estiba.model.schema.rows import Prediction
from estiba.serving.http import trace_context
from estiba.serving.http.connection import Connection
from estiba.serving.http.request import Request
from estiba.serving.http.trace_context import Trace


class Answer(NamedTuple):
    """The predictions for one exchange and their warnings.

    Args:
        began_at, ended_at: start and end of its batch in the model, on the clock of `time.perf_counter`; 0 if no batch
            ran, as for a cached answer.
        raw: the model's own answer, a row for each prediction; only where there is a cache.
    """

    predictions: Sequence[Prediction]
    warnings: Sequence[Warned] = ()
    began_at: float = 0.0
    ended_at: float = 0.0
    raw: Matrix | None = None


class Responder(Protocol):
    """The part of an endpoint that a server and policies need. `variant` is the target of a route, or empty."""

    variant: str

    def handle(self, exchange: Exchange) -> None:
        """Decode the request and answer it, now or later."""

    def reject(self, exchange: Exchange, error: BaseException) -> None:
        """Send the response to an exchange that was never passed to `handle`."""

    def finish(self, exchange: Exchange, answer: Answer) -> None:
        """Encode and send the answer."""

    def refuse(self, exchange: Exchange, error: BaseException) -> None:
        """Send the response to an exchange that failed."""


class Exchange:
    """One request and everything that is known about it until its response is sent.

    Created by the server; filled by admission (`caller`), by decoding (`records` or `coded`, `answer_options`).
    Completed by exactly one call of its endpoint's `finish`, or of `refuse`.

    Attributes:
        id: the request's id, sent back as X-Request-ID.
        route: the name under which the model was asked; empty for management requests.
        endpoint: completes the exchange; set for predictions only.
        caller: identity of the client, set by an admission policy; empty if unknown.
        deadline_at: on the clock of `time.perf_counter`; a later exchange never reaches the model.
        trace: its ids and times, if spans are recorded of it.
        records: decoded rows of the coder's type; unused where `coded` is set.
        coded: rows that are coded already.
        count: number of rows, once decoded.
        answer_options: the protocol's own options for encoding the answer.
        policy_fields: header lines of its response, each ended by CRLF, that policies add.
        release: called when it is completed, if a policy has set it.
    """

    __slots__ = (
        "answer_options",
        "caller",
        "coded",
        "connection",
        "count",
        "deadline_at",
        "endpoint",
        "id",
        "policy_fields",
        "records",
        "release",
        "request",
        "route",
        "trace",
    )

    endpoint: Responder

    def __init__(self, connection: Connection, request: Request, request_id: str) -> None:
        self.connection = connection
        self.request = request
        self.id = request_id
        self.route = self.caller = ""
        self.deadline_at = 0.0
        self.count = 0
        self.trace: Trace | None = None
        self.records: Sequence[Record] = ()
        self.coded: Coded | None = None
        self.answer_options: Any = None
        self.policy_fields = b""
        self.release: Callable[[], None] | None = None

    @property
    def trace_id(self) -> str:
        """The 32 hexadecimal digits of its trace, recorded here or only by the caller; empty if there is none."""
        return self.trace.trace_id if self.trace is not None else trace_context.trace_id(self.request)

    @property
    def variant(self) -> str:
        """The target of the model's route that answers; empty without a route."""
        endpoint = getattr(self, "endpoint", None)  # unset until the server has chosen one
        return "" if endpoint is None else endpoint.variant

    def refuse(self, error: BaseException) -> None:
        """Send the response to an exchange that failed."""
        self.endpoint.refuse(self, error)


class Part(Exchange):
    """Some rows of an exchange, coded, which are computed or observed apart from the others.

    Attributes:
        positions: of its rows within the exchange.
    """

    __slots__ = ("_variant", "positions")

    def __init__(self, whole: Exchange, coded: Coded, positions: Sequence[int], endpoint: Responder) -> None:
        """Take what is known of an exchange; `endpoint` gets the answer."""
        super().__init__(whole.connection, whole.request, whole.id)
        self.route, self.caller = whole.route, whole.caller
        self.deadline_at, self.trace = whole.deadline_at, whole.trace
        self.coded, self.count = coded, len(coded)
        self.positions = positions
        self.endpoint = endpoint
        self._variant = whole.variant

    @property
    def variant(self) -> str:
        """The variant of the whole exchange."""
        return self._variant
