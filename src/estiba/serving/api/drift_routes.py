"""Drift of a model (`GET /models/NAME/drift`)."""

from __future__ import annotations

import msgspec
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from estiba.core.durations import seconds
from estiba.core.errors import BadRequest, NotFound
from estiba.serving.catalog import CurrentCatalog


def routes(current: CurrentCatalog) -> list[Route]:
    """The routes of drift. They answer 404 where the server counts no rows for it."""

    async def drift(request: Request) -> Response:
        watching = current.catalog.pipeline.drift
        if watching is None:
            raise NotFound("This server does not measure drift.", hint="Set enabled = true in [monitoring.drift].")
        name = current.catalog.model(request.path_params["name"]).name
        text = request.query_params.get("since", "7d")
        since = seconds(text)
        if since is None:
            raise BadRequest(f"since is {text!r}.", hint="Write a whole number and s, m, h, d or w, such as 7d.")
        report = await run_in_threadpool(watching.drift, name, since=since)
        return Response(msgspec.json.encode(report), media_type="application/json")

    return [Route("/models/{name}/drift", drift, methods=["GET"])]
