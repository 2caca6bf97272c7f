"""The generated pages are up to date, and describe every command, option and key."""

from __future__ import annotations

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
