""".env files: what is read, and what is refused with its line."""

from __future__ import annotations

from pathlib import Path

import pytest

from estiba.core.errors import BadProject, NotFound
from estiba.deploy.plan import dotenv


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("A=1", "1"),
        ("export A = some words  # a comment", "some words"),
        ("A=a#b", "a#b"),
        ("A=", ""),
        ("A=  # nothing", ""),
        ("A='$HOME \\n #'  # as it is", "$HOME \\n #"),
        (r'A="two\nlines, a \"quote\", 5\$ and \\"', 'two\nlines, a "quote", 5$ and \\'),
        ("A=1\n# A=2\n\nA=3", "3"),
        ("A=postgresql://u:p@h/db?x=y", "postgresql://u:p@h/db?x=y"),
    ],
)
def test_a_line(line: str, value: str) -> None:
    assert dotenv.parse(line, "f") == {"A": value}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("password", "f:2: 'password' is not a variable"),
        ("9A=1", "f:2: '9A' is not a variable"),
        ("A='open", "f:2: A: the quote does not end"),
        ("A='x' y", "f:2: A: the quote does not end, or something follows it"),
        ("A=$HOME", r"f:2: A: a \$, which some programs would expand"),
        ('A="${HOME}"', r"f:2: A: a \$, which some programs would expand"),
        (r'A="\x"', r"f:2: A: \\x is not a known escape"),
    ],
)
def test_a_mistake_is_named_by_its_line(line: str, message: str) -> None:
    with pytest.raises(BadProject, match=message):
        dotenv.parse(f"# first\n{line}\n", "f")


def test_a_secret_is_not_repeated_in_a_message() -> None:
    with pytest.raises(BadProject) as error:
        dotenv.parse("MY PASSWORD=hunter2", "f")
    assert "hunter2" not in str(error.value)


def test_files(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    with pytest.raises(NotFound):
        dotenv.read(path)
    path.write_bytes(b"\xef\xbb\xbfA=1\r\nB=2\r\n")
    assert dotenv.read(path) == {"A": "1", "B": "2"}
    path.write_bytes(b"A=1\nB=\xff\n")
    with pytest.raises(BadProject, match=r"\.env:2: not UTF-8"):
        dotenv.read(path)
