"""References such as iris@3 name a version of a model."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from estiba.core.errors import EstibaError
from estiba.model.artifact.artifact import Artifact
from estiba.model.registry.registry import Ref

Make = Callable[..., Artifact]


NAME = r"[a-z0-9]([a-z0-9._-]{0,62}[a-z0-9])?"
names_ = st.from_regex(NAME, fullmatch=True)


@given(names_, st.one_of(st.none(), st.integers(1, 999_999_999), names_.filter(lambda n: not n.isdigit())))
def test_a_reference_reads_back_as_it_was_written(name: str, selector: int | str | None) -> None:
    assert Ref.parse(str(Ref(name, selector))) == Ref(name, selector)


@given(st.text(st.characters(codec="utf-8"), max_size=80))
def test_any_text_is_a_reference_or_refused_with_a_hint(text: str) -> None:
    if re.fullmatch(f"{NAME}(@([1-9][0-9]{{0,8}}|(?![0-9]+$){NAME}))?", text):
        assert str(Ref.parse(text)) == text
        return
    with pytest.raises(EstibaError) as caught:
        Ref.parse(text)
    assert caught.value.hint


@pytest.mark.parametrize("text", ["iris", "iris@3", "iris@production", "i", "a.b_c-d@v1.2", "a" * 64, "7@7"])
def test_references_that_people_write(text: str) -> None:
    assert str(Ref.parse(text)) == text


BAD = ["", "@", "Iris", "iris@", "iris@0", "iris@007", "iris@-1", "iris@1@2", "iris@A", "a/b", "..", "-a", "a-"]
BAD += ["a" * 65, "iris\n", "iris@x\n", "iris@\u0663", "ñandu", " iris", "iris@9999999999"]


@pytest.mark.parametrize("text", BAD)
def test_what_is_no_reference_is_refused(text: str) -> None:
    with pytest.raises(EstibaError) as caught:
        Ref.parse(text)
    assert caught.value.hint
