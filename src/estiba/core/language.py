"""Choose the language of the terminal from the locale, and translate messages with a gettext catalogue.

English is the source: messages are written in it, f-strings included, and the catalogue's msgids are their templates
with `{names}` for the values (`scripts/translations.py` extracts them). A message is translated where it is printed, by
finding its template. So errors that programs read, in HTTP answers, logs and JSON, stay English, and the code that
raises an error knows nothing of languages.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

SOURCE = "en"
LANGUAGES = (SOURCE, "es")

_PLACEHOLDER = re.compile(r"\{(\w+)\}")
_SUGGESTION = re.compile(r"; did you mean ('[^']*'|\"[^\"]*\")\?$")
_SUGGESTION_ID = "; did you mean {suggestion}?"
"""The msgid of the end of a sentence that `core.suggest` makes."""

_ESCAPES = {"\\n": "\n", "\\t": "\t", '\\"': '"', "\\\\": "\\"}
_MIN_LITERAL_CHARACTERS = 5
"""A template with less text of its own would match messages that it did not make."""

_MAX_DEPTH = 3
"""A value of a message may be a message itself, such as the reason for a failure."""


def preferred(environment: Mapping[str, str] = os.environ) -> str:
    """The language of messages: that of ESTIBA_LANG, else as gettext reads LANGUAGE, LC_ALL, LC_MESSAGES and LANG."""
    if own := environment.get("ESTIBA_LANG"):
        return known(own)
    locale = next((value for name in ("LC_ALL", "LC_MESSAGES", "LANG") if (value := environment.get(name))), "C")
    if locale.partition(".")[0] in ("C", "POSIX"):
        return SOURCE
    wished = [*environment.get("LANGUAGE", "").split(":"), locale]
    return next((code for name in wished if (code := _code(name)) in LANGUAGES), SOURCE)


def known(name: str) -> str:
    """The language of a locale's name such as `es_MX.UTF-8`; English if there is no translation."""
    return _code(name) if _code(name) in LANGUAGES else SOURCE


def _code(name: str) -> str:
    return re.split(r"[_.@-]", name, maxsplit=1)[0].lower()


def translated(text: str) -> str:
    """A message for the terminal in the user's language; unchanged where there is no translation."""
    language = preferred()
    return text if language == SOURCE else catalogue(language).translate(text)


@cache
def catalogue(language: str) -> Catalogue:
    """The catalogue of a language."""
    file = Path(__file__).parents[1] / "locale" / f"{language}.po"
    return Catalogue(read_po(file.read_text("utf-8")) if file.is_file() else {})


def read_po(text: str) -> dict[str, str]:
    """The entries of a gettext catalogue (.po), by their msgid; one without a translation, or a fuzzy one, is itself.

    So a message whose template is not translated stays whole, and no more general template takes it.
    """
    found = {entry.msgid: entry.msgid if entry.fuzzy else entry.msgstr or entry.msgid for entry in entries(text)}
    return {msgid: msgstr for msgid, msgstr in found.items() if msgid}


class Entry(NamedTuple):
    msgid: str
    msgstr: str
    fuzzy: bool


def entries(text: str) -> Iterator[Entry]:
    """All entries of a gettext catalogue, translated or not; obsolete ones (`#~`) are left out."""
    for paragraph in text.split("\n\n"):
        fields = {"msgid": "", "msgstr": ""}
        current = ""
        for line in paragraph.splitlines():
            keyword, _, rest = line.partition(" ")
            if keyword in fields:
                current, line = keyword, rest
            if current and line.startswith('"') and line.endswith('"'):
                fields[current] += _unescaped(line[1:-1])
        if current:
            yield Entry(fields["msgid"], fields["msgstr"], "\n#, fuzzy" in f"\n{paragraph}")


def _unescaped(text: str) -> str:
    return re.sub(r'\\[nt"\\]', lambda match: _ESCAPES[match[0]], text)


class Template(NamedTuple):
    """A msgid with placeholders: the texts around them, their names, and the translation."""

    texts: tuple[str, ...]
    names: tuple[str, ...]
    msgstr: str

    @property
    def weight(self) -> int:
        return sum(map(len, self.texts))

    def values(self, message: str) -> dict[str, str] | None:
        """The value of each placeholder, if the message was made from this template."""
        if not message.startswith(self.texts[0]):
            return None
        at, values = len(self.texts[0]), {}
        for name, text in zip(self.names[:-1], self.texts[1:-1], strict=True):
            end = message.find(text, at)
            if end < 0:
                return None
            values[name] = message[at:end]
            at = end + len(text)
        end = len(message) - len(self.texts[-1])
        if end < at or not message.endswith(self.texts[-1]):
            return None
        return {**values, self.names[-1]: message[at:end]}


class Catalogue:
    """The translations of one language."""

    def __init__(self, messages: Mapping[str, str]) -> None:
        """Prepare the messages.

        Args:
            messages: translations by msgid.
        """
        self.messages = messages
        templates = [_template(msgid, msgstr) for msgid, msgstr in messages.items() if _PLACEHOLDER.search(msgid)]
        usable = [template for template in templates if template.weight >= _MIN_LITERAL_CHARACTERS]
        self._templates = sorted(usable, key=lambda template: -template.weight)

    def translate(self, message: str, depth: int = 0) -> str:
        """A message in the language, with the values in it; unchanged if no template is known that made it."""
        if message in self.messages:
            return self.messages[message]
        if suggestion := _SUGGESTION.search(message):
            head = self.translate(message[: suggestion.start()] + ".", depth).removesuffix(".")
            return head + self.messages.get(_SUGGESTION_ID, _SUGGESTION_ID).format(suggestion=suggestion[1])
        return self._matched(message, depth)[1]

    def _matched(self, message: str, depth: int) -> tuple[int, str]:
        """The translation of a message by a template, and how much of the message is the template's own text.

        A message behind a place, such as `estiba.toml: ` or `#/records/0/age: `, may be a template's as a whole, or
        without its place: the template that explains more of it decides.
        """
        whole = (0, message)
        for template in self._templates:
            values = template.values(message)
            if values is not None:
                shown = {name: self._value(value, depth) for name, value in values.items()}
                whole = (template.weight, _filled(template.msgstr, shown))
                break
        location, colon, rest = message.partition(": ")
        if not colon or " " in location or depth >= _MAX_DEPTH:
            return whole
        known = self.messages.get(rest)
        weight, behind = (len(rest), known) if known is not None else self._matched(rest, depth + 1)
        return (weight, f"{location}: {behind}") if weight > whole[0] else whole

    def _value(self, value: str, depth: int) -> str:
        return self.translate(value, depth + 1) if " " in value and depth < _MAX_DEPTH else value


def _filled(msgstr: str, values: Mapping[str, str]) -> str:
    return _PLACEHOLDER.sub(lambda match: values.get(match[1], match[0]), msgstr)


def _template(msgid: str, msgstr: str) -> Template:
    parts = _PLACEHOLDER.split(msgid)
    return Template(tuple(parts[::2]), tuple(parts[1::2]), msgstr)
