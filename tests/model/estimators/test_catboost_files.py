"""CatBoost's own format, also with text columns, which end the process that copies such a model."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import catboost
import numpy as np
import pandas as pd
import pytest

from estiba.core.errors import EstibaError
from estiba.model.estimators import catboost_files

pytestmark = pytest.mark.slow

SCRIPT = """
import json
import numpy as np
import pandas as pd
from catboost import CatBoostClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
import estiba

rng = np.random.default_rng(0)
words = lambda: " ".join(rng.choice(["red", "blue", "big", "old"], 3))
X = pd.DataFrame({"t": [words() for _ in range(300)], "v": rng.normal(size=300)})
y = (X.t.str.contains("red") & (X.v > 0)).astype(int)
options = {"iterations": 5, "verbose": 0, "thread_count": 1, "allow_writing_files": False}
model = CatBoostClassifier(text_features=["t"], **options).fit(X, y)
expected = model.predict_proba(X)[:, 1].tolist()
for name, packed in (("bare", model), ("piped", make_pipeline(FunctionTransformer(), model))):
    digests = {estiba.pack(packed, X, name=name, fields={"t": {"kind": "text"}}).artifact.digest for _ in range(2)}
    assert len(digests) == 1
    shown = estiba.load(name, trust=name == "piped").predict(X)
    assert [answer["probabilities"]["1"] for answer in shown] == expected
print("done")
"""


def test_a_model_with_text_is_packed_and_answers_as_itself(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=110
    )
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr
    assert done.stderr.splitlines()[1] == "engine: python"


CRASHES = "import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n"


def test_a_crash_of_the_library_ends_a_child_and_not_this_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = pd.DataFrame({"t": ["red big", "blue old"] * 20, "v": np.arange(40.0)})
    options = {"iterations": 2, "verbose": 0, "thread_count": 1, "allow_writing_files": False}
    model = catboost.CatBoostClassifier(text_features=["t"], **options).fit(rows, [0, 1] * 20)
    (tmp_path / "catboost.py").write_text(CRASHES)  # what the child imports instead of the library
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(EstibaError, match=r"CatBoost cannot write this model: the process .* was killed by SIGSEGV"):
        catboost_files.dump(model)
