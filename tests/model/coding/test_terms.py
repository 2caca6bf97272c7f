"""Terms are counted as scikit-learn's own analyzers count them, in the kernel and in Python."""

from __future__ import annotations

import threading
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.feature_extraction.text import CountVectorizer, HashingVectorizer, TfidfVectorizer
from sklearn.utils.murmurhash import murmurhash3_32

from estiba.core.errors import BadArtifact, BadInput
from estiba.model.coding import terms as terms_module
from estiba.model.coding.kernel import compiled
from estiba.model.coding.terms import Step, TermColumns, Terms, decode, encode, murmur
from estiba.model.convert.columns import Cell, Columns, TermBlock, Text
from estiba.model.convert.texts import vectorize

TRAINING = [
    "Niño café Straße ISTANBUL the quick brown fox",
    "cafe\u0301 nin\u0303o strasse istanbul over the lazy dog",
    "😀 👍🏽 emoji x_y U.S.A. don't 42 ١٢٣ ²",
    "日本語 テキスト 한국어 العربية हिन्दी",
    "a b c  two  spaces\ttab\nline",
]

VECTORIZERS: dict[str, Any] = {
    "words": CountVectorizer(),
    "of one character too": CountVectorizer(token_pattern=r"(?u)\b\w+\b", lowercase=False),
    "pairs, no accents": TfidfVectorizer(ngram_range=(1, 2), strip_accents="unicode", sublinear_tf=True),
    "stop words": TfidfVectorizer(ngram_range=(2, 3), stop_words=["the", "over"], strip_accents="ascii"),
    "characters": TfidfVectorizer(analyzer="char", ngram_range=(1, 3), norm="l1"),
    "characters in words": TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4), norm=None),
    "longer than words": CountVectorizer(analyzer="char_wb", ngram_range=(4, 7)),
    "another pattern": CountVectorizer(token_pattern=r"(?i)[a-z]+|[^\w\s]", ngram_range=(1, 2)),
    "a group": CountVectorizer(token_pattern=r"\b(\w)\w*\b", binary=True),
    "own vocabulary": TfidfVectorizer(vocabulary=["the", "niño", "quick brown", "😀"], ngram_range=(1, 2)),
    "hashed": HashingVectorizer(n_features=64),
    "hashed, unsigned": HashingVectorizer(n_features=64, alternate_sign=False, norm=None, analyzer="char_wb"),
    "hashed, binary": HashingVectorizer(n_features=16, binary=True, ngram_range=(1, 2)),
}


def counted(name: str) -> tuple[Any, Terms]:
    """A fitted vectorizer, and its terms with the identity as weights."""
    import pandas as pd

    vectorizer = VECTORIZERS[name].fit(TRAINING)
    sample = pd.Series(TRAINING)
    cell = vectorize(vectorizer, Columns((Text("t"),), sample)).columns[0]
    assert isinstance(cell, Cell)
    assert isinstance(cell.block, TermBlock)
    width = cell.block.width
    weights = np.eye(width).tobytes()
    return vectorizer, msgspec.structs.replace(cell.block.terms, weights=weights, columns=tuple(range(width)))


def filled(terms: Terms, texts: list[str]) -> np.ndarray:
    columns = TermColumns(decode(encode([terms])))
    matrix = np.full((len(texts), columns.width), np.nan)
    columns.fill({"t": list(texts)}, matrix)
    return matrix


@pytest.mark.slow
@pytest.mark.parametrize("name", VECTORIZERS)
@pytest.mark.parametrize("kernel", [True, False], ids=["kernel", "python"])
def test_any_text_is_counted_as_by_scikit_learn(name: str, kernel: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if kernel and compiled() is None:
        pytest.skip("there is no kernel here")
    if not kernel:
        monkeypatch.setattr(terms_module, "compiled", lambda: None)
    vectorizer, terms = counted(name)
    columns = TermColumns([terms])
    words = st.sampled_from([*" ".join(TRAINING).split(), " ", "  ", "\x00", "\x1c", "\u0301", "İ", "ẞ", "\u2003"])

    @given(st.lists(st.one_of(words, st.text(max_size=8)), max_size=12).map(" ".join))
    @settings(max_examples=60, deadline=None)
    def check(text: str) -> None:
        matrix = np.full((1, columns.width), np.nan)
        columns.fill({"t": [text]}, matrix)
        np.testing.assert_allclose(matrix, vectorizer.transform([text]).toarray(), rtol=0, atol=1e-15)

    check()


@given(st.binary(max_size=40))
def test_the_hash_is_scikit_learns(content: bytes) -> None:
    assert murmur(content) == murmurhash3_32(content, seed=0)


def test_a_long_text_and_one_with_half_a_character() -> None:
    vectorizer, terms = counted("characters in words")
    texts = ["niño " * 20_000, "x" * 50_000, "nin\ud800o caf\udfff"]
    np.testing.assert_allclose(filled(terms, texts), vectorizer.transform(texts).toarray(), rtol=0, atol=1e-15)


def test_a_missing_text_is_named() -> None:
    terms = counted("words")[1]
    columns = TermColumns([terms])
    with pytest.raises(BadInput, match="#/records/1/t: may not be missing"):
        columns.fill({"t": ["a", None]}, np.empty((2, columns.width)))


def test_threads_do_not_disturb_each_other() -> None:
    vectorizer, terms = counted("another pattern")
    columns, texts = TermColumns([terms]), [*TRAINING * 40]
    expected = vectorizer.transform(texts).toarray()
    wrong: list[int] = []

    def work() -> None:
        for _ in range(10):
            matrix = np.empty((len(texts), columns.width))
            columns.fill({"t": list(texts)}, matrix)
            wrong.append(int((matrix != expected).sum()))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == [0] * 40


@pytest.mark.parametrize(
    "broken",
    [
        {"weights": b"12345678"},
        {"columns": (0,)},
        {"ngrams": (3, 2)},
        {"steps": (Step("scale", b"12345678"),)},
        {"starts": np.asarray([0, 9], np.int32).tobytes()},
        {"steps": (Step("select", np.asarray([7] * 26, np.int32).tobytes()),)},
    ],
)
@pytest.mark.skipif(compiled() is None, reason="there is no kernel here")
def test_terms_that_do_not_fit_together_are_refused(broken: dict[str, Any]) -> None:
    terms = msgspec.structs.replace(counted("words")[1], **broken)
    with pytest.raises(BadArtifact, match="do not fit together"):
        TermColumns([terms])


def test_terms_that_leave_out_a_column_are_refused() -> None:
    terms = counted("words")[1]
    moved = msgspec.structs.replace(terms, columns=tuple(column + 1 for column in terms.columns))
    with pytest.raises(BadArtifact, match="leave out columns"):
        TermColumns([moved])


@pytest.mark.skipif(compiled() is None, reason="there is no kernel here")
def test_the_kernel_changes_no_object_of_python() -> None:
    filled(counted("words")[1], ["A", "", "Z"])
    assert [bytes([byte]) for byte in range(65, 91)] == [chr(byte).encode() for byte in range(65, 91)]
    assert bytes([65]).lower() == b"a" != bytes([65])
