"""The native protocol: `POST /models/{model}/predict` with records in JSON, CSV, Arrow or Parquet; predictions in JSON,
or as a table where a bulk caller accepts one.

A GET with one record as its query is answered too, for browsers and old clients.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import NoneType
from typing import Any
from urllib.parse import parse_qsl

import msgspec

from estiba.core.errors import BadInput, BadRequest, Problem
from estiba.model.coding.coder import MAX_PROBLEMS, Coded, Warned
from estiba.model.coding.record_type import code_hook
from estiba.model.schema.rows import Prediction
from estiba.model.schema.values import escape, pointer
from estiba.serving.batcher import SLICE
from estiba.serving.http.connection import Request
from estiba.serving.http.problem_details import CONTENT_TYPE, problem
from estiba.serving.protocols import arrow_parquet, endpoint
from estiba.serving.protocols.body_parsing import (
    UNREADABLE,
    NotAllowed,
    NotSupported,
    check_count,
    code_csv,
    parse_json,
)
from estiba.serving.protocols.endpoint import INLINE_BYTES, JSON, Asked, Failure, Sent, Served

_PLAIN = b"application/json"
_SHORT = b"/predict"
_FLAT = "flat"
"""How one bare record at the short path is answered: as clients of an API of one model expect it."""
_IN_A_THREAD = (b"text/csv", *arrow_parquet.KINDS)


class _Scanned(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """An envelope whose records are not looked into yet."""

    records: list[msgspec.Raw]
    params: dict[str, Any] | None = None


_SCAN = msgspec.json.Decoder(_Scanned)


class Endpoint(endpoint.Endpoint):
    """One version of one model, answering the native protocol."""

    protocol = "native"
    allow = b"GET, POST"

    def __init__(self, served: Served) -> None:
        super().__init__(served)
        _ = self._ok, self._seconds  # at zero before the first request, as a rate needs
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

    def is_large(self, request: Request) -> bool:
        return super().is_large(request) or (request.method == b"POST" and _kind(request) in _IN_A_THREAD)

    def decode(self, request: Request) -> Asked:
        if request.method != b"POST":
            return Asked(coded=self._check_query(request), how=_flat(request, bare=True))
        kind = _kind(request)
        if kind == b"text/csv":
            return Asked(coded=code_csv(self.model.coder, request.body))
        if kind in arrow_parquet.KINDS:
            coded = arrow_parquet.code_bulk(self.model.coder, request.body, kind)
            return Asked(coded=coded, how=arrow_parquet.wanted(request.header(b"accept")))
        if kind not in (_PLAIN, b""):
            said = kind.decode("latin-1")
            raise NotSupported(f"This path takes application/json, text/csv, an Arrow stream or Parquet, not {said!r}.")
        try:
            records, bare = self._decode_fast(request.body)
        except UNREADABLE:
            coded, bare = self._check_json(request.body)
            return Asked(coded=coded, how=_flat(request, bare=bare))
        check_count(len(records))
        return Asked(records, how=_flat(request, bare=bare))

    def _decode_fast(self, body: bytes | bytearray) -> tuple[Sequence[Any], bool]:
        """Records of valid rows, and whether it was one bare record.

        Raises:
            one of UNREADABLE, for whatever only the careful way can judge.
        """
        if len(body) > INLINE_BYTES and b'"records"' in body[:64]:
            return self._decode_slices(body), False
        if b'"records"' in body[:64]:
            records: Sequence[Any] = self._envelope.decode(body).records
            if not records:
                raise msgspec.DecodeError("no records")
            return records, False
        return [self._record.decode(body)], True

    def _decode_slices(self, body: bytes | bytearray) -> list[Any]:
        """The same in steps, between which other threads get their turn: one step holds the interpreter's lock."""
        raws = _SCAN.decode(body).records
        if not raws:
            raise msgspec.DecodeError("no records")
        check_count(len(raws))
        records: list[Any] = []
        for start in range(0, len(raws), SLICE):
            records += self._rows.decode(b"[%b]" % b",".join(raws[start : start + SLICE]))
        return records

    def _check_json(self, body: bytes | bytearray) -> tuple[Coded, bool]:
        rows, bare = _rows(parse_json(body))
        check_count(len(rows))
        try:
            return self.model.coder.check(rows), bare
        except BadInput as error:
            raise BadInput([_shown(p, bare) for p in error.problems]) from None

    def _check_query(self, request: Request) -> Coded:
        """`?age=41&country=ES` as one record."""
        if request.method != b"GET":
            raise NotAllowed("Use POST with records as JSON or CSV, or GET with one record as the query.")
        try:
            query = request.query.decode()
            pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=True, errors="strict") if query else []
        except (UnicodeDecodeError, ValueError):
            raise BadRequest("The query is not of the form name=value&name=value in UTF-8.") from None
        try:
            return self.model.coder.check_text([name for name, _ in pairs], [[value for _, value in pairs]])
        except BadInput as error:
            raise BadInput([_shown(p, True) for p in error.problems]) from None

    def encode(self, request: Request, predictions: Sequence[Prediction], warnings: Sequence[Warned], how: Any) -> Sent:
        if how and how is not _FLAT:
            return b"content-type: %b\r\n" % how, arrow_parquet.encode_bulk(predictions, how)
        body: dict[str, Any] = {
            "id": request.id,
            "model": self.model.name,
            "version": self.model.version,
            "predictions": predictions if len(predictions) <= SLICE else self._encode_slices(predictions),
            "warnings": (),
        }
        if warnings:
            body["warnings"] = [{"code": w.code, "pointer": pointer(w.row, w.field)} for w in warnings[:MAX_PROBLEMS]]
        # What is about the answer goes before an output of the same name, which is still in predictions.
        return JSON, self._encode({**body, **predictions[0], **body} if how else body)

    def _encode_slices(self, predictions: Sequence[Prediction]) -> msgspec.Raw:
        starts = range(0, len(predictions), SLICE)
        return msgspec.Raw(b"[%b]" % b",".join([self._encode(predictions[i : i + SLICE])[1:-1] for i in starts]))

    def problem(self, request: Request, failure: Failure) -> Sent:
        status, detail, kind, errors = failure
        about = {"model": self.model.name, "version": self.model.version}
        body = problem(status, detail, kind=kind, request_id=request.id, errors=errors, **about)
        return b"content-type: %b\r\n" % CONTENT_TYPE, body


def _flat(request: Request, *, bare: bool) -> str | None:
    return _FLAT if bare and request.path == _SHORT else None


def _kind(request: Request) -> bytes:
    if request.content_type == _PLAIN:  # nearly always
        return _PLAIN
    return request.content_type.partition(b";")[0].strip().lower()


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
