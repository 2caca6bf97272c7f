"""Request predictions from the bankchurn model over HTTP."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import urllib3

MODEL = "bankchurn"
TIMEOUT = urllib3.Timeout(connect=2.0, read=10.0)
"""In seconds."""


class Unavailable(Exception):
    """The model server cannot be reached, or is not ready."""


class Churn:
    """A connection pool to the model server. Safe to share between threads."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self._pool = urllib3.PoolManager(maxsize=8, timeout=TIMEOUT, retries=urllib3.Retry(2, backoff_factor=0.1))

    def predict(self, customer: Any) -> tuple[int, dict[str, Any]]:
        """The status and body for a caller: the prediction for one customer, or the model server's error."""
        status, answer = self._ask("POST", f"/models/{MODEL}/predict", customer)
        if status != 200:
            return status, answer
        return 200, {**answer["predictions"][0], "model_version": answer["version"]}

    def ready(self) -> bool:
        try:
            return self._ask("GET", f"/models/{MODEL}")[0] == 200
        except Unavailable:
            return False

    def _ask(self, method: str, path: str, body: Any = None) -> tuple[int, dict[str, Any]]:
        try:
            answer = self._pool.request(method, self.url + path, json=body, headers=_key())
            found: dict[str, Any] = answer.json()
        except (urllib3.exceptions.HTTPError, ValueError) as error:
            raise Unavailable(f"The model server at {self.url} does not answer: {type(error).__name__}.") from None
        if answer.status >= 500:
            raise Unavailable(f"The model server at {self.url} says {answer.status}: {found.get('title', '')}")
        return int(answer.status), found


def _key() -> dict[str, str]:
    """The header with the API key in the file of $ESTIBA_KEY_FILE; empty without one."""
    file = os.environ.get("ESTIBA_KEY_FILE", "")
    return {"x-api-key": Path(file).read_text().strip()} if file else {}
