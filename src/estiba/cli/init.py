"""estiba init."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path

import click

from estiba.core.language import LANGUAGES, preferred

TEMPLATES = Path(__file__).parents[1] / "templates"
"""Folders by template: `common`, and one for each language."""

MINE = (".gitignore", "README.md")
"""Files that may be there already; they are kept."""

CODE_SUFFIX = ".py.txt"
"""The suffix of Python files of a template, which are no modules of Estiba."""

NAME = "@NAME@"


@click.command(
    epilog="""\b
Examples:
  estiba init
  estiba init flowers && cd flowers && estiba up
  estiba init shop --template e2e     a page, an API with its stores, and a model
  estiba init flores --lang es        with comments and README in Spanish
"""
)
@click.argument("folder", metavar="[DIR]", type=click.Path(path_type=Path, file_okay=False), default=Path())
@click.option(
    "--template",
    type=click.Choice(["iris", "e2e"]),
    default="iris",
    help="iris: one model. e2e: frontend, backend, PostgreSQL, Redis and a model.",
)
@click.option(
    "--lang", type=click.Choice(LANGUAGES), help="Language of comments and README; by default the terminal's."
)
def init(folder: Path, template: str, lang: str | None) -> None:
    """Create an example project: estiba.toml and the code that it names."""
    from estiba.cli import terminal
    from estiba.core.errors import Conflict
    from estiba.core.stores.disk import explained

    files = dict(contents(template, lang or preferred(), name_of(folder)))
    with explained("write", folder):
        taken = [path for path in files if path not in MINE and (folder / path).exists()]
        if taken:
            raise Conflict(f"{folder / taken[0]} exists already.", hint="Choose another folder: estiba init DIR")
        write(folder, files)
    first, *others = [path for path in files if path not in MINE]
    rest = str(folder / others[0]) if len(others) == 1 else f"{len(others)} other files"
    terminal.line(f"Created {folder / first} and {rest}.")
    where = "" if folder == Path() else f" -C {shlex.quote(str(folder))}"
    terminal.line(f"Now run: estiba up{where}", bold=True)


def contents(template: str, language: str, project: str) -> Iterator[tuple[str, str]]:
    """The files of a template, by path; estiba.toml first."""
    roots = [root for root in (TEMPLATES / template / language, TEMPLATES / template / "common") if root.is_dir()]
    paths = [(root, path) for root in roots for path in sorted(root.rglob("*")) if path.is_file()]
    for root, path in sorted(paths, key=lambda pair: pair[1].name != "estiba.toml"):
        target = path.relative_to(root).as_posix()
        if target.endswith(CODE_SUFFIX):
            target = target.removesuffix(".txt")
        yield target.replace("gitignore", ".gitignore"), path.read_text("utf-8").replace(NAME, project)


def write(folder: Path, files: Mapping[str, str]) -> None:
    """Write the files that are not there."""
    for name, content in files.items():
        path = folder / name
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content, encoding="utf-8")


def name_of(folder: Path) -> str:
    """The folder's name as the name of a project: letters without accents, digits and single dashes."""
    from estiba.deploy.plan.image_options import slug

    return slug(folder.resolve().name)
