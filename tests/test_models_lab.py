"""Drawn models answer as their originals do, and the standing lab sees where one does not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.slow

MODELS = 20
"""Seeds of a run in CI, a minute; `python scripts/models.py --hours 3` takes more."""


@pytest.fixture
def lab(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(Path(__file__).parent.parent / "scripts"))
    import models

    return models


@pytest.mark.timeout(600)
def test_models_drawn_at_random_answer_as_their_originals(lab: Any) -> None:
    results = [result for seed in range(1, MODELS + 1) if (result := lab.examine(seed, rows=20)) is not None]
    assert [(r.seed, r.fault) for r in results if r.fault] == []
    assert sum(r.engine == "onnx" for r in results) > MODELS // 4
    assert sum(r.rows for r in results) > 20 * MODELS
    page = lab.page(results, 0.0, 1, MODELS)
    assert f"**{len(results)} models**" in page
    assert "**0 faults**" in page


@pytest.mark.parametrize("kind", ["classifiers", "regressors", "unsupervised", "scalers", "imputers", "encoders"])
def test_everything_that_can_be_drawn_can_be_made(kind: str) -> None:
    import models_made

    options = getattr(models_made, kind)()
    assert all(make() is not None for make in options.values())


@pytest.mark.parametrize(
    ("own", "answer", "fault"),
    [
        (("a", np.array([0.6, 0.4])), {"label": "a", "probabilities": {"a": 0.6, "b": 0.4}}, ""),
        (("a", np.array([0.6, 0.4])), {"label": "b", "probabilities": {"a": 0.6, "b": 0.4}}, "the label is 'b'"),
        (("a", np.array([0.6, 0.4])), {"label": "a", "probabilities": {"a": 0.6001, "b": 0.4}}, "answers 0.6001"),
        ((2.0, None), {"value": 2.0}, ""),
        ((2.0, None), {"value": None}, "answers None"),
        ((float("inf"), None), {"value": None}, ""),
    ],
)
def test_the_lab_sees_an_answer_that_differs(own: Any, answer: Any, fault: str) -> None:
    from models_check import Result, _one

    result = Result(1, "data", "", "Ridge", "", "")
    _one(result, 0, own, answer)
    assert result.fault.startswith("row 0: " + fault if fault else "")
    assert bool(result.fault) == bool(fault)
