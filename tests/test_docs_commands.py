"""Every `estiba ...` in the documentation is a command line that the program takes: commands, options and values exist.

Nothing is executed. Words in capitals are placeholders for values; what follows a pipe or a redirection is another
program's. A command in a block is whole; one in a sentence may leave out arguments: "`estiba predict` scores a file".
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from estiba.cli.main import COMMANDS, cli

ROOT = Path(__file__).resolve().parent.parent
PAGES = [
    *sorted((ROOT / "docs").rglob("*.md")),
    *(ROOT / name for name in ("README.md", "README.es.md", "CONTRIBUTING.md", "examples/portfolio/README.md")),
]

_FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
_SHELL = {"sh", "bash", "console", "text", "yaml", "dockerfile", ""}
_COMMAND = re.compile(r"(?:^|[;&|(]|\$ |\brun: |\bexec |\bRUN )\s*(?:[A-Z_]+=\S+ )*estiba ([a-z][^\n]*)")
_INLINE = re.compile(r"`estiba (?!kernel`)([a-z][^`]*)`")  # the kernel is an engine
_END = re.compile(r"[|;&<>]+|\d>.*")
"""A word of a shell that ends a command."""

_PLACEHOLDER = re.compile(r".*(\.\.\.|\b[A-Z][A-Z_]+\b|\$|…).*", re.DOTALL)


def test_a_wrong_command_is_found() -> None:
    assert complaint("up --port 9000 dashboard") == ""
    assert "No such option" in complaint("up --prot 9000")
    assert "'many' is not a valid integer" in complaint("up --port many")
    assert "There is no command 'upp'" in complaint("upp")
    assert "unexpected" in complaint("version now")
    assert "Missing argument" in complaint("pack --name iris")
    assert complaint("predict", whole=False) == ""
    assert "No such option" in complaint("predict --fast", whole=False)
    assert list(commands("```sh\nestiba up \\\n  --watch | head  # x\n```\nsee `estiba train -C DIR`")) == [
        ("up --watch | head  # x", True),
        ("train -C DIR", False),
    ]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_of_a_page_is_one(page: Path) -> None:
    found = {command: complaint(command, whole=whole) for command, whole in commands(page.read_text())}
    assert {command: text for command, text in found.items() if text} == {}


def test_the_pages_have_commands() -> None:
    """The search finds what it is for."""
    found = [command for page in PAGES for command, _ in commands(page.read_text())]
    assert len(found) > 300
    assert {command.split()[0] for command in found} >= set(COMMANDS)


def commands(text: str) -> Iterator[tuple[str, bool]]:
    """The command lines of a page, without the word `estiba`, and whether each is whole."""
    for _, language, block in _FENCE.findall(text):
        if language in _SHELL:
            found = _COMMAND.findall(re.sub(r"\\\n\s*", "", block))
            yield from ((command, True) for command in found if "[OPTIONS]" not in command)
    yield from ((found, False) for found in _INLINE.findall(_FENCE.sub("", text).replace("\n", " ")))


def complaint(command: str, *, whole: bool = True) -> str:
    """The error of the program for a command line; empty where it takes it."""
    words = []
    for word in shlex.split(re.split(r" {2,}", command)[0], comments=True):  # the help has an explanation beside it
        if _END.fullmatch(word):
            break
        words.append(word.rstrip(")"))
    try:
        _check(words if whole else [word for word in words if word != "..."], whole)
    except click.MissingParameter as error:
        return error.format_message() if whole else ""
    except click.BadOptionUsage as error:
        return error.format_message() if whole or isinstance(error, click.NoSuchOption) else ""
    except click.ClickException as error:
        return error.format_message()
    return ""


def _check(words: list[str], whole: bool) -> None:
    """Parse a command line as click does, except for paths, which need not exist, and placeholders."""
    command: click.Command = cli
    context = click.Context(command, info_name="estiba")
    while isinstance(command, click.Group):
        if not words or words[0] in ("--help", "--version", "-h"):
            return
        _, found, words = command.resolve_command(context, words)
        assert found is not None
        command, context = found, click.Context(found, parent=context, info_name=found.name)
    options, left, _ = command.make_parser(context).parse_args(list(words))
    if options.get("help"):
        return
    if left:
        raise click.UsageError(f"Got unexpected extra arguments ({' '.join(map(str, left))})", context)
    for parameter in command.get_params(context):
        value, _ = parameter.consume_value(context, options)
        if whole and parameter.required and parameter.value_is_missing(value):
            raise click.MissingParameter(ctx=context, param=parameter)
        _convert(parameter, value, context)


def _convert(parameter: click.Parameter, value: object, context: click.Context) -> None:
    values = value if isinstance(value, tuple | list) else [value]
    if not isinstance(parameter.type, click.Path | click.File):
        for each in values:
            if isinstance(each, str) and not _PLACEHOLDER.fullmatch(each):
                parameter.type.convert(each, parameter, context)
