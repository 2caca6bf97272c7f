"""Routes: everything but predictions. Health, metrics, models, the OpenAPI document and the pages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

import estiba
from estiba.core.errors import EstibaError, NotFound
from estiba.model.inference.load import Model
from estiba.model.schema.signature import json_schema
from estiba.serving.api import openapi, protocol_routes
from estiba.serving.http.problem_details import CONTENT_TYPE, problem
from estiba.serving.pages import CONTENT_SECURITY_POLICY, page
from estiba.serving.telemetry import metrics
from estiba.serving.workers.messages import Status

if TYPE_CHECKING:
    from estiba.serving.server import Server


def application(server: Server) -> Starlette:
    """The ASGI application of a server."""
    routes = _Routes(server)
    gets = {
        "/": routes.home,
        "/health": routes.health,
        "/health/live": routes.live,
        "/livez": routes.live,
        "/health/ready": routes.ready,
        "/readyz": routes.ready,
        "/healthz": routes.ready,
        "/health/startup": routes.ready,
        "/metrics": routes.metrics,
        "/models": routes.models,
        "/models/{name}": routes.model,
        "/models/{name}/schema": routes.schema,
        "/models/{name}/parity": routes.parity,
        "/models/{name}/card": routes.card,
        "/openapi.json": routes.openapi,
        "/docs": routes.page,
        "/docs/": routes.docs,
        "/docs/{file}": routes.page,
        "/favicon.ico": routes.favicon,
    }
    anything = ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
    # Predictions never come this far; what does asks for a model that is not here.
    lost = ("/predict", "/models/{name}/predict", "/models/{name}/versions/{version}/predict")
    application = Starlette(
        routes=[Route(path, endpoint, methods=["GET"]) for path, endpoint in gets.items()]
        + [Route(path, routes.lost, methods=anything) for path in lost]
        + protocol_routes.routes(server),
        exception_handlers={HTTPException: _http_error, EstibaError: _estiba_error},  # type: ignore[dict-item]
    )
    # Its redirects would repeat whatever host a client names.
    application.router.redirect_slashes = False
    return application


class _Routes:
    def __init__(self, server: Server) -> None:
        self._server = server
        self._documents: dict[str, tuple[tuple[str, ...], bytes]] = {}

    async def home(self, request: Request) -> Response:
        if "text/html" in request.headers.get("accept", ""):
            return RedirectResponse("docs")
        return _json({"name": "estiba", "version": estiba.__version__, "docs": "/docs", "models": "/models"})

    async def health(self, request: Request) -> Response:
        server = self._server
        state = server.state
        body = {
            "status": state,
            "version": estiba.__version__,
            "models": {model.name: {"version": model.version, "status": "ready"} for model in server.models()},
            **_workers(server.status),
        }
        return _json(body, 200 if state == "ready" else 503)

    async def live(self, request: Request) -> Response:
        status = self._server.status
        if status is not None and status.failing:
            detail = f"Workers died too often: {status.restarts} were replaced."
            return _problem(request, 503, detail, kind="not-ready")
        return _json({"status": "alive"})

    async def ready(self, request: Request) -> Response:
        state = self._server.state
        if state == "ready":
            return _json({"status": state})
        return _problem(request, 503, f"The server is {state}.", kind="not-ready", headers={"retry-after": "1"})

    async def metrics(self, request: Request) -> Response:
        return Response(self._server.metrics.render(), headers={"content-type": metrics.CONTENT_TYPE})

    async def models(self, request: Request) -> Response:
        status = self._server.status
        models = [self._about(model, request) for model in self._server.models()]
        return _json({"models": models, **_workers(status)})

    async def model(self, request: Request) -> Response:
        model = self._find(request)
        versions = sorted(self._server.endpoints[model.name])
        return _json({**self._about(model, request), "versions": versions})

    async def schema(self, request: Request) -> Response:
        model = self._find(request)
        return _json(
            {
                "$schema": "https://json-schema.org/draft/2020-12/schema",
                "title": model.name,
                **json_schema(model.signature),
            },
            content_type="application/schema+json",
        )

    async def parity(self, request: Request) -> Response:
        model = self._find(request)
        recorded = model.manifest.parity
        body = {"model": model.name, "version": model.version, "digest": model.digest, "engine": model.manifest.engine}
        return _json({**body, "packed": recorded, "loaded": model.parity, "reason": model.manifest.reason})

    async def card(self, request: Request) -> Response:
        model = self._find(request)
        return Response(model.artifact.file("card.md").read_bytes(), media_type="text/markdown; charset=utf-8")

    async def openapi(self, request: Request) -> Response:
        models, own = self._server.models(), request.state.own
        key = tuple(f"{m.name}@{m.version}" for m in models)
        made_of, content = self._documents.get(own, ((), b""))
        if made_of != key:
            default = self._server.default(own)
            described = [_described(m, default=m.name == default) for m in models]
            document = openapi.document(
                described, title="Estiba", version=estiba.__version__, server_version=estiba.__version__
            )
            content = msgspec.json.encode(document)
            self._documents[own] = (key, content)
        return Response(content, media_type="application/json")

    async def page(self, request: Request) -> Response:
        found = page(request.scope["path"].strip("/"))
        if found is None:
            raise HTTPException(404)
        content, kind = found
        headers = {
            "content-type": kind,
            "content-security-policy": CONTENT_SECURITY_POLICY,
            "x-content-type-options": "nosniff",
            "referrer-policy": "no-referrer",
            "cache-control": "no-cache",
        }
        return Response(content, headers=headers)

    async def docs(self, request: Request) -> Response:
        return RedirectResponse("../docs")

    async def lost(self, request: Request) -> Response:
        name, version = request.path_params.get("name"), request.path_params.get("version")
        known = ", ".join(model.name for model in self._server.models()) or "none"
        if name is None:
            raise NotFound("This server has no default model.", hint=f"Ask /models/NAME/predict, of: {known}.")
        model = self._find(request)
        raise NotFound(f"{name}@{version} is not served here.", hint=f"Being served: {name}@{model.version}.")

    async def favicon(self, request: Request) -> Response:
        return RedirectResponse("docs/favicon.svg")

    def _about(self, model: Model, request: Request) -> dict[str, Any]:
        about = _about(model, default=model.name == self._server.default(request.state.own))
        status = self._server.status
        if status is not None and model.name in status.failed:
            about["refused"] = status.failed[model.name]
        return about

    def _find(self, request: Request) -> Model:
        return self._server.current(request.path_params["name"]).model


def _workers(status: Status | None) -> dict[str, Any]:
    if status is None:
        return {}
    counts = {"ready": status.workers, "wanted": status.wanted, "threads": status.threads, "restarts": status.restarts}
    return {"workers": counts}


def _about(model: Model, *, default: bool) -> dict[str, Any]:
    manifest = model.manifest
    source = manifest.source
    return {
        "name": model.name,
        "version": model.version,
        "status": "ready",
        "default": default,
        "digest": f"sha256:{model.digest}",
        "description": manifest.description,
        "engine": manifest.engine,
        "runtime": model.runtime,
        "framework": manifest.framework,
        "metrics": manifest.metrics,
        "simulated_data": bool(source and source.simulated),
        "notes": model.notes,
    }


def _described(model: Model, *, default: bool) -> openapi.Described:
    example = model.example
    source = model.manifest.source
    warning = "SIMULATED DATA: its answers say nothing about the world. " if source and source.simulated else ""
    return openapi.Described(
        name=model.name,
        version=model.version,
        signature=model.signature,
        example=example,
        answer=model.predict([example])[0],
        description=f"{warning}{model.manifest.description}".strip(),
        default=default,
    )


def _json(body: Any, status: int = 200, *, content_type: str = "application/json") -> Response:
    return Response(msgspec.json.encode(body), status, media_type=content_type)


def _problem(
    request: Request, status: int, detail: str, *, kind: str = "", headers: dict[str, str] | None = None
) -> Response:
    foreign = protocol_routes.error_body(request.scope["path"], status, detail)
    if foreign is not None:
        return Response(foreign, status, headers={"content-type": "application/json", **(headers or {})})
    body = problem(status, detail, kind=kind, request_id=request.state.request_id)
    return Response(body, status, headers={"content-type": CONTENT_TYPE.decode(), **(headers or {})})


async def _http_error(request: Request, error: HTTPException) -> Response:
    detail = ""
    if error.status_code == 404:
        detail = f"There is nothing at {request.scope['path']}. /docs shows what this server has."
    elif error.status_code == 405:
        detail = f"{request.scope['path']} does not take {request.method}."
    return _problem(request, error.status_code, detail, headers=dict(error.headers or {}))


async def _estiba_error(request: Request, error: EstibaError) -> Response:
    text = f"{error.message} {error.hint}" if error.hint else error.message
    return _problem(request, error.status, text)
