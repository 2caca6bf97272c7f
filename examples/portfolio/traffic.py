"""Send a few requests a second to every model of a server, so that logs, metrics and dashboards have data.

python traffic.py http://127.0.0.1:8000
"""

from __future__ import annotations

import json
import os
import random
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

EACH_SECOND = 5.0
"""Requests per second to all models together."""

WRONG = 0.02
"""The share of requests with a field that no model has, which are shown as errors of the caller."""


def ask(url: str, body: Any = None) -> Any:
    """The JSON at a URL; a body makes it a POST."""
    data = None if body is None else json.dumps(body).encode()
    headers = {"content-type": "application/json", **key()}
    request = urllib.request.Request(url, data, headers)
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.load(answer)


def key() -> dict[str, str]:
    """The header with the API key in the file of $ESTIBA_KEY_FILE; empty without one."""
    file = os.environ.get("ESTIBA_KEY_FILE", "")
    return {"x-api-key": Path(file).read_text().strip()} if file else {}


def examples(server: str) -> dict[str, dict[str, Any]]:
    """By model, a record of its schema."""
    names = [model["name"] for model in ask(f"{server}/models")["models"]]
    return {name: example(ask(f"{server}/models/{name}/schema")) for name in names}


def example(schema: dict[str, Any]) -> dict[str, Any]:
    """A record for a schema, with the first example of each field that has one."""
    fields: dict[str, Any] = schema["properties"]
    return {name: field["examples"][0] for name, field in fields.items() if field.get("examples")}


def main(server: str) -> None:
    records = examples(server)
    print(f"asking {', '.join(records)} at {server}", flush=True)
    while True:
        name = random.choice(list(records))
        record = {**records[name], "no_such_field": 1} if random.random() < WRONG else records[name]
        try:
            ask(f"{server}/models/{name}/predict", {"records": [record]})
        except urllib.error.HTTPError as error:
            error.close()
        except OSError as error:
            print(f"{server} cannot be reached: {error}", flush=True)
            time.sleep(2)
        time.sleep(random.expovariate(EACH_SECOND))


if __name__ == "__main__":
    main(sys.argv[1].rstrip("/"))
