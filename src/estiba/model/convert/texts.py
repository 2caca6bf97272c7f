"""Convert text vectorizers. The artifact describes what they count, and their columns stay sparse."""

from __future__ import annotations

import re
from typing import Any

import msgspec
import numpy as np

from estiba.model.coding.terms import Step, Terms
from estiba.model.convert.columns import Cell, Columns, NotConvertible, TermBlock, Text
from estiba.model.convert.context import unsupported
from estiba.model.convert.sparse import kept


def vectorize(vectorizer: Any, columns: Columns) -> Columns:
    """A CountVectorizer, TfidfVectorizer or HashingVectorizer on one text field.

    Raises:
        NotConvertible: it calls functions of the user's own, or does not read a field of the signature.
    """
    name = type(vectorizer).__name__
    if len(columns) != 1 or not isinstance(columns.columns[0], Text):
        raise unsupported(vectorizer, "reads something else than one text field of the caller")
    _refuse_functions(vectorizer)
    sample = columns.sample
    output = vectorizer.transform(sample if sample.ndim == 1 else sample.iloc[:, 0])
    if output.shape[0] != sample.shape[0]:
        raise unsupported(vectorizer, "is given a table where it takes one column: name the column without brackets")
    if output.dtype not in (np.float64, np.int64):
        raise unsupported(vectorizer, f"counts in {output.dtype}, and float64 has an exact form")
    terms = _terms(vectorizer, columns.columns[0].field, hashed=name == "HashingVectorizer")
    if name == "TfidfVectorizer":
        terms = weighted_terms(vectorizer, terms)
    width = terms.hashed or len(terms.vocabulary)
    block = TermBlock(terms, width)
    return columns.same(tuple(Cell(block, i) for i in range(width)), kept(output))


def _refuse_functions(vectorizer: Any) -> None:
    for name in ("analyzer", "tokenizer", "preprocessor"):
        given = getattr(vectorizer, name)
        if callable(given):
            raise unsupported(
                vectorizer,
                f"calls {getattr(given, '__name__', type(given).__name__)} as its {name}, which only Python can run; "
                "token_pattern, lowercase, strip_accents and stop_words have an exact form",
            )
    if vectorizer.input != "content":
        raise unsupported(vectorizer, f"reads from a {vectorizer.input}, and a server is sent the text itself")


def _terms(vectorizer: Any, field: str, *, hashed: bool) -> Terms:
    is_of_words = vectorizer.analyzer == "word"
    stop_words = vectorizer.get_stop_words() if is_of_words else None
    norm = [Step(_NORMS[vectorizer.norm])] if hashed and vectorizer.norm else []
    terms = Terms(
        field=field,
        analyzer=vectorizer.analyzer,
        lowercase=bool(vectorizer.lowercase),
        accents=vectorizer.strip_accents or "",
        pattern=_pattern(vectorizer) if is_of_words else Terms(field="").pattern,
        ngrams=(int(vectorizer.ngram_range[0]), int(vectorizer.ngram_range[1])),
        stop_words=tuple(sorted(stop_words or ())),
        vocabulary=() if hashed else _vocabulary(vectorizer),
        hashed=int(vectorizer.n_features) if hashed else 0,
        signed=bool(hashed and vectorizer.alternate_sign),
        steps=(*([Step("ones")] if vectorizer.binary else []), *norm),
    )
    try:
        msgspec.json.encode(terms)
    except UnicodeEncodeError:
        raise NotConvertible("the vocabulary has a term with half a character (a lone surrogate)") from None
    return terms


def _pattern(vectorizer: Any) -> str:
    pattern = vectorizer.token_pattern
    if not isinstance(pattern, str):
        pattern = getattr(pattern, "pattern", "")
        if vectorizer.token_pattern.flags & ~re.UNICODE:
            raise unsupported(vectorizer, "has a token_pattern with flags: write them into the pattern, as (?i)")
    return str(pattern)


def _vocabulary(vectorizer: Any) -> tuple[str, ...]:
    places = {int(place): str(term) for term, place in vectorizer.vocabulary_.items()}
    return tuple(places[i] for i in range(len(places)))


_NORMS: dict[str, Any] = {"l1": "l1", "l2": "l2", "max": "largest"}


def weighted_terms(transformer: Any, terms: Terms) -> Terms:
    """Terms as a TfidfTransformer weights them."""
    steps = list(terms.steps)
    if transformer.sublinear_tf:
        steps.append(Step("logarithm"))
    if transformer.use_idf:
        steps.append(Step("scale", np.ascontiguousarray(transformer.idf_, np.float64).tobytes()))
    if transformer.norm is not None:
        steps.append(Step(_NORMS[transformer.norm]))
    return msgspec.structs.replace(terms, steps=tuple(steps))


def reweight(transformer: Any, columns: Columns, output: Any) -> Columns:
    """A TfidfTransformer after the counts of one text field."""
    block = selected_block(transformer, columns)
    fresh = TermBlock(weighted_terms(transformer, block.terms), block.width)
    return columns.same(tuple(Cell(fresh, i) for i in range(block.width)), output)


def normalise(transformer: Any, columns: Columns, output: Any) -> Columns:
    """A Normalizer after the numbers of one text field."""
    block = selected_block(transformer, columns)
    steps = (*block.terms.steps, Step(_NORMS[transformer.norm]))
    fresh = TermBlock(msgspec.structs.replace(block.terms, steps=steps), block.width)
    return columns.same(tuple(Cell(fresh, i) for i in range(block.width)), output)


def selected_block(transformer: Any, columns: Columns) -> TermBlock:
    """The terms of which all columns are, without those that a step has left out."""
    blocks = {id(c.block) if isinstance(c, Cell) else 0: c for c in columns.columns}
    first = columns.columns[0]
    if len(blocks) != 1 or not isinstance(first, Cell) or not isinstance(first.block, TermBlock):
        raise unsupported(transformer, "reads something else than the terms of one text field")
    block = first.block
    positions = [c.position for c in columns.columns if isinstance(c, Cell)]
    if positions == list(range(block.width)):
        return block
    if positions != sorted(set(positions)):
        raise unsupported(transformer, "reads terms in another order than their own")
    places = np.full(block.width, -1, np.int32)
    places[positions] = np.arange(len(positions))
    steps = (*block.terms.steps, Step("select", places.tobytes()))
    return TermBlock(msgspec.structs.replace(block.terms, steps=steps), len(positions))
