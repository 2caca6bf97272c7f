"""README and docs are true: both languages agree, every link leads somewhere, and the commands of tested pages work.

A page whose first line begins with `<!-- tested` is executed: its `python` blocks share one namespace, as the cells of
a notebook do, and in its `console` blocks each command after `$ ` must print what stands below it, where `...` stands
for anything and white space does not count. `sh` and `text` blocks are only shown. `README.md` is tested too.
"""

from __future__ import annotations

import os
import re
import sys
import tomllib
from pathlib import Path

import pytest
from pages import Reader, blocks, commands, prose

from estiba.core import options
from estiba.core.ports import free
from estiba.project import Tree
from estiba.serving.telemetry.metric_table import METRICS

ROOT = Path(__file__).parent.parent
README, SPANISH = ROOT / "README.md", ROOT / "README.es.md"
FAULTY = ROOT / "docs/reference/doctor.md"
"""The page of the doctor's rules: its examples are wrong on purpose, and tested with the rules."""

PAGES = [README, SPANISH, *sorted((ROOT / "docs").rglob("*.md"))]
OTHERS = [ROOT / name for name in ("CONTRIBUTING.md", "bench/README.md", "examples/portfolio/README.md")]
GUIDES = ROOT / "docs/guides"
TOURS = {
    "readme": [README],
    "quickstart": [ROOT / "docs/start/quickstart.md", *(GUIDES / f"{n}.md" for n in ("client", "score-files"))],
    "registries": [GUIDES / "registries.md"],
    "project": [ROOT / "docs/start/project.md"],
    "inicio-rapido": [ROOT / "docs/es/inicio-rapido.md"],
}
"""Pages that are read one after the other in one folder."""

COURSE = ROOT / "docs/es/curso.md"
"""Tested by test_course.py."""

TRANSLATED = {
    ROOT / "docs/start/quickstart.md": ROOT / "docs/es/inicio-rapido.md",
    GUIDES / "troubleshooting.md": ROOT / "docs/es/solucion-de-problemas.md",
}
"""By English page, the Spanish one that follows it section by section."""

_LINK = re.compile(r"\]\(([^)\s]+)\)")


def headings(page: Path) -> list[str]:
    return re.findall(r"^(#+) ", prose(page), re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives to a page's headings."""
    titles = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


def shown(page: Path) -> str:
    return str(page.relative_to(ROOT))


def test_both_languages_have_the_same_sections_and_links() -> None:
    assert headings(README) == headings(SPANISH)
    there, here = (_LINK.findall(prose(page)) for page in (README, SPANISH))
    assert [link for link in there if link != SPANISH.name] == [link for link in here if link != README.name]
    assert there.count(SPANISH.name) == here.count(README.name) == 1


def test_both_languages_show_the_same_code() -> None:
    there, here = blocks(README), blocks(SPANISH)
    assert [block.language for block in there] == [block.language for block in here]
    run = [[block for block in found if block.language in ("python", "console")] for found in (there, here)]
    assert run[0] == run[1]


def test_both_languages_have_the_same_tables() -> None:
    there, here = (re.findall(r"^\|.*", prose(page), re.MULTILINE) for page in (README, SPANISH))
    assert [row.count("|") for row in there] == [row.count("|") for row in here]


@pytest.mark.parametrize(("english", "spanish"), TRANSLATED.items(), ids=[shown(page) for page in TRANSLATED])
def test_a_translated_page_follows_the_english_one(english: Path, spanish: Path) -> None:
    assert headings(english) == headings(spanish)
    assert [block.text for block in blocks(english, "python")] == [block.text for block in blocks(spanish, "python")]
    assert console(english) == console(spanish)
    assert messages(english) == messages(spanish)


def console(page: Path) -> list[str]:
    """The commands of a page."""
    return [command for block in blocks(page, "console") for command, _ in commands(block.text)]


def messages(page: Path) -> list[list[str]]:
    """The code in the first cell of each row of a page's tables."""
    rows = [line.split(" | ")[0] for line in prose(page).splitlines() if line.startswith("| ")]
    return [re.findall(r"`([^`]+)`", cell) for cell in rows]


@pytest.mark.parametrize("page", [*PAGES, *OTHERS], ids=shown)
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    for link in _LINK.findall(prose(page)):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path) if path else page
        assert target.exists(), f"{shown(page)} links to {link}"
        assert not anchor or anchor in anchors(target), f"{shown(page)} links to {link}"


@pytest.mark.parametrize("page", [page for page in PAGES if page != FAULTY], ids=shown)
def test_blocks_are_what_they_say(page: Path) -> None:
    for block in blocks(page, "toml"):
        options.read(tomllib.loads(block.text), Tree)
    for block in blocks(page, "python"):
        compile(block.text, shown(page), "exec")


def test_every_page_is_in_the_index() -> None:
    index = ROOT / "docs/README.md"
    linked = {(index.parent / link.partition("#")[0]).resolve() for link in _LINK.findall(prose(index))}
    assert [shown(page) for page in PAGES if page.is_relative_to(ROOT / "docs") and page not in linked] == [
        "docs/README.md"
    ]


def test_every_tested_page_is_on_a_tour() -> None:
    marked = {page for page in PAGES if page.read_text().startswith("<!-- tested")}
    assert marked | {README} == {COURSE, *(page for pages in TOURS.values() for page in pages)}


def test_every_metric_is_described() -> None:
    page = (GUIDES / "operate.md").read_text()
    table = "".join(re.findall(r"^(\| `(?:estiba|process)_[^|]*\|)", page, re.MULTILINE))
    assert sorted(re.findall(r"`(\w+)`", table)) == sorted(metric.name for metric in METRICS)


@pytest.mark.slow
@pytest.mark.parametrize("tour", TOURS)
def test_what_a_page_shows_happens(tour: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ESTIBA_REGISTRY", "ESTIBA_DATA", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("ESTIBA_LANG", "es" if tour == "inicio-rapido" else "en")
    monkeypatch.chdir(tmp_path)
    reader = Reader(tmp_path, free("127.0.0.1"))
    try:
        for page in TOURS[tour]:
            reader.read(page)
    finally:
        reader.close()
