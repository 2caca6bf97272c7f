"""Contributions of the fields to predictions (`POST /models/{name}/explain`), computed in a thread."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from estiba.core.errors import BadRequest, Unavailable
from estiba.model.explanation.explain import DEFAULT_ROWS, Explainer, Explanation
from estiba.model.inference.load import Model
from estiba.serving.catalog import CurrentCatalog

MAX_RECORDS = 20
"""Records of one request. Each may cost what thousands of predictions do."""

MIN_ROWS, MAX_ROWS = 100, 200_000
"""Bounds of the parameter `rows`."""

MAX_WAITING = 8
"""Requests that wait for the one that is computed; further ones are refused."""

_FORM = '{"records": [{...}]}, or one record alone'


def routes(current: CurrentCatalog) -> list[Route]:
    """The route of explanations."""
    return [Route("/models/{name}/explain", _Explanations(current).explain, methods=["POST"])]


class _Explanations:
    """Explains one request at a time, so that explanations take at most one thread from predictions."""

    def __init__(self, current: CurrentCatalog) -> None:
        self._current = current
        self._one = asyncio.Lock()
        self._waiting = 0
        self._explainers: dict[str, Explainer] = {}

    async def explain(self, request: Request) -> Response:
        model = self._current.catalog.model(request.path_params["name"])
        records = _records(await request.body())
        output, rows = request.query_params.get("output", ""), _rows(request.query_params.get("rows", ""))
        if self._waiting >= MAX_WAITING:
            raise Unavailable("Too many explanations wait already.", hint="Ask again in some seconds.")
        self._waiting += 1
        try:
            async with self._one:
                explained = await run_in_threadpool(self._explain, model, records, output, rows)
        finally:
            self._waiting -= 1
        body = {"model": model.name, "version": model.version, "explanations": explained}
        return Response(msgspec.json.encode(body), media_type="application/json")

    def _explain(self, model: Model, records: list[Any], output: str, rows: int) -> list[Explanation]:
        explainer = self._explainers.get(model.digest)
        if explainer is None:
            served = {other.digest for other in self._current.catalog.models()}
            self._explainers = {digest: kept for digest, kept in self._explainers.items() if digest in served}
            explainer = self._explainers[model.digest] = Explainer(model)
        return explainer.explain(records, output=output, max_rows=rows)


def _records(body: bytes) -> list[Any]:
    try:
        given = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadRequest(f"The body is no JSON: {error}.", hint=f"Send {_FORM}.") from None
    records = given.get("records", [given]) if isinstance(given, dict) else given
    if not isinstance(records, list) or not records:
        raise BadRequest("The body has no records.", hint=f"Send {_FORM}.")
    if len(records) > MAX_RECORDS:
        raise BadRequest(f"{len(records)} records are too many to explain: at most {MAX_RECORDS}.")
    return records


def _rows(text: str) -> int:
    if not text:
        return DEFAULT_ROWS
    if not (text.isascii() and text.isdigit() and len(text) < 8 and MIN_ROWS <= int(text) <= MAX_ROWS):
        raise BadRequest(f"rows is {text[:20]!r}.", hint=f"Write a whole number from {MIN_ROWS} to {MAX_ROWS}.")
    return int(text)
