"""Compute weighted sums of a text's terms, its words or n-grams, exactly as scikit-learn's vectorizers count them.

Text has no coded form. A graph that reads text has a second input `t`, float64 (rows, width), and the artifact says how
each of its columns is computed from a text field: terms are counted, counts are changed step by step, and the result,
a sparse row, is multiplied with a matrix of weights, from the first term on.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt

from estiba.core.errors import BadArtifact, BadInput, Problem
from estiba.core.suggest import shortened
from estiba.model.coding.kernel import compiled
from estiba.model.schema.json_pointer import pointer

Matrix = npt.NDArray[np.float64]

METADATA_KEY = "estiba.terms"
"""Name of the graph's metadata that holds its terms as JSON."""

TOKEN_PATTERN = r"(?u)\b\w\w+\b"
"""scikit-learn's default: words of two characters or more."""

_SHORTEST = {TOKEN_PATTERN: 2, r"\b\w\w+\b": 2, r"(?u)\b\w+\b": 1, r"\b\w+\b": 1, r"\w+": 1, r"(?u)\w+": 1}
"""Patterns that find runs of word characters, with the fewest characters; others are left to Python's `re`."""

StepKind = Literal["logarithm", "scale", "l1", "l2", "largest", "above", "select", "ones"]
_STEPS = ("logarithm", "scale", "l1", "l2", "largest", "above", "select", "ones")
_ANALYZERS = ("word", "char", "char_wb")


class Step(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """A change of the values of all terms that a text has.

    - `logarithm`: 1 + log(value); `ones`: 1; `above`: 1 where the value is above the one number, else 0.
    - `scale`: times the number of the term. `l1`, `l2`, `largest`: divided by that norm of the row, unless it is 0.
    - `select`: only some terms are left; `numbers` has, as int32, the new position of each term or -1.

    Args:
        numbers: float64, or int32 for `select`.
    """

    kind: StepKind
    numbers: bytes = b""


class Terms(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """The computation of some columns of `t` from one text field.

    Args:
        field: name of the text field.
        analyzer: of words, of characters, or of characters inside of words (`char_wb`).
        accents: which of scikit-learn's two ways to strip accents.
        pattern: regular expression of a token, for words.
        ngrams: fewest and most neighbours that form a term.
        stop_words: tokens that are left out.
        vocabulary: terms in the order of their positions; empty where `hashed` is set.
        hashed: number of positions that the hash of a term is one of (HashingVectorizer).
        signed: hashed terms count -1 where the hash is negative.
        weights: float64 (terms, len(columns)); or with `starts` and `targets` the rows of a sparse matrix, int32.
        columns: of `t`, that the sums are written to.
    """

    field: str
    analyzer: Literal["word", "char", "char_wb"] = "word"
    lowercase: bool = True
    accents: Literal["", "ascii", "unicode"] = ""
    pattern: str = TOKEN_PATTERN
    ngrams: tuple[int, int] = (1, 1)
    stop_words: tuple[str, ...] = ()
    vocabulary: tuple[str, ...] = ()
    hashed: int = 0
    signed: bool = False
    steps: tuple[Step, ...] = ()
    starts: bytes = b""
    targets: bytes = b""
    weights: bytes = b""
    columns: tuple[int, ...] = ()


def encode(terms: Sequence[Terms]) -> str:
    """Write terms as JSON, for the graph's metadata."""
    return msgspec.json.encode(list(terms)).decode()


def decode(content: str) -> tuple[Terms, ...]:
    """Read terms from the graph's metadata; raises BadArtifact where they are none."""
    try:
        described = msgspec.json.decode(content, type=tuple[Terms, ...])
        for terms in described:
            re.compile(terms.pattern)
        return described
    except (msgspec.MsgspecError, re.error, RecursionError, OverflowError) as error:
        raise BadArtifact(
            f"The graph's description of its text features cannot be read: {shortened(str(error))}"
        ) from error


class TermColumns:
    """The columns of `t`; safe to share between threads.

    Args:
        first_column: columns that stand before those of `t` in a matrix to fill.
    """

    def __init__(self, terms: Sequence[Terms], *, first_column: int = 0) -> None:
        columns = {column for each in terms for column in each.columns}
        self.width = len(columns)
        if columns != set(range(self.width)):  # one that nothing writes to would show what was in memory before
            raise BadArtifact(f"The graph's text features leave out columns; they are {sorted(columns)[:20]}.")
        kernel = compiled()
        self._fillers = tuple((t.field, _filler(_moved(t, first_column), kernel)) for t in terms)

    def fill(self, texts: dict[str, list[str | None]], into: Matrix) -> None:
        """Compute the columns of rows into a C-contiguous matrix.

        Raises:
            BadInput: a text is missing.
        """
        for field, fill in self._fillers:
            try:
                fill(texts[field], into, into.shape[1])
            except TypeError:
                raise _missing(field, texts[field]) from None


def _moved(terms: Terms, by: int) -> Terms:
    return msgspec.structs.replace(terms, columns=tuple(column + by for column in terms.columns)) if by else terms


def _missing(field: str, texts: Sequence[str | None]) -> Exception:
    rows = [i for i, text in enumerate(texts) if not isinstance(text, str)]
    return BadInput([Problem(pointer(i, field), "may not be missing; expected a string") for i in rows[:100]])


def _filler(terms: Terms, kernel: Any) -> Callable[[list[str | None], Matrix, int], None]:
    try:
        return kernel.Terms(_parts(terms)).fill if kernel is not None else _Counted(terms).fill
    except ValueError as error:
        raise BadArtifact(f"The text features of {terms.field!r} do not fit together: {error}") from error


def _parts(terms: Terms) -> tuple[Any, ...]:
    """The arguments of the kernel's `Terms`."""
    given = terms.analyzer == "word" and terms.pattern not in _SHORTEST
    shaped = _prepared(terms)
    return (
        3 if given else _ANALYZERS.index(terms.analyzer),
        *terms.ngrams,
        _SHORTEST.get(terms.pattern, 1),
        int(terms.lowercase),
        shaped if terms.lowercase or terms.accents else None,
        _tokens(terms) if given else None,
        *_listed(terms.stop_words),
        *_listed(terms.vocabulary),
        terms.hashed,
        int(terms.signed),
        tuple((_STEPS.index(step.kind), step.numbers) for step in terms.steps),
        terms.starts,
        terms.targets,
        terms.weights,
        np.asarray(terms.columns, np.int32).tobytes(),
    )


def _listed(words: Sequence[str]) -> tuple[bytes, bytes]:
    """Words one after the other, and where each starts."""
    encoded = [word.encode("utf-8", "surrogatepass") for word in words]
    starts = np.asarray([0, *accumulate(map(len, encoded))], np.int32)
    return b"".join(encoded), starts.tobytes()


def _prepared(terms: Terms) -> Callable[[str], str]:
    """A function that lower-cases a text and strips its accents, as scikit-learn does."""

    def prepare(text: str) -> str:
        text = text.lower() if terms.lowercase else text
        if terms.accents == "ascii":
            return unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode("ascii")
        if terms.accents == "unicode" and not text.isascii():
            return "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
        return text

    return prepare


def _tokens(terms: Terms) -> Callable[[str], list[str]]:
    prepare, found = _prepared(terms), re.compile(terms.pattern)
    return lambda text: found.findall(prepare(text))


class _Counted:
    """The same in Python, for installations without the kernel."""

    def __init__(self, terms: Terms) -> None:
        self._terms = terms
        self._analyze = _analyzer(terms)
        self._places = {term: i for i, term in enumerate(terms.vocabulary)}
        weights = np.frombuffer(terms.weights, np.float64)
        self._sparse = bool(terms.starts)
        self._starts, self._targets = (np.frombuffer(b, np.int32) for b in (terms.starts, terms.targets))
        self._weights = weights if self._sparse else weights.reshape(-1, max(1, len(terms.columns)))
        self._columns = np.asarray(terms.columns, np.int64)

    def fill(self, texts: list[str | None], into: Matrix, columns: int) -> None:
        for row, text in enumerate(texts):
            if not isinstance(text, str):
                raise TypeError("a text is missing")
            ids, values = self._row(text)
            total = np.zeros(len(self._columns))
            for i, value in zip(ids.tolist(), values.tolist(), strict=True):
                if self._sparse:
                    part = slice(self._starts[i], self._starts[i + 1])
                    total[self._targets[part]] += value * self._weights[part]
                else:
                    total += value * self._weights[i]
            into[row, self._columns] = total

    def _row(self, text: str) -> tuple[npt.NDArray[np.int64], Matrix]:
        """Positions of the terms of a text, rising, and their values."""
        counts: dict[int, float] = {}
        for term in self._analyze(text):
            if self._terms.hashed:
                position, value = _hashed(term, self._terms.hashed, self._terms.signed)
                counts[position] = counts.get(position, 0.0) + value
            elif term in self._places:
                position = self._places[term]
                counts[position] = counts.get(position, 0.0) + 1.0
        ids = np.asarray(sorted(counts), np.int64)
        values = np.asarray([counts[i] for i in ids.tolist()])
        for step in self._terms.steps:
            ids, values = _changed(step, ids, values)
        return ids, values


def _changed(step: Step, ids: npt.NDArray[np.int64], values: Matrix) -> tuple[npt.NDArray[np.int64], Matrix]:
    match step.kind:
        case "logarithm":
            with np.errstate(all="ignore"):
                return ids, np.log(values) + 1.0
        case "scale":
            return ids, values * np.frombuffer(step.numbers, np.float64)[ids]
        case "above":
            return ids, (values > np.frombuffer(step.numbers, np.float64)[0]).astype(np.float64)
        case "ones":
            return ids, np.ones(len(values))
        case "select":
            places = np.frombuffer(step.numbers, np.int32)[ids]
            return places[places >= 0].astype(np.int64), values[places >= 0]
    squares = {"l1": np.abs(values), "l2": values * values, "largest": np.abs(values)}[step.kind]
    size = float(squares.max(initial=0.0)) if step.kind == "largest" else float(sum(squares.tolist()))
    size = float(np.sqrt(size)) if step.kind == "l2" else size
    return ids, values / size if size else values


def _analyzer(terms: Terms) -> Callable[[str], list[str]]:
    low, high = terms.ngrams
    prepare = _prepared(terms)
    if terms.analyzer == "word":
        tokens, stop = _tokens(terms), frozenset(terms.stop_words)
        return lambda text: _runs([token for token in tokens(text) if token not in stop], low, high, " ")
    spaces = re.compile(r"\s\s+")
    if terms.analyzer == "char":
        return lambda text: _runs(list(spaces.sub(" ", prepare(text))), low, high, "")

    def bounded(text: str) -> list[str]:
        found: list[str] = []
        for word in spaces.sub(" ", prepare(text)).split():
            padded = f" {word} "
            found += [padded] if low > len(padded) else _runs(list(padded), low, high, "")
        return found

    return bounded


def _runs(pieces: list[str], low: int, high: int, between: str) -> list[str]:
    return [
        between.join(pieces[i : i + n])
        for n in range(low, min(high, len(pieces)) + 1)
        for i in range(len(pieces) - n + 1)
    ]


def _hashed(term: str, size: int, signed: bool) -> tuple[int, float]:
    """The position of a term by its hash, and what it counts."""
    number = murmur(term.encode("utf-8", "surrogatepass"))
    place = (2**31 - size) % size if number == -(2**31) else abs(number) % size
    return place, -1.0 if signed and number < 0 else 1.0


def murmur(content: bytes) -> int:
    """MurmurHash3 for 32 bits with the seed 0 (Austin Appleby, public domain), signed."""
    mask = 0xFFFFFFFF
    total = 0
    for start in range(0, len(content), 4):
        part = int.from_bytes(content[start : start + 4], "little") * 0xCC9E2D51 & mask
        part = (part << 15 | part >> 17) * 0x1B873593 & mask
        total ^= part
        if start + 4 <= len(content):
            total = (total << 13 | total >> 19) & mask
            total = total * 5 + 0xE6546B64 & mask
    total ^= len(content)
    total = (total ^ total >> 16) * 0x85EBCA6B & mask
    total = (total ^ total >> 13) * 0xC2B2AE35 & mask
    total ^= total >> 16
    return total - 2**32 if total >= 2**31 else total
