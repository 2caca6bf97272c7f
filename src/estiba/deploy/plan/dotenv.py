"""Files such as `.env`: variables of the environment, in the subset that all readers of such files agree on.

| line | is |
|---|---|
| `NAME=value` | a variable, without the white space around its value; `export ` may stand before it |
| `NAME='a $value'` | exactly what stands between the quotes |
| `NAME="two\\nlines"` | the same with `\\n`, `\\t`, `\\"`, `\\\\`, `\\$`: line feed, tab, quote, backslash, dollar |
| `# ...`, nothing | not read; also behind a value, after white space |

A `$` outside single quotes, unless as `\\$` in double ones, is refused: some readers would look a variable up.
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
    """The variables of a file; of a name that stands there twice, the last.

    Raises:
        NotFound: the file is not there. BadProject: a line that is none of the forms above, named by its number.
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
    found: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        matched = _LINE.fullmatch(line)
        if matched is None:
            raise BadProject(f"{where}:{number}: {_excerpt(line)} is no variable.", hint="Write NAME=value.")
        found[matched["name"]] = _value(matched["value"], f"{where}:{number}: {matched['name']}")
    return found


def _value(text: str, place: str) -> str:
    if text.startswith("'"):
        return _quoted(_SINGLE.fullmatch(text), place)
    if text.startswith('"'):
        inside = _quoted(_DOUBLE.fullmatch(text), place)
        _refuse_dollar(re.sub(r"\\.", "", inside), place)
        return re.sub(r"\\(.)", lambda found: _escape(found[1], place), inside)
    plain = _COMMENT.sub("", text).strip()
    _refuse_dollar(plain, place)
    return plain


def _quoted(found: re.Match[str] | None, place: str) -> str:
    if found is None:
        hint = "A value is on one line; \\n in double quotes is a line feed."
        raise BadProject(f"{place}: the quote does not end, or something follows it.", hint=hint)
    return found["text"]


def _escape(letter: str, place: str) -> str:
    if letter not in _ESCAPES:
        hint = "Write \\\\ for a backslash, or use single quotes."
        raise BadProject(f"{place}: \\{letter} means nothing.", hint=hint)
    return _ESCAPES[letter]


def _refuse_dollar(text: str, place: str) -> None:
    if "$" in text:
        hint = "Put the value into single quotes: nothing is looked up in it then."
        raise BadProject(f"{place}: a $ that some readers would look up.", hint=hint)


def _excerpt(line: str) -> str:
    """The beginning of a line, but not what may be a secret."""
    return repr(line.partition("=")[0][:40])
