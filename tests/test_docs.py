"""The generated pages are up to date, and describe every command, option and key."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
REFERENCE = ROOT / "docs" / "reference"


def test_the_reference_is_up_to_date() -> None:
    command = [sys.executable, str(ROOT / "scripts" / "reference.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_every_key_of_the_project_file_is_described() -> None:
    rows = [line for line in (REFERENCE / "project.md").read_text().splitlines() if line.startswith("| `")]
    assert len(rows) > 40
    assert [row for row in rows if row.endswith("|  |")] == []


def test_the_page_of_a_start_names_every_command() -> None:
    from estiba.cli.main import COMMANDS

    page = (REFERENCE / "cli.md").read_text()
    assert [name for name in COMMANDS if f"## estiba {name}\n" not in page] == []


def test_messages_of_the_troubleshooting_page_are_in_the_code() -> None:
    """At least a part of each message between placeholders, which are in capitals."""
    code = "\n".join(path.read_text() for path in (ROOT / "src").rglob("*.py"))
    code = re.sub(r'"\s*\n\s*f?"', "", code)  # a message may go over several lines
    page = (ROOT / "docs" / "guides" / "troubleshooting.md").read_text()
    cells = [line.split(" | ")[0] for line in page.splitlines() if line.startswith("| ")]
    messages = [text for cell in cells for text in re.findall(r"`([^`]{25,})`", cell)]
    assert len(messages) > 50
    parts = {text: re.split(r"[A-Z]{2,}|\b[A-Z]\b|\d[\d.,]*|estiba|[;:.,()'\"]", text) for text in messages}
    known = {text for text in messages if any(len(part.strip()) > 10 and part.strip() in code for part in parts[text])}
    composed = "expected one of: "  # the code puts it together from two parts
    assert [text for text in messages if text not in known and not text.startswith(composed)] == []
