"""The options of an interpreter are told from its script as Python itself tells them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from estiba.core import python_command


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["-u"],
        ["-W", "ignore"],
        ["-Wignore", "-X", "dev"],
        ["-uX", "dev"],
        ["--check-hash-based-pycs", "never", "-B"],
    ],
)
def test_a_script_follows_the_options(options: list[str], tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text("import sys; print(sys.argv)")
    arguments = [*options, "app.py", "-m", "x"]
    assert python_command.split(arguments) == (options, ["app.py", "-m", "x"])
    done = subprocess.run([sys.executable, *arguments], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['app.py', '-m', 'x']"


def test_a_module_or_code_may_be_joined_to_options() -> None:
    assert python_command.split(["-um", "app", "-W"]) == (["-u"], ["-m", "app", "-W"])
    assert python_command.split(["-Imapp.main", "x"]) == (["-I"], ["-m", "app.main", "x"])
    assert python_command.split(["-Wc", "-c", "print()"]) == (["-Wc"], ["-c", "print()"])
    assert python_command.split(["-"]) == ([], ["-"])
    assert python_command.split(["-u"]) == (["-u"], [])
