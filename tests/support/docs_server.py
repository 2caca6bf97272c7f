"""Serve the docs page over HTTP, with the OpenAPI document of three models and answers in the server's format."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
from described import RAW, described

from estiba.core.errors import BadInput
from estiba.model.coding.coder import Coder
from estiba.model.coding.predictions import Predictions
from estiba.serving.api.openapi import Described, document
from estiba.serving.pages import SECURITY_HEADERS, page

MODELS = {model.name: model for model in described()}


class Handler(BaseHTTPRequestHandler):
    """Serve everything below /portfolio, as behind a reverse proxy."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path = self.path.removeprefix("/portfolio/")
        found = page(path)
        if path == "openapi.json":
            shown = document(list(MODELS.values()), title="Portfolio", version="2026.11", server_version="0.1.0")
            self._send(200, json.dumps(shown).encode(), "application/json")
        elif found:
            self._send(200, *found)
        else:
            self._send(404, b"{}", "application/problem+json")

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        model = MODELS[self.path.split("/")[-2]]
        records = body.get("records", [body])
        try:
            answer = predict(model, records)
        except BadInput as error:
            errors = [{"pointer": p.pointer, "detail": p.detail} for p in error.problems]
            problem = {"title": "The input does not match the model's signature.", "status": 422, "errors": errors}
            self._send(422, json.dumps(problem).encode(), "application/problem+json")
        else:
            self._send(200, json.dumps(answer).encode(), "application/json")

    def _send(self, status: int, content: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(content)))
        for name, value in SECURITY_HEADERS.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing: tests read the browser's log."""


def predict(model: Described, records: list[dict[str, Any]]) -> dict[str, Any]:
    coded = Coder(model.signature).check(records)
    raw = np.tile(RAW[model.name], (len(records), 1))
    warnings = [{"code": w.code, "pointer": f"#/records/{w.row}/{w.field}"} for w in coded.warnings]
    predictions = Predictions(model.signature).rows(raw)
    about = {"id": "1", "model": model.name, "version": model.version}
    return {**about, "predictions": predictions, "warnings": warnings}


@contextmanager
def serving() -> Iterator[str]:
    """The address of the page's folder while the server runs."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/portfolio"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
