"""The normal quantile is as good as scipy's, also at the ends of a QuantileTransformer."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from conversion_cases import frame, target
from conversion_check import fields_of, run

from estiba.model.convert import convert
from estiba.model.convert.functions import normal_quantile
from estiba.model.convert.graph import Graph

pytestmark = pytest.mark.slow


def test_the_normal_quantile_is_that_of_scipy() -> None:
    from scipy.stats import norm

    rng, graph = np.random.default_rng(0), Graph(1)
    small = 10 ** rng.uniform(-10.5, 0, 50_000)
    shares = np.concatenate([rng.random(50_000), small, 1 - small[small > 1e-10], [0.075, 0.5, 0.925]])
    found = run(graph.model(normal_quantile(graph, "x"), 1), shares[:, None])[:, 0]
    assert found == pytest.approx(norm.ppf(shares), rel=2e-15, abs=1e-300)


def test_a_normal_distribution_at_and_beyond_its_ends() -> None:
    from sklearn.linear_model import Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import QuantileTransformer

    sample = frame("numbers", missing=False)[["a", "b"]]
    bend = QuantileTransformer(n_quantiles=50, output_distribution="normal")
    model = make_pipeline(bend, Ridge()).fit(sample, target(frame("numbers", missing=False), 0))
    made = convert(model, fields_of(sample, False, False), sample)
    quantiles = bend.quantiles_
    beside = [quantiles + step for step in (0, 1e-7, -1e-7, 9e-8, -9e-8, 1e-12, -1e-12)]
    probes = np.concatenate([*beside, np.nextafter(quantiles, np.inf), [[-1e9, 1e9], [1e300, -1e300]]])
    expected = model.predict(pd.DataFrame(probes, columns=["a", "b"]))
    assert run(made.onnx, probes)[:, 0] == pytest.approx(expected, rel=1e-12, abs=1e-12)
