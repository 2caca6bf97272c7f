"""The command line as a whole: fast help, words instead of traces, exit codes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import click
import pytest
from command_line import Estiba

from estiba.cli.main import COMMANDS, Commands, cli

HEAVY = "{'numpy', 'pandas', 'sklearn', 'onnx', 'onnxruntime', 'starlette', 'rich', 'uvloop', 'urllib3'}"


def command(name: str) -> click.Command:
    assert isinstance(cli, Commands)
    found = cli.get_command(click.Context(cli), name)
    assert found is not None
    return found


def all_commands() -> list[tuple[str, click.Command]]:
    found = [(name, command(name)) for name in COMMANDS]
    inner = [(f"{name} {key}", c) for name, g in found if isinstance(g, click.Group) for key, c in g.commands.items()]
    return found + inner


@pytest.mark.parametrize("statement", ["import estiba", "import estiba.__main__", "import estiba.cli.main"])
def test_starting_imports_nothing_heavy(statement: str) -> None:
    code = f"{statement}\nimport sys\nprint(sorted({HEAVY} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("arguments", [["--help"], ["up", "--help"], ["serve", "--help"], ["models", "--help"]])
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    code = (
        f"import sys\nfrom estiba.cli.main import run\nassert run({arguments}) == 0\n"
        f"print(sorted({HEAVY} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("name", COMMANDS)
def test_the_list_of_commands_says_what_each_says_of_itself(name: str) -> None:
    first = (command(name).help or "").split("\n\n")[0].replace("\n", " ")
    assert first.rstrip(".").split(":")[0] == COMMANDS[name][1].rstrip(".")


@pytest.mark.parametrize(("name", "found"), all_commands())
def test_every_command_has_help_and_examples_and_every_option_too(name: str, found: click.Command) -> None:
    assert found.help
    assert found.epilog is not None
    assert f"estiba {name.split()[0]}" in found.epilog
    options = [p for p in found.params if isinstance(p, click.Option)]
    assert [option.name for option in options if not option.help] == []


def test_help_lists_the_commands(estiba: Estiba) -> None:
    ran = estiba("--help")
    assert ran.code == 0
    assert [name for name in COMMANDS if f"\n  {name} " not in ran.out] == []
    assert estiba("models", "--help").code == 0


def test_without_arguments_there_is_help(estiba: Estiba) -> None:
    ran = estiba()
    assert ran.code == 0
    assert "Usage: estiba" in ran.out


@pytest.mark.parametrize("arguments", [["--version"], ["version"]])
def test_the_version(estiba: Estiba, arguments: list[str]) -> None:
    import estiba as package

    ran = estiba(*arguments)
    assert ran.code == 0
    assert package.__version__ in ran.out


def test_a_command_that_is_not_there_is_named_with_the_nearest(estiba: Estiba) -> None:
    ran = estiba("tran")
    assert ran.code == 2
    assert "error: There is no command 'tran'; did you mean 'train'?" in ran.err


def test_a_wrong_option_is_named_with_the_usage(estiba: Estiba) -> None:
    ran = estiba("serve", "--prot", "1")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("error: No such option")
    assert "hint: estiba serve [OPTIONS] REF... (see estiba serve --help)" in ran.err


def test_an_error_is_what_happened_and_what_to_do(
    estiba: Estiba, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ran = estiba("train")
    assert (ran.code, ran.out) == (4, "")
    assert ran.err.startswith(f"error: There is no estiba.toml in or above {tmp_path}.\nhint: Create a project")


@pytest.mark.slow
def test_no_colour_in_a_pipe(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "estiba", "train", "-C", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, env={**os.environ, "FORCE_COLOR": ""}, check=False)
    assert done.returncode == 4
    assert b"\x1b" not in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(("no_colour", "coloured"), [("", True), ("1", False)])
def test_colour_on_a_terminal_unless_told_not_to(tmp_path: Path, no_colour: str, coloured: bool) -> None:
    import pty

    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "estiba", "train", "-C", str(tmp_path)]
    environment = {**os.environ, "NO_COLOR": no_colour, "TERM": "xterm"}
    subprocess.run(command, stderr=theirs, env=environment, check=False)
    os.close(theirs)
    shown = os.read(ours, 10_000)
    os.close(ours)
    assert (b"\x1b[31m" in shown) is coloured


@pytest.mark.slow
def test_a_reader_that_leaves_is_no_error(registry: Path) -> None:
    script = f"{sys.executable} -m estiba models show churn --json | head -c 1"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("{", "")
