"""Management routes of the Open Inference, KServe V1 and MLflow protocols: metadata, health, repository."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

import estiba
from estiba.core.errors import BadRequest, EstibaError, NotFound
from estiba.model.inference.load import Model
from estiba.serving.catalog import CurrentCatalog
from estiba.serving.protocols import mlflow, open_inference
from estiba.serving.protocols.body_parsing import parse_json
from estiba.serving.server_status import Health

Handler = Callable[[Request], Awaitable[Response]]
ANY = ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "QUERY")


class NotImplementedHere(EstibaError):
    status = 501


def routes(current: CurrentCatalog, health: Health) -> list[Route]:
    """The routes of these protocols except predictions, and prediction paths of models that are not served."""
    pages = _Pages(current, health)
    model, version = "/v2/models/{name}", "/v2/models/{name}/versions/{version}"
    gets: dict[str, Handler] = {
        "/v2": pages.server,
        "/v2/": pages.server,
        "/v2/health/live": pages.live,
        "/v2/health/ready": pages.ready,
        model: pages.model,
        version: pages.model,
        f"{model}/ready": pages.model_ready,
        f"{version}/ready": pages.model_ready,
        "/v1/models": pages.v1_models,
        "/v1/models/{name}": pages.v1_model,
        "/ping": pages.ping,
        "/version": pages.version,
    }
    posts: dict[str, Handler] = {
        "/v2/repository/index": pages.index,
        "/v2/repository/models/{name}/load": pages.managed,
        "/v2/repository/models/{name}/unload": pages.managed,
        "/v1/models/{name}:explain": pages.explain,
    }
    not_served = (f"{model}/infer", f"{version}/infer", "/v1/models/{name}:predict", "/invocations")
    return [
        *(Route(path, page, methods=["GET"]) for path, page in gets.items()),
        *(Route(path, page, methods=["POST"]) for path, page in posts.items()),
        *(Route(path, pages.not_served, methods=ANY) for path in not_served),
    ]


def error_body(path: str, status: int, message: str) -> bytes | None:
    """An error in the format of the protocol that the path belongs to; None for native paths."""
    if path == "/v2" or path.startswith(("/v2/", "/v1/")):
        return open_inference.error(message)
    return mlflow.error(status, message) if path in ("/invocations", "/ping", "/version") else None


class _Pages:
    def __init__(self, current: CurrentCatalog, health: Health) -> None:
        self._current = current
        self._health = health

    async def server(self, request: Request) -> Response:
        return _json(open_inference.server_metadata(estiba.__version__))

    async def live(self, request: Request) -> Response:
        status = self._health.status
        alive = status is None or not status.failing
        return _json({"live": alive}, 200 if alive else 503)

    async def ready(self, request: Request) -> Response:
        if self._health.state == "ready":
            return _json({"live": True, "ready": True})
        return _json({"live": True, "ready": False, "error": f"The server is {self._health.state}."}, 503)

    async def model(self, request: Request) -> Response:
        return _json(open_inference.model_metadata(self._find(request)))

    async def model_ready(self, request: Request) -> Response:
        model, state = self._find(request), self._health.state
        if state == "ready":
            return _json({"name": model.name, "ready": True})
        return _json({"name": model.name, "ready": False, "error": f"The server is {state}."}, 503)

    async def index(self, request: Request) -> Response:
        body = await request.body()
        query = parse_json(body) if body else {}
        only_ready = query.get("ready") if isinstance(query, dict) else ""
        if not isinstance(only_ready, bool | None):
            raise BadRequest('Expected an object: {"ready": true}, {"ready": false} or {}.')
        models, ready = self._current.catalog.models(), self._health.state == "ready"
        return _json(open_inference.repository_index(models, ready=ready, only_ready=only_ready is True))

    async def managed(self, request: Request) -> Response:
        raise NotImplementedHere(
            "This server does not load or unload models on a client's request.",
            hint="Push a version and move the alias in the registry; the server follows it.",
        )

    async def explain(self, request: Request) -> Response:
        name = self._find(request).name
        raise NotFound(f"This server does not explain predictions; ask /v1/models/{name}:predict.")

    async def v1_models(self, request: Request) -> Response:
        return _json({"models": [model.name for model in self._current.catalog.models()]})

    async def v1_model(self, request: Request) -> Response:
        model, is_ready = self._find(request), self._health.state == "ready"
        return _json({"name": model.name, "ready": is_ready}, 200 if is_ready else 503)

    async def ping(self, request: Request) -> Response:
        """The health check of MLflow's server and of SageMaker."""
        return Response(b"\n", 200 if self._health.state == "ready" else 503, media_type="application/json")

    async def version(self, request: Request) -> Response:
        return Response(estiba.__version__, media_type="text/plain; charset=utf-8")

    async def not_served(self, request: Request) -> Response:
        if "name" in request.path_params:
            self._find(request)
        raise NotFound(
            "This server has several models, and none of them is the default.",
            hint="Set default in [server], or name the model: /models/NAME/predict.",
        )

    def _find(self, request: Request) -> Model:
        name, version = request.path_params["name"], request.path_params.get("version")
        catalog = self._current.catalog
        model, versions = catalog.model(name), catalog.versions(name)
        if version is not None and version not in versions:
            raise NotFound(f"{name}@{version} is not served here.", hint=f"Being served: {', '.join(versions)}.")
        return model if version is None else versions[version]


def _json(body: Any, status: int = 200) -> Response:
    return Response(msgspec.json.encode(body), status, media_type="application/json")
