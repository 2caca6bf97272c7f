"""Ready means proved; health tells the truth; a taken port is explained; models are found or named."""

from __future__ import annotations

from typing import Any

import pytest

from estiba.core.errors import EstibaError
from estiba.serving.server import listen


def test_health_when_ready(http: Any) -> None:
    for path in ("/health", "/health/live", "/health/ready", "/health/startup", "/livez", "/readyz", "/healthz"):
        assert http.get(path).status_code == 200, path
        assert http.head(path).status_code == 200, path
    assert http.get("/health").json()["models"]["churn"] == {"version": "1", "status": "ready"}


def test_a_taken_port_is_explained() -> None:
    with listen("127.0.0.1", 0) as taken, pytest.raises(EstibaError) as found:
        listen("127.0.0.1", taken.getsockname()[1])
    assert "in use" in found.value.message
    assert "--port" in (found.value.hint or "")
