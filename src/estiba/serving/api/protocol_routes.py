"""Protocols: which paths of other people's protocols a server answers, and what they say beside predictions."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

import estiba
from estiba.core.errors import BadRequest, EstibaError, NotFound
from estiba.model.inference.load import Model
from estiba.serving.protocols import endpoint, kserve_v1, mlflow, open_inference
from estiba.serving.protocols.body_parsing import parse_json
from estiba.serving.protocols.endpoint import Served

if TYPE_CHECKING:
    from estiba.serving.server import Server

Handler = Callable[[Request], Awaitable[Response]]
ANY = ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


class NotImplementedHere(EstibaError):
    status = 501


def endpoints(served: Served) -> dict[str, endpoint.Endpoint]:
    """One version of a model behind every protocol but the native one, by the protocol's label in metrics."""
    made = (open_inference.Endpoint(served), mlflow.Endpoint(served), kserve_v1.Endpoint(served))
    return {each.protocol: each for each in made}


def hot_paths(name: str, version: str, *, is_current: bool, is_default: bool) -> dict[bytes, str]:
    """The prediction paths of one version of a model, each with its protocol."""
    paths = {f"/v2/models/{name}/versions/{version}/infer": "v2"}
    if is_current:
        paths |= {f"/v2/models/{name}/infer": "v2", f"/v1/models/{name}:predict": "v1"}
    if is_default:
        paths["/invocations"] = "mlflow"
    return {path.encode(): protocol for path, protocol in paths.items()}


def routes(server: Server) -> list[Route]:
    """Everything of these protocols that is no prediction, and predictions of models that are not here."""
    pages = _Pages(server)
    one, version = "/v2/models/{name}", "/v2/models/{name}/versions/{version}"
    gets: dict[str, Handler] = {
        "/v2": pages.server,
        "/v2/": pages.server,
        "/v2/health/live": pages.live,
        "/v2/health/ready": pages.ready,
        one: pages.model,
        version: pages.model,
        f"{one}/ready": pages.model_ready,
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
    }
    lost = (f"{one}/infer", f"{version}/infer", "/v1/models/{name}:predict", "/invocations")
    return [
        *(Route(path, page, methods=["GET"]) for path, page in gets.items()),
        *(Route(path, page, methods=["POST"]) for path, page in posts.items()),
        *(Route(path, pages.lost, methods=ANY) for path in lost),
    ]


def error_body(path: str, status: int, message: str) -> bytes | None:
    """An error as the protocol that owns the path says it; None for paths that are our own."""
    if path == "/v2" or path.startswith(("/v2/", "/v1/")):
        return open_inference.error(message)
    return mlflow.error(status, message) if path in ("/invocations", "/ping", "/version") else None


class _Pages:
    def __init__(self, server: Server) -> None:
        self._server = server

    async def server(self, request: Request) -> Response:
        return _json(open_inference.server_metadata(estiba.__version__))

    async def live(self, request: Request) -> Response:
        status = self._server.status
        alive = status is None or not status.failing
        return _json({"live": alive}, 200 if alive else 503)

    async def ready(self, request: Request) -> Response:
        if self._server.state == "ready":
            return _json({"live": True, "ready": True})
        return _json({"live": True, "ready": False, "error": f"The server is {self._server.state}."}, 503)

    async def model(self, request: Request) -> Response:
        return _json(open_inference.model_metadata(self._find(request)))

    async def model_ready(self, request: Request) -> Response:
        model, state = self._find(request), self._server.state
        if state == "ready":
            return _json({"name": model.name, "ready": True})
        return _json({"name": model.name, "ready": False, "error": f"The server is {state}."}, 503)

    async def index(self, request: Request) -> Response:
        body = await request.body()
        said = parse_json(body) if body else {}
        if not isinstance(said, dict) or not isinstance(said.get("ready", False), bool):
            raise BadRequest('Expected an object: {"ready": true}, {"ready": false} or {}.')
        return _json(open_inference.repository_index(self._server, said.get("ready", False)))

    async def managed(self, request: Request) -> Response:
        raise NotImplementedHere(
            "This server does not load or unload models at a client's word.",
            hint="Push a version and move the alias in the registry; the server takes it up.",
        )

    async def v1_models(self, request: Request) -> Response:
        return _json({"models": [model.name for model in self._server.models()]})

    async def v1_model(self, request: Request) -> Response:
        model, is_ready = self._find(request), self._server.state == "ready"
        return _json({"name": model.name, "ready": is_ready}, 200 if is_ready else 503)

    async def ping(self, request: Request) -> Response:
        """What MLflow's own server says, and what SageMaker asks every few seconds."""
        return Response(b"\n", 200 if self._server.state == "ready" else 503, media_type="application/json")

    async def version(self, request: Request) -> Response:
        return Response(estiba.__version__, media_type="text/plain; charset=utf-8")

    async def lost(self, request: Request) -> Response:
        if "name" in request.path_params:
            self._find(request)
        raise NotFound(
            "This server has several models, and none of them is the default.",
            hint="Set [server] default, or ask a model by its name: /models/NAME/predict.",
        )

    def _find(self, request: Request) -> Model:
        name, version = request.path_params["name"], request.path_params.get("version")
        model = self._server.current(name).model
        versions = self._server.endpoints[name]
        if version is not None and version not in versions:
            raise NotFound(f"{name}@{version} is not served here.", hint=f"Being served: {', '.join(versions)}.")
        return model if version is None else versions[version].model


def _json(body: Any, status: int = 200) -> Response:
    return Response(msgspec.json.encode(body), status, media_type="application/json")
