"""Labels of predictions that were answered (`POST /feedback`), and the quality that follows from them."""

from __future__ import annotations

import msgspec
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from estiba.core.durations import seconds
from estiba.core.errors import BadRequest, NotFound
from estiba.serving.catalog import CurrentCatalog
from estiba.serving.pipeline import Feedback


def routes(current: CurrentCatalog) -> list[Route]:
    """The routes of feedback. They answer 404 where the server keeps no log of predictions."""
    pages = _Pages(current)
    return [
        Route("/feedback", pages.feedback, methods=["POST"]),
        Route("/models/{name}/quality", pages.quality, methods=["GET"]),
    ]


class _Pages:
    def __init__(self, current: CurrentCatalog) -> None:
        self._current = current

    async def feedback(self, request: Request) -> Response:
        kept = self._feedback()
        if request.headers.get("content-encoding", "identity") != "identity":
            raise BadRequest("Labels are not taken compressed.", hint="Send them without Content-Encoding.")
        unknown = _parameter(request, "unknown", "refuse")
        if unknown not in ("refuse", "skip"):
            raise BadRequest(f"unknown is {unknown!r}.", hint="Write ?unknown=skip to leave out unknown predictions.")
        content_type, caller = request.headers.get("content-type", ""), request.state.caller
        body = await request.body()
        counts = await run_in_threadpool(kept.record, body, content_type, caller, skip_unknown=unknown == "skip")
        return Response(msgspec.json.encode(counts), media_type="application/json")

    async def quality(self, request: Request) -> Response:
        kept = self._feedback()
        name = self._current.catalog.model(request.path_params["name"]).name
        since = _duration(request, "since", "7d")
        window = min(_duration(request, "window", "1d"), since)
        found = await run_in_threadpool(kept.quality, name, since=since, window=window)
        return Response(msgspec.json.encode(found), media_type="application/json")

    def _feedback(self) -> Feedback:
        feedback = self._current.catalog.pipeline.feedback
        if feedback is None:
            hint = "Set enabled = true in [gateway.log], or start it with estiba serve --log."
            raise NotFound("This server keeps no log of predictions, which labels belong to.", hint=hint)
        return feedback


def _duration(request: Request, name: str, default: str) -> float:
    """A parameter such as 7d, in seconds."""
    text = _parameter(request, name, default)
    length = seconds(text)
    if length is None:
        raise BadRequest(f"{name} is {text!r}.", hint="Write a whole number and s, m, h, d or w, such as 7d.")
    return length


def _parameter(request: Request, name: str, default: str) -> str:
    return request.query_params.get(name, default)
