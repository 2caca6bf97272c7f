"""Answer single texts with Estiba and with scikit-learn's own pipeline, from the bytes of a request to an answer's.

    python bench/texts.py [--seconds 3] [--rounds 3] [--json FILE]

The texts are paragraphs of the docstrings of installed libraries, and the models say which library one is from. Half of
the paragraphs are for training, thousands of others are compared with scikit-learn's predict_proba. Both sides are in
one process and take turns, on one thread; no HTTP.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import msgspec
import numpy as np

LIBRARIES = ("numpy", "pandas")
MAX_PARAGRAPHS = 3_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each turn")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="write all figures to this file as well")
    options = parser.parse_args()
    texts, labels = paragraphs()
    print(f"{len(texts):,} paragraphs, {np.mean([len(t) for t in texts]):.0f} characters on average\n", flush=True)
    print("| model | terms | artifact MB | load ms | scikit-learn /s | Estiba /s | ratio | held out | off by |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    measurements = []
    for name, model in models().items():
        m = measure(name, model, texts, labels, options.seconds / 2, options.rounds)
        measurements.append(m)
        print(
            f"| {name} | {m['terms']:,} | {m['artifact_mb']:.1f} | {m['load_ms']:.0f} | {m['sklearn']:,.0f} | "
            f"{m['estiba']:,.0f} | {m['ratio']:.0f}x | {m['held_out']:,} | {m['difference']:.1g} |"
        )
    if options.json:
        options.json.write_text(json.dumps(measurements, indent=1))


def models() -> dict[str, Any]:
    from sklearn.feature_extraction.text import CountVectorizer, HashingVectorizer, TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.naive_bayes import ComplementNB
    from sklearn.pipeline import make_pipeline

    pairs = TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True)
    characters = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4), min_df=3)
    return {
        "words, TF-IDF, logistic regression": make_pipeline(TfidfVectorizer(), LogisticRegression(max_iter=300)),
        "words and pairs, TF-IDF, logistic regression": make_pipeline(pairs, LogisticRegression(max_iter=300)),
        "counts, complement naive Bayes": make_pipeline(CountVectorizer(stop_words="english"), ComplementNB()),
        "characters, TF-IDF, logistic regression": make_pipeline(characters, LogisticRegression(max_iter=300)),
        "hashed words, logistic regression": make_pipeline(
            HashingVectorizer(n_features=2**18), LogisticRegression(max_iter=300)
        ),
    }


def paragraphs() -> tuple[list[str], list[str]]:
    """Paragraphs of docstrings, shuffled, and the library of each."""
    known = sorted({(text, library) for library in LIBRARIES for text in _of_library(library)})
    rng = np.random.default_rng(0)
    chosen = [known[i] for i in rng.permutation(len(known))[: 2 * MAX_PARAGRAPHS]]
    return [text for text, _ in chosen], [library for _, library in chosen]


def _of_library(library: str) -> Iterator[str]:
    import importlib.util

    spec = importlib.util.find_spec(library)
    assert spec is not None
    assert spec.origin is not None
    for path in sorted(Path(spec.origin).parent.rglob("*.py")):
        if "tests" in path.parts:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Module):
                docstring = ast.get_docstring(node) or ""
                yield from (p.strip() for p in docstring.split("\n\n") if 60 < len(p) < 1_000)


def measure(name: str, model: Any, texts: list[str], labels: list[str], seconds: float, rounds: int) -> dict[str, Any]:
    import estiba

    half = len(texts) // 2
    model.fit(texts[:half], labels[:half])
    asked = texts[half:]
    with tempfile.TemporaryDirectory() as folder:
        os.environ["ESTIBA_REGISTRY"] = folder
        packed = estiba.pack(model, texts[:half], name="texts", engine="onnx")
        size = sum(f.stat().st_size for f in packed.artifact.path.rglob("*") if f.is_file())
        start = time.perf_counter()
        loaded = estiba.load("texts", threads=1)
        loading = time.perf_counter() - start
        got = np.array([list(p["probabilities"].values()) for p in loaded.predict(asked)])
    sides = {"sklearn": _sklearn(model), "estiba": _estiba(loaded)}
    bodies = [json.dumps({"text": text}).encode() for text in asked[:500]]
    rates: dict[str, list[float]] = {side: [] for side in sides}
    for _ in range(rounds):
        for side, answer in sides.items():
            rates[side].append(_rate(answer, bodies, seconds))
    first = model.steps[0][1]
    return {
        "model": name,
        "terms": len(getattr(first, "vocabulary_", ())) or first.n_features,
        "artifact_mb": size / 1e6,
        "load_ms": loading * 1e3,
        **{side: median(values) for side, values in rates.items()},
        "ratio": median(b / a for a, b in zip(rates["sklearn"], rates["estiba"], strict=True)),
        "held_out": len(asked),
        "difference": float(np.abs(got - model.predict_proba(asked)).max()),
    }


def _sklearn(model: Any) -> Callable[[bytes], bytes]:
    classes = model.classes_.tolist()

    def answer(body: bytes) -> bytes:
        shares = model.predict_proba([json.loads(body)["text"]])[0].tolist()
        label = classes[int(np.argmax(shares))]
        return json.dumps({"label": label, "probabilities": dict(zip(classes, shares, strict=True))}).encode()

    return answer


def _estiba(loaded: Any) -> Callable[[bytes], bytes]:
    decoder, encoder = msgspec.json.Decoder(loaded.coder.record), msgspec.json.Encoder()

    def answer(body: bytes) -> bytes:
        coded = loaded.coder.pack([decoder.decode(body)])
        return encoder.encode(loaded.predictions.rows(loaded.answer(coded))[0])

    return answer


def _rate(answer: Callable[[bytes], bytes], bodies: list[bytes], seconds: float) -> float:
    """Answers per second."""
    for body in bodies[:20]:
        answer(body)
    count, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        for body in bodies[:50]:
            answer(body)
        count += 50
    return count / (time.perf_counter() - start)


if __name__ == "__main__":
    main()
