"""Growth with the number of levels or words: packing, artifact, loading and memory, each size in a fresh process.

    python bench/growth.py [--levels 500,5000,20000,200000] [--json FILE]

The model is a OneHotEncoder on one column of that many levels before a LogisticRegression.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

HELD_OUT = 2_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--levels", default="500,5000,20000,200000", help="sizes, separated by commas")
    parser.add_argument("--json", type=Path, help="write all figures to this file as well")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(_measure(options.one)))
        return
    measurements = [_in_a_process(int(size)) for size in options.levels.split(",")]
    print("| levels | artifact MB | pack s | memory of packing MB | load s | off scikit-learn by |")
    print("| ---: | ---: | ---: | ---: | ---: | ---: |")
    for f in measurements:
        print(
            f"| {f['levels']:,} | {f['artifact_mb']:.2f} | {f['pack_s']:.1f} | {f['memory_mb']:.0f} | "
            f"{f['load_s']:.3f} | {f['difference']:.1g} |"
        )
    if options.json:
        options.json.write_text(json.dumps(measurements, indent=1))


def _in_a_process(size: int) -> dict[str, Any]:
    done = subprocess.run([sys.executable, __file__, "--one", str(size)], check=True, capture_output=True, text=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _measure(levels: int) -> dict[str, Any]:
    import estiba

    sample, model = _fitted(levels)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["ESTIBA_REGISTRY"] = folder
        before, start = _peak_mb(), time.perf_counter()
        packed = estiba.pack(model, sample, name="growth", engine="onnx")
        packing, memory = time.perf_counter() - start, _peak_mb() - before
        start = time.perf_counter()
        loaded = estiba.load("growth")
        loading = time.perf_counter() - start
        asked = sample.sample(HELD_OUT, random_state=1, replace=True)
        got = np.array([list(p["probabilities"].values()) for p in loaded.predict(asked)])
        size = sum(f.stat().st_size for f in packed.artifact.path.rglob("*") if f.is_file())
    return {
        "levels": levels,
        "artifact_mb": size / 1e6,
        "pack_s": packing,
        "memory_mb": memory,
        "load_s": loading,
        "difference": float(np.abs(got - model.predict_proba(asked)).max()),
    }


def _fitted(levels: int) -> tuple[pd.DataFrame, Any]:
    from sklearn.compose import make_column_transformer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder

    rng = np.random.default_rng(0)
    rows = max(2 * levels, 5_000)
    codes = np.concatenate([np.arange(levels), rng.integers(0, levels, rows - levels)])
    sku = pd.Series([f"sku-{code:06d}" for code in codes], dtype=object)
    sample = pd.DataFrame({"sku": sku, "price": rng.normal(size=rows)})
    chance = 1 / (1 + np.exp(-(rng.normal(size=levels)[codes] + sample["price"])))
    columns = make_column_transformer((OneHotEncoder(handle_unknown="ignore"), ["sku"]), remainder="passthrough")
    return sample, make_pipeline(columns, LogisticRegression(max_iter=200)).fit(sample, rng.random(rows) < chance)


if __name__ == "__main__":
    main()
