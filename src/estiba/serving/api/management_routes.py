"""The ASGI application for health, metrics, models, the OpenAPI document and the pages."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

import estiba
from estiba.core.errors import BadInput, EstibaError, NotFound, Problem
from estiba.model.inference.load import Model, TensorModel
from estiba.model.registry.route_record import RouteOptions
from estiba.model.registry.routes import Change
from estiba.model.schema.json_schema import json_schema
from estiba.serving.api import drift_routes, explain_routes, feedback_routes, openapi, protocol_routes, route_api
from estiba.serving.catalog import CurrentCatalog
from estiba.serving.http.problem_details import error_response
from estiba.serving.pages import Pages
from estiba.serving.pipeline import Forbidden, TooManyRequests, Unauthorized
from estiba.serving.route_spec import RouteHome
from estiba.serving.server_status import Health, Status
from estiba.serving.telemetry.metrics import CONTENT_TYPE as METRICS_CONTENT_TYPE
from estiba.serving.telemetry.metrics import Metrics

FOLLOW_SECONDS = 10.0
"""Time that the answer to a changed route waits until this server follows it."""


def application(current: CurrentCatalog, health: Health, metrics: Metrics, home: RouteHome | None = None) -> Starlette:
    """The ASGI application of a worker.

    Args:
        current: holds the catalog that it describes. home: the registry of the routes.
    """
    routes = _Routes(current, health, metrics, home)
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
        "/models/{name}/route/history": routes.route_history,
        "/openapi.json": routes.openapi,
        "/docs": routes.page,
        "/docs/": routes.docs,
        "/docs/{file}": routes.page,
        "/favicon.ico": routes.favicon,
    }
    # Predictions are answered elsewhere; a request that gets here asks for a model that is not served.
    not_served = ("/predict", "/models/{name}/predict", "/models/{name}/versions/{version}/predict")
    application = Starlette(
        routes=[Route(path, endpoint, methods=["GET"]) for path, endpoint in gets.items()]
        + [Route("/models/{name}/route", routes.route, methods=["GET", "PUT", "DELETE"])]
        + [Route(path, routes.not_served, methods=protocol_routes.ANY) for path in not_served]
        + explain_routes.routes(current)
        + feedback_routes.routes(current)
        + drift_routes.routes(current)
        + protocol_routes.routes(current, health),
        middleware=[Middleware(_Refusals)],
        exception_handlers={HTTPException: _http_error, EstibaError: _estiba_error},  # type: ignore[dict-item]
    )
    # Starlette's redirects would repeat any host that a client sends.
    application.router.redirect_slashes = False
    return application


class _Refusals:
    """Answers requests that were refused by an admission policy."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal = scope.get("state", {}).get("refusal")
        if refusal is None:
            await self._app(scope, receive, send)
        elif isinstance(refusal, EstibaError):
            response = await _estiba_error(Request(scope), refusal)
            await response(scope, receive, send)
        else:
            raise refusal


class _Routes:
    def __init__(self, current: CurrentCatalog, health: Health, metrics: Metrics, home: RouteHome | None) -> None:
        self._home = home
        self._pages = Pages()
        self._current = current
        self._health = health
        self._metrics = metrics
        self._documents: dict[int, tuple[tuple[str, ...], bytes]] = {}

    async def home(self, request: Request) -> Response:
        if "text/html" in request.headers.get("accept", ""):
            return RedirectResponse(_below_root(request, "docs"))
        root = request.state.root
        paths = {"docs": f"{root}/docs", "models": f"{root}/models"}
        return _json({"name": "estiba", "version": estiba.__version__, **paths})

    async def health(self, request: Request) -> Response:
        state = self._health.state
        models = self._current.catalog.models()
        body = {
            "status": state,
            "version": estiba.__version__,
            "models": {model.name: {"version": model.version, "status": "ready"} for model in models},
            **_workers(self._health.status),
        }
        return _json(body, 200 if state == "ready" else 503)

    async def live(self, request: Request) -> Response:
        status = self._health.status
        if status is not None and status.failing:
            detail = f"Workers died too often: {status.restarts} were replaced."
            return _problem(request, 503, detail, kind="not-ready")
        return _json({"status": "alive"})

    async def ready(self, request: Request) -> Response:
        state = self._health.state
        if state == "ready":
            status = self._health.status
            pipeline = self._current.catalog.pipeline
            return _json({"status": state, **_policy_detail(status, pipeline.detail() if pipeline.detail else "")})
        return _problem(request, 503, f"The server is {state}.", kind="not-ready")

    async def metrics(self, request: Request) -> Response:
        return Response(self._metrics.render(), headers={"content-type": METRICS_CONTENT_TYPE})

    async def models(self, request: Request) -> Response:
        status = self._health.status
        models = [self._about(model, request) for model in self._current.catalog.models()]
        return _json({"models": models, **_workers(status)})

    async def model(self, request: Request) -> Response:
        model = self._find(request)
        versions = sorted(self._current.catalog.versions(model.name))
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

    async def route(self, request: Request) -> Response:
        if request.method in ("PUT", "DELETE"):
            return await self._change_route(request)
        return self._route(request.path_params["name"], {})

    async def route_history(self, request: Request) -> Response:
        name = self._find(request).name
        return _json(await asyncio.to_thread(route_api.history, self._home, name))

    async def _change_route(self, request: Request) -> Response:
        """Change the route in the registry, and wait for a moment until this server follows it."""
        name = self._find(request).name
        options = route_api.read_options(await request.body()) if request.method == "PUT" else None
        expected = route_api.expected_generation(request.headers.get("if-match"))
        change = Change(request.state.caller, expected, request.query_params.get("reason", ""))
        generation = await asyncio.to_thread(route_api.change, self._home, name, options, change)
        return self._route(name, await self._followed(name, generation, options))

    async def _followed(self, name: str, generation: int, options: RouteOptions | None) -> dict[str, Any]:
        """The members that say what became of a change."""
        until = time.monotonic() + FOLLOW_SECONDS
        while time.monotonic() < until:
            spec = self._current.catalog.route(name).spec
            if (options is None and spec is None) or (spec is not None and spec.generation >= generation):
                return {"followed": True}
            await asyncio.sleep(0.05)
        return {"followed": False}

    def _route(self, name: str, more: dict[str, Any]) -> Response:
        catalog, status = self._current.catalog, self._health.status
        body = {**route_api.describe(catalog, name, self._home), **more}
        if status is not None and name in status.failed:
            body["refused"] = status.failed[name]
        response = _json(body)
        if tag := route_api.entity_tag(catalog, name):
            response.headers["etag"] = tag
        return response

    async def openapi(self, request: Request) -> Response:
        catalog, port, root = self._current.catalog, request.state.port, request.state.root
        models = catalog.models()
        key = (root, *(f"{m.name}@{m.version}" for m in models))
        made_of, content = self._documents.get(port, ((), b""))
        if made_of != key:
            default = catalog.default(port)
            described = [_described(m, default=m.name == default) for m in models]
            document = openapi.document(
                described, title="Estiba", version=estiba.__version__, server_version=estiba.__version__
            )
            if root:
                document["servers"] = [{"url": root}]
            content = msgspec.json.encode(document)
            self._documents[port] = (key, content)
        return Response(content, media_type="application/json")

    async def page(self, request: Request) -> Response:
        form = self._pages.get(request.scope["path"].strip("/"), gzip=request.state.gzip)
        if form is None:
            raise HTTPException(404)
        response = Response(form.content, headers=form.headers)
        if value := request.state.strict_transport:
            response.headers["strict-transport-security"] = value
        return response

    async def docs(self, request: Request) -> Response:
        return RedirectResponse(_below_root(request, "docs", "../docs"))

    async def not_served(self, request: Request) -> Response:
        name, version = request.path_params.get("name"), request.path_params.get("version")
        known = ", ".join(model.name for model in self._current.catalog.models()) or "none"
        if name is None:
            raise NotFound(
                "This server has no default model.", hint=f"Send the request to /models/NAME/predict. Models: {known}."
            )
        model = self._find(request)
        raise NotFound(f"{name}@{version} is not served here.", hint=f"Being served: {name}@{model.version}.")

    async def favicon(self, request: Request) -> Response:
        return RedirectResponse(_below_root(request, "docs/favicon.svg"))

    def _about(self, model: Model, request: Request) -> dict[str, Any]:
        about = _about(model, default=model.name == self._current.catalog.default(request.state.port))
        status = self._health.status
        if status is not None and model.name in status.failed:
            about["refused"] = status.failed[model.name]
        return about

    def _find(self, request: Request) -> Model:
        return self._current.catalog.model(request.path_params["name"])


def _below_root(request: Request, path: str, relative: str = "") -> str:
    """The target of a redirect: absolute where the client's path of this server is known, else relative."""
    root = request.state.root
    return f"{root}/{path}" if root else relative or path


def _policy_detail(status: Status | None, own: str) -> dict[str, str]:
    details = [own] if own else []
    if status is not None and status.policy_error:
        details.append("The keys are not up to date, as their store cannot be read. The server's log says why.")
    if status is not None and status.certificate_error:
        details.append("A new certificate cannot be used, and the old one stays in force. The server's log says why.")
    return {"detail": " ".join(details)} if details else {}


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


_MAX_EXAMPLE_ELEMENTS = 64
"""Elements of the tensors of a golden record, and of its answer, that are shown as an example."""


def _shown(model: Model) -> tuple[Mapping[str, object], Mapping[str, object]]:
    """A golden record and the prediction for it; empty where tensors are too large to be shown."""
    if not isinstance(model, TensorModel):
        return model.example, model.predict([model.example])[0]
    record = model.golden_tensors.arrays()[0]
    answer = model.predict([record])[0]
    if sum(array.size for array in (*record.values(), *answer.values())) > _MAX_EXAMPLE_ELEMENTS:
        return {}, {}
    return model.example, {name: array.tolist() for name, array in answer.items()}


def _described(model: Model, *, default: bool) -> openapi.Described:
    example, answer = _shown(model)
    source = model.manifest.source
    return openapi.Described(
        name=model.name,
        version=model.version,
        signature=model.signature,
        example=example,
        answer=answer,
        description=model.manifest.description,
        default=default,
        simulated=bool(source and source.simulated),
    )


def _json(body: Any, status: int = 200, *, content_type: str = "application/json") -> Response:
    return Response(msgspec.json.encode(body), status, media_type=content_type)


def _problem(
    request: Request,
    status: int,
    detail: str,
    *,
    kind: str = "",
    headers: dict[str, str] | None = None,
    errors: Sequence[Problem] = (),
) -> Response:
    """An error response, with the body of the protocol that the path belongs to."""
    pairs, body = error_response(status, detail, kind=kind, request_id=request.state.request_id, errors=errors)
    common = {name.decode(): value.decode() for name, value in pairs}
    foreign = protocol_routes.error_body(request.scope["path"], status, detail)
    if foreign is not None:
        body, common["content-type"] = foreign, "application/json"
    return Response(body, status, headers={**common, **(headers or {})})


async def _http_error(request: Request, error: HTTPException) -> Response:
    detail = ""
    if error.status_code == 404:
        detail = f"There is nothing at {request.scope['path']}. /docs shows what this server has."
    elif error.status_code == 405:
        detail = f"{request.scope['path']} does not take {request.method}."
    return _problem(request, error.status_code, detail, headers=dict(error.headers or {}))


async def _estiba_error(request: Request, error: EstibaError) -> Response:
    text = f"{error.message} {error.hint}" if error.hint else error.message
    wrong = error.problems if isinstance(error, BadInput) else ()
    return _problem(request, error.status, text, headers=_error_headers(error), errors=wrong)


def _error_headers(error: EstibaError) -> dict[str, str]:
    if isinstance(error, (Unauthorized, Forbidden)) and error.challenge:
        return {"www-authenticate": error.challenge}
    return {"retry-after": str(error.retry_after)} if isinstance(error, TooManyRequests) else {}
