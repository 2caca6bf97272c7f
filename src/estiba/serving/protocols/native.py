"""The native protocol, `POST /models/{model}/predict`: records in JSON, CSV, Arrow or Parquet to predictions in JSON.

Predictions are sent as a table where the caller accepts one. A GET with one record as its query is answered too, for
browsers and old clients.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import NoneType
from typing import Any
from urllib.parse import parse_qsl

import msgspec

from estiba.core.errors import BadInput, BadRequest, Problem
from estiba.model.coding.coder import Coded
from estiba.model.coding.known_names import MAX_PROBLEMS
from estiba.model.coding.record_type import code_hook
from estiba.model.schema.json_pointer import escape
from estiba.model.schema.rows import Prediction
from estiba.serving.batcher import SLICE_ROWS, Batcher
from estiba.serving.exchange import Answer, Exchange
from estiba.serving.http.problem_details import CONTENT_TYPE, problem
from estiba.serving.http.request import Request
from estiba.serving.protocols import arrow_parquet
from estiba.serving.protocols.body_parsing import (
    UNREADABLE,
    check_count,
    check_query,
    check_values,
    code_csv,
    parse_json,
    shown_warnings,
    unsupported_type,
)
from estiba.serving.protocols.endpoint import INLINE_BYTES, JSON, EncodedResponse, Endpoint, Failure, Shared
from estiba.serving.protocols.repeated_keys import detector

_PLAIN = b"application/json"
_SHORT = b"/predict"
_FLAT = "flat"
"""Answer option for a bare record at the short path: outputs at the top level, as for an API of a single model."""
_THREADED_TYPES = (b"text/csv", *arrow_parquet.KINDS)
_WITH_BODY = (b"POST", b"QUERY")
_USAGE = "Use POST or QUERY with records as JSON or CSV, or GET with one record as the query."


class _Scanned(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """An envelope whose records are not decoded yet."""

    records: list[msgspec.Raw]
    params: dict[str, Any] | None = None


_SCAN = msgspec.json.Decoder(_Scanned)


class NativeEndpoint(Endpoint):
    """`/models/{model}[/versions/{version}]/predict` and `/predict`."""

    protocol = "native"
    allow = b"GET, POST, QUERY"
    accept_query = b", ".join((_PLAIN, *_THREADED_TYPES))

    def __init__(self, batcher: Batcher, shared: Shared) -> None:
        super().__init__(batcher, shared)
        _ = self._ok, self._seconds  # at 0 before the first request, as a rate needs
        record: Any = self.model.coder.record
        self._record = msgspec.json.Decoder(record, dec_hook=code_hook)
        envelope: Any = msgspec.defstruct(
            "Envelope",
            [("records", list[record]), ("params", dict[str, Any] | None, None)],
            forbid_unknown_fields=True,
            gc=False,
        )
        self._envelope = msgspec.json.Decoder(envelope, dec_hook=code_hook)
        self._rows = msgspec.json.Decoder(list[record], dec_hook=code_hook)
        self._encode = msgspec.json.Encoder().encode
        signature = self.model.signature
        self._has_records = "records" in signature.names  # a body with that key is an envelope, wherever the key stands
        exact = signature.extra == "refuse" and not signature.keep and not any(f.nullable for f in signature.fields)
        self._width, self._may_repeat = len(signature.fields), detector()
        self._colons = len(signature.fields) if exact else -1

    def is_large(self, request: Request) -> bool:
        return super().is_large(request) or (request.method in _WITH_BODY and _kind(request) in _THREADED_TYPES)

    def decode(self, exchange: Exchange) -> None:
        request = exchange.request
        if request.method != b"POST":
            if request.method == b"GET":
                exchange.coded = self._check_target(request)
                exchange.answer_options = _flat(request, bare=True)
                return
            check_query(request, _USAGE)
        kind = _kind(request)
        if kind in (_PLAIN, b""):
            self._decode_json(exchange, request)
        elif kind == b"text/csv":
            exchange.coded = code_csv(self.model.coder, request.body)
        elif kind in arrow_parquet.KINDS:
            exchange.coded = arrow_parquet.code_table_body(self.model.coder, request.body, kind, self._max_body)
            exchange.answer_options = arrow_parquet.wanted(request.header(b"accept"))
        else:
            raise unsupported_type(kind, "application/json, text/csv, an Arrow stream or Parquet")

    def _decode_json(self, exchange: Exchange, request: Request) -> None:
        try:
            records, bare = self._decode_fast(request.body)
        except UNREADABLE:
            exchange.coded, bare = self._check_json(request.body)
        else:
            check_count(len(records))
            # The function of the kernel itself: a call more would cost a percent of a small request.
            colons = self._colons * len(records) + (not bare) if self._colons > 0 else -1
            if self._may_repeat(request.body, self._width, colons):
                self.check_keys(request.body, -1)
            exchange.records = records
        exchange.answer_options = _flat(request, bare=bare)

    def _decode_fast(self, body: bytes | bytearray) -> tuple[Sequence[Any], bool]:
        """Decode valid records straight into the coder's type; True if the body is one bare record.

        Raises:
            one of UNREADABLE, for everything that needs `_check_json`.
        """
        enveloped = b'"records"' in body[:64] or self._has_records
        if len(body) > INLINE_BYTES and enveloped:
            return self._decode_slices(body), False
        if enveloped:
            records: Sequence[Any] = self._envelope.decode(body).records
            if not records:
                raise msgspec.DecodeError("no records")
            return records, False
        return [self._record.decode(body)], True

    def _decode_slices(self, body: bytes | bytearray) -> list[Any]:
        """Decode in slices, between which other threads get the interpreter lock; one call would hold it throughout."""
        check_values(body, len(self.model.coder.fields))
        raws = _SCAN.decode(body).records
        if not raws:
            raise msgspec.DecodeError("no records")
        check_count(len(raws))
        records: list[Any] = []
        for start in range(0, len(raws), SLICE_ROWS):
            records += self._rows.decode(b"[%b]" % b",".join(raws[start : start + SLICE_ROWS]))
        return records

    def _parse(self, body: bytes | bytearray) -> Any:
        check_values(body, len(self.model.coder.fields))
        self.check_keys(body, -1)
        return parse_json(body)

    def _check_json(self, body: bytes | bytearray) -> tuple[Coded, bool]:
        rows, bare = _rows(self._parse(body))
        check_count(len(rows))
        try:
            return self.model.coder.check(rows), bare
        except BadInput as error:
            raise BadInput([_shown(p, bare) for p in error.problems]) from None

    def _check_target(self, request: Request) -> Coded:
        """Code the query of a target, such as `?age=41&country=ES`, as one record."""
        try:
            query = request.query.decode()
            pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=True, errors="strict") if query else []
        except (UnicodeDecodeError, ValueError):
            raise BadRequest("The query is not of the form name=value&name=value in UTF-8.") from None
        try:
            return self.model.coder.check_text([name for name, _ in pairs], [[value for _, value in pairs]])
        except BadInput as error:
            raise BadInput([_shown(p, True) for p in error.problems]) from None

    def encode(self, exchange: Exchange, answer: Answer) -> EncodedResponse:
        predictions, warnings, option = answer.predictions, answer.warnings, exchange.answer_options
        if option and option is not _FLAT:
            body = arrow_parquet.encode_table(predictions, option, shown_warnings(warnings))
            return (b"content-type: %b\r\n" % option, body)
        content: dict[str, Any] = {
            "id": exchange.id,
            "model": self.model.name,
            "version": self.model.version,
            "predictions": predictions if len(predictions) <= SLICE_ROWS else self._encode_slices(predictions),
            "warnings": (),
        }
        if warnings:
            content["warnings"] = shown_warnings(warnings)
        # Members of the envelope win over outputs of the same name, which are still in predictions.
        return (JSON, self._encode({**content, **predictions[0], **content} if option else content))

    def _encode_slices(self, predictions: Sequence[Prediction]) -> msgspec.Raw:
        starts = range(0, len(predictions), SLICE_ROWS)
        return msgspec.Raw(b"[%b]" % b",".join([self._encode(predictions[i : i + SLICE_ROWS])[1:-1] for i in starts]))

    def problem(self, exchange: Exchange, failure: Failure) -> EncodedResponse:
        about: dict[str, Any] = {"model": self.model.name, "version": self.model.version}
        if failure.policies:
            about["violated-policies"] = failure.policies
        status, detail, kind, errors, _ = failure
        body = problem(status, detail, kind=kind, request_id=exchange.id, errors=errors, **about)
        return (b"content-type: %b\r\n" % CONTENT_TYPE, body)


def _flat(request: Request, *, bare: bool) -> str | None:
    return _FLAT if bare and request.path == _SHORT else None


def _kind(request: Request) -> bytes:
    if request.content_type == _PLAIN:  # nearly always
        return _PLAIN
    return request.content_type.partition(b";")[0].strip().lower()


def _rows(content: Any) -> tuple[list[Any], bool]:
    """The records of a decoded body; True if it is one bare record."""
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
