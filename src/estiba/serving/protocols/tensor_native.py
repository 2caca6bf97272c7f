"""The native protocol for models of tensors: records in JSON, arrays as `.npy` or `.npz`, or an image.

Answers are JSON, `.npy` of one output, or `.npz` of several.

Outputs are chosen by `params.outputs` of a JSON body, or by `?output=NAME`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, cast
from urllib.parse import parse_qs

import msgspec

from estiba.core.errors import BadInput, BadRequest, Problem
from estiba.model.coding import images, npy, npz
from estiba.model.coding.coder import Coded
from estiba.model.coding.known_names import MAX_PROBLEMS
from estiba.model.coding.tensor_coder import tensors_of
from estiba.model.inference.load import TensorModel
from estiba.model.schema.json_pointer import escape
from estiba.serving.batcher import Batcher
from estiba.serving.exchange import Answer, Exchange
from estiba.serving.http.problem_details import CONTENT_TYPE, problem
from estiba.serving.http.request import Request
from estiba.serving.protocols.body_parsing import check_count, check_query, parse_json, unsupported_type
from estiba.serving.protocols.endpoint import JSON, EncodedResponse, Endpoint, Failure, Shared
from estiba.serving.protocols.tensor_bodies import check_json, chosen_outputs, not_finite, plain, together

JSON_TYPE = b"application/json"


class _Options(NamedTuple):
    """The outputs of an answer, and its form: `.npy`, `.npz`, or JSON, with the outputs at the top level if flat."""

    outputs: tuple[str, ...]
    media_type: bytes = JSON_TYPE
    flat: bool = False


class TensorNativeEndpoint(Endpoint):
    """`/models/{model}[/versions/{version}]/predict` and `/predict` of a model of tensors."""

    protocol = "native"

    def __init__(self, batcher: Batcher, shared: Shared) -> None:
        super().__init__(batcher, shared)
        _ = self._ok, self._seconds  # at 0 before the first request, as a rate needs
        self._tensors = cast(TensorModel, self.model).tensors
        self._head = self.model.signature.head
        fields = self.model.signature.fields
        self._only = fields[0] if len(fields) == 1 else None
        self.accept_query = b", ".join(self._media_types())

    def decode(self, exchange: Exchange) -> None:
        request = exchange.request
        if request.method != b"POST":
            check_query(request, "Use POST or QUERY with records as JSON, arrays as .npy or .npz, or an image.")
        kind = request.content_type.partition(b";")[0].strip().lower()
        wanted = _answer_type(request.header(b"accept").lower())
        output = _query_output(request)
        if kind in (JSON_TYPE, b""):
            exchange.coded, params, bare = self._json(request.body)
            outputs = chosen_outputs(self._head, params.get("outputs", output))
            flat = bare and request.path == b"/predict"
            exchange.answer_options = _Options(outputs, wanted, flat)
        else:
            exchange.coded = self._one_body(kind, request)
            exchange.answer_options = _Options(chosen_outputs(self._head, output), wanted)
        if wanted == npy.MEDIA_TYPE and len(exchange.answer_options.outputs) > 1:
            names = ", ".join(each.name for each in self._head.tensors)
            raise BadRequest(
                f"A .npy file holds one output; say which with ?output=NAME, of: {names}. "
                "With Accept: application/x-npz all of them come."
            )

    def _one_body(self, kind: bytes, request: Request) -> Coded:
        """The records of a body that is an array or an image, for the only field, or several arrays by name."""
        accepted = self._media_types()
        if kind not in accepted:
            raise unsupported_type(kind, ", ".join(each.decode() for each in accepted))
        if kind == npz.MEDIA_TYPE:
            return self._arrays(request.body)
        assert self._only is not None
        if kind != npy.MEDIA_TYPE:
            name, content = self._only.name, bytes(request.body)
            return self._named(lambda: self._tensors.check([{name: content}]))
        array = npy.read(request.body)
        check_count(len(array) if array.ndim and self._tensors.stacks else 1)
        return self._named(lambda: tensors_of(self._tensors, array))

    def _arrays(self, body: bytes | bytearray) -> Coded:
        """Arrays by field: of one record, or each with a first axis that counts the records."""
        arrays = npz.read(body, self._max_body)
        try:
            coded = tensors_of(self._tensors, arrays)
        except BadInput as error:
            hint = "" if arrays.keys() & set(self.model.signature.names) else "; numpy.savez(file, NAME=array) names it"
            raise BadInput([Problem(_bare(p).pointer, p.detail + hint) for p in error.problems]) from None
        check_count(len(coded.matrix))
        return coded

    def _media_types(self) -> tuple[bytes, ...]:
        if self._only is None:
            return (JSON_TYPE, npz.MEDIA_TYPE)
        return (
            JSON_TYPE,
            npy.MEDIA_TYPE,
            npz.MEDIA_TYPE,
            *(images.MEDIA_TYPES if self._only.image is not None else ()),
        )

    def _named(self, code: Any) -> Coded:
        """Name problems of a body that is one value by the body itself."""
        try:
            coded: Coded = code()
            return coded
        except BadInput as error:
            name = "" if self._only is None else self._only.name
            raise BadInput([Problem("#", f"{name}: {p.detail}") for p in error.problems]) from None

    def _json(self, body: bytes | bytearray) -> tuple[Coded, Mapping[str, Any], bool]:
        """The records of a body, its params, and whether it is one bare record."""
        check_json(body)
        self.check_keys(body, -1)
        content = parse_json(body)
        if not isinstance(content, dict):
            raise BadInput([Problem("#", 'expected an object: {"records": [...]} or one record')])
        if "records" not in content or "records" in self.model.signature.names:
            try:
                return self._tensors.check([content]), {}, True
            except BadInput as error:
                raise BadInput([_bare(p) for p in error.problems]) from None
        records, params = content["records"], content.get("params") or {}
        if not isinstance(records, list) or not records:
            raise BadInput([Problem("#/records", "expected an array of one record or more")])
        check_count(len(records))
        if unknown := [key for key in content if key not in ("records", "params")]:
            raise BadInput([Problem(f"#/{escape(unknown[0])}", "expected only records and params here")])
        if not isinstance(params, dict) or set(params) - {"outputs"}:
            raise BadInput([Problem("#/params", 'expected an object of "outputs" and nothing else')])
        return self._tensors.check(records), params, False

    def encode(self, exchange: Exchange, answer: Answer) -> EncodedResponse:
        options: _Options = exchange.answer_options
        predictions = answer.predictions
        if options.media_type != JSON_TYPE:
            arrays = {name: together(predictions, name, self._head.batch) for name in options.outputs}
            whole = options.media_type == npz.MEDIA_TYPE
            body = npz.write(arrays) if whole else npy.write(arrays[options.outputs[0]])
            return (b"content-type: %b\r\n" % options.media_type, body)
        shown = plain(predictions, options.outputs)
        odd = not_finite(predictions, options.outputs)[:MAX_PROBLEMS]
        content: dict[str, Any] = {
            "id": exchange.id,
            "model": self.model.name,
            "version": self.model.version,
            "predictions": shown,
            "warnings": [{"code": warned.code, "pointer": warned.pointer} for warned in odd],
        }
        return (JSON, msgspec.json.encode({**content, **shown[0], **content} if options.flat else content))

    def problem(self, exchange: Exchange, failure: Failure) -> EncodedResponse:
        about: dict[str, Any] = {"model": self.model.name, "version": self.model.version}
        if failure.policies:
            about["violated-policies"] = failure.policies
        status, detail, kind, errors, _ = failure
        body = problem(status, detail, kind=kind, request_id=exchange.id, errors=errors, **about)
        return (b"content-type: %b\r\n" % CONTENT_TYPE, body)


def _answer_type(accept: bytes) -> bytes:
    """The media type of an answer: .npz or .npy where the header Accept names it, else JSON."""
    return next((kind for kind in (npz.MEDIA_TYPE, npy.MEDIA_TYPE) if kind in accept), JSON_TYPE)


def _bare(found: Problem) -> Problem:
    return Problem("#" + found.pointer.removeprefix("#/records/0"), found.detail)


def _query_output(request: Request) -> list[str] | None:
    """The outputs that a query such as `?output=probability` names; None without any."""
    if not request.query:
        return None
    try:
        query = parse_qs(request.query.decode(), keep_blank_values=True, strict_parsing=True, errors="strict")
    except (UnicodeDecodeError, ValueError):
        raise BadRequest("The query is not of the form output=NAME in UTF-8.") from None
    if set(query) != {"output"}:
        raise BadRequest("The query of a model of tensors is ?output=NAME, and nothing else.")
    return query["output"]
