"""The native protocol: `POST /models/{model}/predict` with records in JSON or CSV, predictions in JSON out."""

from __future__ import annotations

import asyncio
import csv
import io
import time
from collections.abc import Sequence
from concurrent.futures import Executor
from types import NoneType
from typing import Any

import msgspec

from estiba.core.errors import BadInput, BadRequest, EstibaError, Problem, Unavailable
from estiba.core.ids import Ids
from estiba.core.log import Log
from estiba.model.coding import MAX_PROBLEMS, Coded, Warned, code_hook, escape, pointer
from estiba.model.load import Model
from estiba.model.rows import Prediction
from estiba.serving.batcher import Batcher, Call, ModelFailed
from estiba.serving.http import Connection, Request
from estiba.serving.metrics import Metrics, Slot
from estiba.serving.problems import CONTENT_TYPE, problem

MAX_ROWS = 100_000
"""Records in one request."""

INLINE_BYTES = 64 * 1024
"""Bodies up to this size are decoded on the event loop; larger ones in a thread, so that small ones do not wait."""

MAX_WAITING_BYTES = 256 * 1024 * 1024
"""Larger bodies that may wait for a thread; beyond this a call is refused at once."""

_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What decoding raises: for what is no JSON or does not fit, for text that is not UTF-8, for deep nesting."""

_MORE_HEADERS = {405: b"allow: POST\r\n", 503: b"retry-after: 1\r\n"}


class Endpoint:
    """One version of one model, answering the native protocol."""

    def __init__(self, model: Model, metrics: Metrics, ids: Ids, log: Log, executor: Executor) -> None:
        self.model = model
        self.batcher = Batcher(model, metrics)
        self._metrics = metrics
        self._ids = ids
        self._log = log
        self._executor = executor
        self._waiting = 0
        self._record = msgspec.json.Decoder(model.coder.record, dec_hook=code_hook)
        record: Any = model.coder.record
        envelope: Any = msgspec.defstruct(
            "Envelope",
            [("records", list[record]), ("params", dict[str, Any] | None, None)],
            forbid_unknown_fields=True,
            gc=False,
        )
        self._envelope = msgspec.json.Decoder(envelope, dec_hook=code_hook)
        self._encode = msgspec.json.Encoder().encode
        self._codes: dict[int, Slot] = {}
        self._ok = self._code(200)
        self._seconds = metrics.histogram("estiba_request_duration_seconds", model.name, model.version, "native")
        self._in_flight = metrics.slot("estiba_requests_in_flight", model.name)
        self._version = b"x-model-version: %b\r\nx-request-id: " % model.version.encode()

    def handle(self, connection: Connection, request: Request) -> None:
        """Answers a prediction request."""
        request.id = request_id(request) or self._ids.next()
        self._in_flight.add()
        kind = request.content_type.partition(b";")[0].strip().lower()
        if request.method != b"POST":
            self._fail(connection, request, 405, "Use POST with records as JSON or CSV.")
        elif kind not in (b"application/json", b"", b"text/csv"):
            said = kind.decode("latin-1")
            detail = f"This path takes application/json or text/csv, not {said!r}."
            self._fail(connection, request, 415, detail)
        elif kind == b"text/csv" or len(request.body) > INLINE_BYTES:
            self._large(connection, request, kind == b"text/csv")
        else:
            try:
                records = self._decode(request.body)
            except _UNREADABLE:
                self._carefully(connection, request)
            else:
                self._submit(connection, request, Call(records, None, self._answerer(connection, request)))

    def _decode(self, body: bytes | bytearray) -> Sequence[Any]:
        """The fast way; raises one of _UNREADABLE for whatever only the careful way can judge."""
        if b'"records"' in body[:64]:
            records: Sequence[Any] = self._envelope.decode(body).records
            if not records:
                raise msgspec.DecodeError("no records")
            return records
        return [self._record.decode(body)]

    def _carefully(self, connection: Connection, request: Request) -> None:
        try:
            coded = self.check_json(request.body)
        except EstibaError as error:
            self._fail_with(connection, request, error)
        else:
            self._submit(connection, request, Call((), coded, self._answerer(connection, request)))

    def _submit(self, connection: Connection, request: Request, call: Call) -> None:
        try:
            self.batcher.submit(call)
        except Unavailable as error:
            self._fail_with(connection, request, error)

    def _large(self, connection: Connection, request: Request, is_csv: bool) -> None:
        """Decodes, predicts and encodes in a thread; only the answer comes back to the event loop."""
        size = len(request.body)
        if self._waiting + size > MAX_WAITING_BYTES and self._waiting:
            self._fail_with(connection, request, Unavailable("Too many large requests wait already."))
            return
        self._waiting += size
        loop = asyncio.get_running_loop()
        future = loop.run_in_executor(self._executor, self._work, request, is_csv)
        future.add_done_callback(lambda done: self._finish_large(connection, request, done))

    def _work(self, request: Request, is_csv: bool) -> bytes:
        coded = self.check_csv(request.body) if is_csv else self._code_large(request.body)
        try:
            predictions = self.batcher.run(coded)
        except EstibaError:
            raise
        except Exception as error:
            raise ModelFailed(f"{type(error).__name__}: {error}") from error
        return self._body(request, predictions, coded.warnings)

    def _code_large(self, body: bytes | bytearray) -> Coded:
        try:
            records = self._decode(body)
        except _UNREADABLE:
            return self.check_json(body)
        _check_count(len(records))
        return self.model.coder.pack(records)

    def _finish_large(self, connection: Connection, request: Request, done: asyncio.Future[bytes]) -> None:
        self._waiting -= len(request.body)
        self.batcher.settle()
        error = done.exception() if not done.cancelled() else Unavailable("The server is shutting down.")
        if error is None:
            self._succeed(connection, request, done.result())
        else:
            self._fail_with(connection, request, error)

    def check_json(self, body: bytes | bytearray) -> Coded:
        """The careful way: any JSON body to coded rows.

        Raises:
            BadRequest: it is not JSON. BadInput: it does not match the signature.
        """
        try:
            content = msgspec.json.decode(body)
        except RecursionError:
            raise BadRequest("The body is nested too deep.") from None
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise BadRequest(f"The body cannot be read as JSON: {error}") from None
        rows, bare = _rows(content)
        _check_count(len(rows))
        try:
            return self.model.coder.check(rows)
        except BadInput as error:
            raise BadInput([_shown(p, bare) for p in error.problems]) from None

    def check_csv(self, body: bytes | bytearray) -> Coded:
        """A CSV body with a header line to coded rows. An empty cell is a missing value."""
        try:
            text = body.decode("utf-8-sig")
            lines = list(csv.reader(io.StringIO(text, newline=""), strict=True))
        except (UnicodeDecodeError, csv.Error) as error:
            raise BadRequest(f"The body is not valid CSV in UTF-8: {error}") from None
        lines = [line for line in lines if line]
        if len(lines) < 2:
            raise BadInput([Problem("#/records", "expected a header line and at least one row")])
        _check_count(len(lines) - 1)
        return self.model.coder.check_text(lines[0], lines[1:])

    def _answerer(self, connection: Connection, request: Request) -> Any:
        def done(predictions: Sequence[Prediction], warnings: Sequence[Warned], error: Exception | None) -> None:
            if error is None:
                try:
                    body = self._body(request, predictions, warnings)
                except Exception as failure:  # a label that JSON does not know must not cost other calls their answers
                    error = failure
            if error is not None:
                self._fail_with(connection, request, error)
            else:
                self._succeed(connection, request, body)

        return done

    def _body(self, request: Request, predictions: Sequence[Prediction], warnings: Sequence[Warned]) -> bytes:
        body: dict[str, Any] = {
            "id": request.id,
            "model": self.model.name,
            "version": self.model.version,
            "predictions": predictions,
            "warnings": (),
        }
        if warnings:
            body["warnings"] = [{"code": w.code, "pointer": pointer(w.row, w.field)} for w in warnings[:MAX_PROBLEMS]]
        return self._encode(body)

    def _succeed(self, connection: Connection, request: Request, body: bytes) -> None:
        self._ok.add()
        self._seconds.observe(time.perf_counter() - request.arrived)
        self._in_flight.add(-1)
        head = b"content-type: application/json\r\n%b%b\r\n" % (self._version, request.id.encode())
        connection.respond(request, 200, head, body)

    def _fail_with(self, connection: Connection, request: Request, error: BaseException) -> None:
        if isinstance(error, EstibaError) and not isinstance(error, ModelFailed):
            errors = error.problems if isinstance(error, BadInput) else ()
            self._fail(connection, request, error.status, "" if errors else error.message, errors=errors)
            return
        kind = "model-failed" if isinstance(error, ModelFailed) else "internal"
        self._log.error("request failed", error=error, request_id=request.id, model=self.model.name)
        self._fail(connection, request, 500, "The log has the reason under the request's id.", kind=kind)

    def _fail(
        self,
        connection: Connection,
        request: Request,
        status: int,
        detail: str,
        *,
        kind: str = "",
        errors: Sequence[Problem] = (),
    ) -> None:
        self._code(status).add()
        self._seconds.observe(time.perf_counter() - request.arrived)
        self._in_flight.add(-1)
        if status < 500 or status == 503:
            reason = "full" if status == 503 else "invalid"
            self._metrics.slot("estiba_rejected_total", self.model.name, reason).add()
        about = {"model": self.model.name, "version": self.model.version}
        body = problem(status, detail, kind=kind, request_id=request.id, errors=errors, **about)
        head = b"content-type: %b\r\n%b%b\r\n" % (CONTENT_TYPE, self._version, request.id.encode())
        connection.respond(request, status, head + _MORE_HEADERS.get(status, b""), body)

    def _code(self, status: int) -> Slot:
        if status not in self._codes:
            model = self.model
            self._codes[status] = self._metrics.slot(
                "estiba_requests_total", model.name, model.version, "", "native", str(status)
            )
        return self._codes[status]


class TooManyRows(EstibaError):
    status = 413


def _check_count(count: int) -> None:
    if count > MAX_ROWS:
        raise TooManyRows(f"A request may hold {MAX_ROWS:,} records; this one has {count:,}.")


def _rows(content: Any) -> tuple[list[Any], bool]:
    """The records of a decoded body, and whether it was one bare record."""
    if not isinstance(content, dict):
        raise BadInput([Problem("#", 'expected an object: {"records": [...]} or one record')])
    if "records" not in content:
        return [content], True
    rows = content["records"]
    if not isinstance(rows, list):
        raise BadInput([Problem("#/records", "expected an array of records")])
    if not rows:
        raise BadInput([Problem("#/records", "expected at least one record")])
    unknown = [key for key in content if key not in ("records", "params")]
    if unknown:
        shown = unknown[:MAX_PROBLEMS]
        raise BadInput([Problem(f"#/{escape(key)}", "expected only records and params here") for key in shown])
    if not isinstance(content.get("params"), (dict, NoneType)):
        raise BadInput([Problem("#/params", "expected an object")])
    return rows, False


def _shown(found: Problem, bare: bool) -> Problem:
    return Problem("#" + found.pointer.removeprefix("#/records/0"), found.detail) if bare else found


def request_id(request: Request) -> str:
    """The caller's X-Request-ID, if it is short and plain enough to be passed on; else empty."""
    said = request.header(b"x-request-id")
    if 0 < len(said) <= 128 and all(0x21 <= byte <= 0x7E for byte in said):
        return said.decode()
    return ""
