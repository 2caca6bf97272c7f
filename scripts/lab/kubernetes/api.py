"""Reads the cluster's API, as its administrator, for the two small servers of the laboratory."""

from __future__ import annotations

import json
import os
import ssl
import urllib.request
from pathlib import Path
from typing import Any


def keys() -> Path:
    return Path(os.environ["RUN"]) / "keys"


def get(path: str) -> dict[str, Any]:
    """Return the answer to GET of a path such as `/api/v1/pods`.

    Raises:
        OSError: the server refuses, with `.code`, or does not answer.
    """
    context = ssl.create_default_context(cafile=str(keys() / "authority.crt"))
    context.load_cert_chain(keys() / "admin.crt", keys() / "admin.key")
    with urllib.request.urlopen(os.environ["API"] + path, context=context, timeout=5) as answer:
        content: dict[str, Any] = json.load(answer)
        return content
