"""Print the help of commands in the user's language."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

import click

from estiba.core import language

_ARGUMENTS = ("[OPTIONS]", "COMMAND [ARGS]...")
"""Texts that click writes into usage lines."""

_DEFAULT = "  ["
"""The begin of what click adds to the help of an option, such as `  [default: compose]`."""

_LINES = "\b"
"""The begin of a paragraph whose lines click does not join."""

_EXAMPLE = re.compile(r"(?P<command>  \S.*?  +|  \S.*$|)(?P<text>.*)$")
"""A line of examples: a command, and behind two spaces what it does. The heading has no command."""

_CUT = "..."
"""The end of a help line that click has shortened for a list of commands."""


class TranslatedFormatter(click.HelpFormatter):
    """A formatter that translates all that it writes."""

    def write_usage(self, prog: str, args: str = "", prefix: str | None = None) -> None:
        prefix = prefix if prefix is not None else f"{language.translated('Usage:')} "
        for text in _ARGUMENTS:
            args = args.replace(text, language.translated(text))
        super().write_usage(prog, args, prefix)

    def write_heading(self, heading: str) -> None:
        super().write_heading(language.translated(heading))

    def write_text(self, text: str) -> None:
        super().write_text("\n\n".join(map(_paragraph, text.split("\n\n"))))

    def write_dl(self, rows: Iterable[tuple[str, str]], col_max: int = 30, col_spacing: int = 2) -> None:
        super().write_dl([(term, _definition(text)) for term, text in rows], col_max, col_spacing)


def messages(text: str) -> Iterator[str]:
    """The messages of a help text: its paragraphs, and of its examples the heading and what each one does."""
    for paragraph in text.split("\n\n"):
        if paragraph.startswith(_LINES):
            matches = map(_EXAMPLE.match, paragraph.splitlines()[1:])
            yield from (match["text"] for match in matches if match and match["text"] not in ("", _LINES))
        elif paragraph:
            yield paragraph


def _paragraph(paragraph: str) -> str:
    if not paragraph.startswith(_LINES):
        return language.translated(paragraph)
    return "\n".join(_EXAMPLE.sub(_example, line) for line in paragraph.splitlines())


def _example(match: re.Match[str]) -> str:
    return match["command"] + language.translated(match["text"])


def _definition(text: str) -> str:
    """The help of an option, or of a command in a list, which is its first sentence and may be cut."""
    help_text, bracket, extra = text.partition(_DEFAULT)
    shown = language.translated(help_text)
    if shown == help_text:
        shown = _from_the_beginning(help_text.removesuffix(_CUT)) or help_text
    return shown + bracket + language.translated(extra)


def _from_the_beginning(text: str) -> str:
    """The translation of the help that begins so, up to its first full stop."""
    messages = language.catalogue(language.preferred()).messages
    found = next((msgstr for msgid, msgstr in messages.items() if " ".join(msgid.split()).startswith(text)), "")
    return found.partition(". ")[0].removesuffix(".")


class TranslatedContext(click.Context):
    formatter_class = TranslatedFormatter


def translate_help(command: click.Command) -> click.Command:
    """Make a command, and those below it, print their help in the user's language; return it."""
    if language.preferred() != language.SOURCE:
        command.context_class = TranslatedContext
        for below in getattr(command, "commands", {}).values():
            translate_help(below)
    return command
