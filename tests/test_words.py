"""Docstrings, names and constants keep to the words of the house, and the list of exceptions only shrinks."""

from __future__ import annotations

import pytest
import words


def keys(source: str, folder: str = "src") -> list[str]:
    return [problem.key.removeprefix("a.py:") for problem in words.check("a.py", source, folder)]


@pytest.mark.slow
def test_the_tree_has_no_new_exception_and_no_old_one() -> None:
    new, unneeded = words.compare(list(words.check_tree()), words.allowed())
    assert [f"{problem.path}:{problem.line}: {problem.message}" for problem in new] == []
    assert unneeded == [], "no longer needed: python scripts/words.py --write"


@pytest.mark.parametrize(
    "docstring",
    ["What a server answers.", "Whether it runs.", "Nobody listens.", "`how` it is done.", "Where files are."],
)
def test_a_clause_is_not_the_subject_of_a_docstring(docstring: str) -> None:
    assert keys(f'class Box:\n    def open(self):\n        """{docstring}"""') == ["Box.open clause"]
    assert keys(f'LIMIT = ""\n"""{docstring}"""', "tests") == ["LIMIT clause"]
    assert keys(f'"""The answer. {docstring}"""') == []


@pytest.mark.parametrize("docstring", ["Life: one service.", "The old door: it opens.", "A kernel's words: C."])
def test_a_module_does_not_begin_with_a_noun_and_a_colon(docstring: str) -> None:
    assert keys(f'"""{docstring}"""') == [" noun-and-colon"]
    assert keys(f'def run():\n    """{docstring}"""') == []


def test_a_module_may_list_after_a_sentence() -> None:
    assert keys('"""Run one service as a local process: start it, and restart it when it exits."""') == []


@pytest.mark.parametrize("line", ["found = 1", "for one in []: pass", "x = [made for made in []]", "said: int = 1"])
def test_a_long_function_has_no_vague_names(line: str) -> None:
    padding = "    pass\n" * words.LONG_FUNCTION_LINES
    assert len(keys(f"def run():\n    {line}\n{padding}")) == 1
    assert keys(f"def run():\n    {line}\n") == []
    assert keys(f"def run():\n    {line}\n{padding}", "tests") == []


def test_a_function_inside_of_a_long_one_is_judged_alone() -> None:
    padding = "    pass\n" * words.LONG_FUNCTION_LINES
    assert keys(f"def run(place):\n    def inner(found):\n        pass\n{padding}") == ["run place"]


@pytest.mark.parametrize(
    "source",
    [
        "TIMEOUT = 3",
        "A = 0.5\ntime.sleep(A)",
        "A = 2\nprocess.wait(timeout=A)",
        "A = 2\nuntil = monotonic() + A",
        "A = 64 * 1024",
        "A: int = 2**20",
        "A = 100\nfile.read(A)",
    ],
)
def test_durations_and_sizes_end_in_their_unit(source: str) -> None:
    assert len(keys(source)) == 1
    unit = source.replace("TIMEOUT", "TIMEOUT_SECONDS").replace("A", "LONGEST_BYTES")
    assert keys(unit) == []


def test_other_numbers_have_no_unit() -> None:
    assert keys("PORT = 8000\nlisten(PORT)\nCODES = {1: 2}\nLEVEL = 3") == []


def test_an_entry_of_the_list_that_is_not_needed_is_named() -> None:
    problems = list(words.check("a.py", '"""What it is."""'))
    assert words.compare(problems, {"a.py: clause", "b.py: clause"}) == ([], ["b.py: clause"])
    assert words.compare(problems, set()) == (problems, [])
