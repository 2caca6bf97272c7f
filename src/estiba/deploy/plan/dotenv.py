"""Read environment variables from files such as `.env`, in the syntax that all readers of such files share.

| line | meaning |
|---|---|
| `NAME=value` | a variable, without the white space around its value; `export ` before it is allowed |
| `NAME='a $value'` | exactly the text between the quotes |
| `NAME="two\\nlines"` | the same with `\\n`, `\\t`, `\\"`, `\\\\`, `\\$`: line feed, tab, quote, backslash, dollar |
| `# ...`, empty | ignored; a comment may also follow a value and white space |

A `$` outside single quotes, except `\\$` in double quotes, is refused: some readers would expand a variable.
"""

from __future__ import annotations

import re
from pathlib import Path

from estiba.core.errors import BadProject
from estiba.core.stores.disk import explained

FILE = ".env"

_LINE = re.compile(r"(?:export\s+)?(?P<name>[A-Za-z_][A-Za-z0-9_]*)\s*=\s*(?P<value>.*)")
_SINGLE = re.compile(r"'(?P<text>[^']*)'\s*(?:#.*)?")
_DOUBLE = re.compile(r'"(?P<text>(?:[^"\\]|\\.)*)"\s*(?:#.*)?')
_COMMENT = re.compile(r"(?:^|\s)#.*")
_ESCAPES = {"n": "\n", "t": "\t", '"': '"', "\\": "\\", "$": "$"}


def read(path: Path) -> dict[str, str]:
    """The variables of a file; of a repeated name, the last value.

    Raises:
        NotFound: there is no such file. BadProject: a line of another form; the message has its number.
    """
    with explained("read", path):
        content = path.read_bytes()
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise BadProject(f"{path}:{line}: not UTF-8.", hint="Save the file as UTF-8.") from None
    return parse(text, str(path))


def parse(text: str, where: str) -> dict[str, str]:
    """The variables of the text of such a file.

    Args:
        where: the name of the file, for messages.

    Raises:
        BadProject: as `read`.
    """
    variables: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        matched = _LINE.fullmatch(line)
        if matched is None:
            raise BadProject(f"{where}:{number}: {_excerpt(line)} is not a variable.", hint="Write NAME=value.")
        variables[matched["name"]] = _value(matched["value"], f"{where}:{number}: {matched['name']}")
    return variables


def _value(text: str, location: str) -> str:
    if text.startswith("'"):
        return _quoted(_SINGLE.fullmatch(text), location)
    if text.startswith('"'):
        inside = _quoted(_DOUBLE.fullmatch(text), location)
        _refuse_dollar(re.sub(r"\\.", "", inside), location)
        return re.sub(r"\\(.)", lambda found: _escape(found[1], location), inside)
    plain = _COMMENT.sub("", text).strip()
    _refuse_dollar(plain, location)
    return plain


def _quoted(found: re.Match[str] | None, location: str) -> str:
    if found is None:
        hint = "Write the value on one line; \\n in double quotes is a line feed."
        raise BadProject(f"{location}: the quote does not end, or something follows it.", hint=hint)
    return found["text"]


def _escape(letter: str, location: str) -> str:
    if letter not in _ESCAPES:
        hint = "Write \\\\ for a backslash, or use single quotes."
        raise BadProject(f"{location}: \\{letter} is not a known escape.", hint=hint)
    return _ESCAPES[letter]


def _refuse_dollar(text: str, location: str) -> None:
    if "$" in text:
        hint = "Put the value into single quotes: nothing is expanded in them."
        raise BadProject(f"{location}: a $, which some programs would expand and others would not.", hint=hint)


def _excerpt(line: str) -> str:
    """The name of a line, without its value, which may be a secret."""
    return repr(line.partition("=")[0][:40])
