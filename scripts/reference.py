"""Write docs/reference: cli.md from the commands, project.md from the options, doctor.md from the doctor's rules.

python scripts/reference.py writes them; with --check it writes nothing and fails where they are not up to date.
"""

from __future__ import annotations

import re
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import click
import msgspec

from estiba.cli.main import CHAPTERS, COMMANDS, cli
from estiba.core.options import dotted
from estiba.doctor.catalogue import RULES
from estiba.doctor.explain import explain
from estiba.model.schema.infer import FieldOptions
from estiba.model.schema.signature import Field, OutputOptions, Outputs
from estiba.project import Tree

REFERENCE = Path(__file__).resolve().parent.parent / "docs" / "reference"
NOTICE = "Written by `python scripts/reference.py`; do not edit."
ROOM = {
    "models": "NAME", "fields": "FIELD", "bands": "BAND", "services": "NAME", "canary": "MODEL", "each": "OUTPUT",
    "routes": "MODEL",
}  # fmt: skip
"""The placeholder of a key that the user chooses, by the table that it is in."""

SAME_WORDS = {FieldOptions: Field, OutputOptions: Outputs}
"""Options whose keys mean what those of another class mean."""

WORDS = {str: "text", int: "whole number", float: "number", bool: "true or false", types.NoneType: ""}


def main() -> int:
    pages = {REFERENCE / "cli.md": cli_page(), REFERENCE / "project.md": project_page()}
    pages[REFERENCE / "doctor.md"] = doctor_page()
    stale = [path for path, text in pages.items() if not path.exists() or path.read_text() != text]
    if "--check" in sys.argv[1:]:
        for path in stale:
            print(f"{path} is not up to date. Run: python scripts/reference.py", file=sys.stderr)
        return 1 if stale else 0
    for path in stale:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(pages[path])
        print(f"wrote {path}")
    return 0


# The rules of the doctor


def doctor_page() -> str:
    intro = (
        "What `estiba doctor` looks for, in the order in which it shows findings. `estiba doctor --explain CODE` shows "
        "one of these sections. The examples replace files of a project that works; "
        "[the guide](../guides/doctor.md) says what is read, and how."
    )
    titles = {rule.code: rule.title.replace("|", "\\|") for rule in RULES}
    rows = [f"| [`{rule.code}`](#{rule.code}) | {rule.severity} | {titles[rule.code]} |" for rule in RULES]
    table = "\n".join(["| code | severity | what is wrong |", "|---|---|---|", *rows])
    sections = (f"## {rule.code}\n\n{explain(rule)}" for rule in RULES)
    return "\n\n".join([f"# The rules of the doctor\n\n{NOTICE}", intro, table, *sections]) + "\n"


# The command line


def cli_page() -> str:
    parts = [f"# The command line\n\n{NOTICE}", _plain(cli.help or ""), _chapters(), _exit_codes()]
    context = click.Context(cli, info_name="estiba")
    for name in COMMANDS:
        command = cli.get_command(context, name)
        assert command is not None
        parts += _command(command, f"estiba {name}", context)
    return "\n\n".join(parts) + "\n"


def _command(command: click.Command, name: str, parent: click.Context) -> Iterator[str]:
    context = click.Context(command, info_name=name.rpartition(" ")[2], parent=parent)
    yield f"## {name}\n\n{_plain(command.help or '')}"
    yield f"```\n{' '.join([name, *command.collect_usage_pieces(context)])}\n```"
    options = [p for p in command.params if isinstance(p, click.Option)]
    if options:
        rows = [f"| {_spelling(option)} | {option.help}{_default(option)} |" for option in options]
        yield "\n".join(["| option | what it does |", "|---|---|", *rows])
    examples = [line.strip() for line in (command.epilog or "").splitlines() if line.startswith("  ")]
    yield "\n".join(["```", *examples, "```"])
    if isinstance(command, click.Group):
        for inner in command.list_commands(context):
            subcommand = command.get_command(context, inner)
            assert subcommand is not None
            yield from _command(subcommand, f"{name} {inner}", context)


def _spelling(option: click.Option) -> str:
    value = "" if option.is_flag else f" {option.metavar or option.type.name.upper()}"
    if isinstance(option.type, click.Choice):
        value = f" {'|'.join(map(str, option.type.choices))}".replace("|", "\\|")
    elif "RANGE" in value:
        value = " N"
    return f"`{', '.join(option.opts)}{value}`"


def _default(option: click.Option) -> str:
    return f" Default: {option.default}." if option.show_default else ""


def _chapters() -> str:
    rows = [
        f"| {title} | {', '.join(f'[{name}](#estiba-{name})' for name in commands)} |"
        for title, commands in CHAPTERS.items()
    ]
    return "\n".join(["| for | commands |", "|---|---|", *rows])


def _exit_codes() -> str:
    rows = [
        ("0", "done; also a server that was asked to stop"),
        ("1", "an error that has no code of its own"),
        ("2", "a mistake in the command line, the project file or the input"),
        ("3", "an artifact is damaged, not trusted, or does not answer as in training"),
        ("4", "no such model, version, alias or file"),
        ("5", "somebody else has that name, or was faster"),
        ("6", "a server is not ready or cannot be reached"),
        ("130", "Ctrl-C; what was begun is taken back"),
        ("129, 143", "the same by SIGHUP or SIGTERM"),
    ]
    lines = [f"| {code} | {meaning} |" for code, meaning in rows]
    head = "Errors go to standard error as `error:` and, where there is something to do, `hint:`. Exit codes:"
    return "\n".join([head, "", "| code | meaning |", "|---|---|", *lines])


# The project file


def project_page() -> str:
    intro = (
        "The project file is `estiba.toml`, in TOML. It is searched for from the working directory upwards. A key that "
        "nobody knows is refused with its path and the nearest known key. All keys have defaults, except those marked."
    )
    parts = [f"# The project file\n\n{NOTICE}", intro]
    for field in msgspec.structs.fields(Tree):
        parts += _section(field.type, field.encode_name)
    return "\n\n".join(parts) + "\n"


def _section(kind: Any, path: str) -> Iterator[str]:
    if get_origin(kind) is dict:
        room = ROOM[path.rpartition(".")[2]]
        yield from _section(get_args(kind)[1], dotted(path, room))
        return
    fields = msgspec.structs.fields(kind)
    meanings = {**arguments(SAME_WORDS.get(kind, kind)), **arguments(kind)}
    plain = [f for f in fields if not _is_table(f.type)]
    rows = [f"| `{f.encode_name}` | {_type(f.type)} | {_value(f)} | {meanings.get(f.name, '')} |" for f in plain]
    yield f"## [{path}]\n\n{_about(kind)}"
    yield "\n".join(["| key | value | default | meaning |", "|---|---|---|---|", *rows])
    for field in fields:
        if _is_table(field.type):
            yield from _section(field.type, dotted(path, field.encode_name))


def arguments(kind: type) -> dict[str, str]:
    """The descriptions in the Args section of a docstring, by name."""
    _, _, listed = (kind.__doc__ or "").partition("Args:\n")
    found: dict[str, str] = {}
    for entry in re.split(r"\n(?= {8}\S)", "\n" + listed.split("\n\n")[0].rstrip()):
        names, colon, text = entry.strip().partition(": ")
        if colon:
            found |= {name.strip(): _plain(text) for name in names.split(",")}
    return {name: text[0].upper() + text[1:] for name, text in found.items()}


def _about(kind: type) -> str:
    """The text of a docstring before its Args; the name of the section is in the heading already."""
    text = _plain((kind.__doc__ or "").partition("Args:")[0])
    text = re.sub(r"^`\[[^`]*\]`( of the project file)?[:.]?\s*|: `\[[^`]*\]` of the project file", "", text).strip()
    return text[:1].upper() + text[1:] or "Its keys:"


def _is_table(kind: Any) -> bool:
    inner = get_args(kind)[1] if get_origin(kind) is dict else kind
    return isinstance(inner, type) and issubclass(inner, msgspec.Struct)


def _type(kind: Any) -> str:
    if get_origin(kind) is Annotated:
        return _type(get_args(kind)[0])
    if get_origin(kind) is Literal:
        return ", ".join(f"`{choice}`" for choice in get_args(kind))
    if get_origin(kind) in (Union, types.UnionType):
        return " or ".join(word for word in map(_type, get_args(kind)) if word)
    if get_origin(kind) is dict:
        return f"table of {_type(get_args(kind)[1])}"
    if get_origin(kind) is tuple:
        return f"list of {_type(get_args(kind)[0])}"
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return f"table of {', '.join(field.encode_name for field in msgspec.structs.fields(kind))}"
    return WORDS.get(kind, str(kind))


def _value(field: msgspec.structs.FieldInfo) -> str:
    if field.required:
        return "**required**"
    default = field.default_factory() if field.default is msgspec.NODEFAULT else field.default
    if default is None or default in ("", (), {}):
        return ""
    return f"`{msgspec.json.encode(default).decode()}`"


def _plain(text: str) -> str:
    """Paragraphs without the indentation and line breaks of a docstring; click's marks taken out."""
    paragraphs = [" ".join(part.split()) for part in text.replace("\b", "").strip().split("\n\n")]
    return "\n\n".join(paragraphs).replace("|", "\\|")


if __name__ == "__main__":
    sys.exit(main())
