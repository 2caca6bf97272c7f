"""Keep the gettext catalogues of src/estiba/locale in step with the messages of the code.

python scripts/translations.py           # add new messages to the catalogues, and drop those that the code has no more
python scripts/translations.py --check   # fail for a catalogue that is not in step with the code
python scripts/translations.py --todo    # list the messages without a translation

Messages are the help of commands, what the terminal prints, and the messages and hints of errors. An f-string becomes a
template: `f"{path} is missing."` is the msgid `{path} is missing.`
"""

from __future__ import annotations

import argparse
import ast
import inspect
import json
import re
import sys
from collections import Counter
from collections.abc import Iterator
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path

import click

from estiba.cli import translated_help
from estiba.core.language import LANGUAGES, SOURCE, Entry, entries

ROOT = Path(__file__).resolve().parent.parent
CODE = ROOT / "src" / "estiba"
LOCALE = CODE / "locale"

ERRORS = re.compile(r"\w*Error|Bad\w+|NotFound|NotTrusted|Conflict|Unavailable|BadParameter|UsageError|Problem|Finding")
"""Calls whose texts people read."""

PRINTS = {"line", "warning", "note", "translated", "tell", "finding", "_refuse", "_problem"}
NAMES = {"hint", "reason", "message", "detail", "text", "why", "fix", "remedy", "because"}
"""Names of variables and keywords that hold messages."""

MIN_SIMILARITY = 0.8
"""From this similarity on, a message that changed keeps its translation, to be checked by a person."""

CLICK = (
    "Usage:", "[OPTIONS]", "COMMAND [ARGS]...", "Options", "Commands",
    "Show this message and exit.", "Show the version and exit.", "No such command {name}.",
    "No such option {name}.", "No such option {name}. Did you mean {possibility}?",
    "Missing argument {param_hint}.", "Missing command.", "Missing option {param_hint}.",
    "Invalid value for {param_hint}: {message}", "Option {name} requires an argument.",
    "{value} is not a valid {number_type}.", "{value} is not in the range {range}.",
    "{value} is not one of {choices}.", "{name} {filename} does not exist.",
    "Got unexpected extra arguments ({args})", "Got unexpected extra argument ({args})", "default: {default}",
)  # fmt: skip
"""Messages of click, which has no translations of its own."""

WORDS = (
    "error", "errors", "warning", "warnings", "note", "notes", "file", "files", "container", "containers",
    "in", "No fault found", "error:", "hint:", "warning:", "note:", "fix:", "probably ",
    "model", "version", "engine", "parity", "metrics", "alias", "created (UTC)", "digest", "service", "state",
    "seconds",     "field", "kind", "accepted", "example", "fact", "value", "part", "left out of", "because",
    "answer", "proof", "data", "why python", "profile", "made with", "libraries",
    "waiting", "installing", "starting", "running", "healthy", "unhealthy", "restarting", "failed", "stopping",
    "stopped", "left out", "done", "packing", "unchanged",
    "training ({detail})", "packing {detail}", "done {version}", "unchanged {version}", "failed {detail}",
    "it is not trained yet", "in or above", "asked to",
    "{name} changed", "its section of the project file changed", "{name} is gone",
    "waiting: {detail}", "starting (pid {pid})", "healthy at {url} (pid {pid}, {seconds} s)", "left out: {detail}",
    "running at {url} (pid {pid})", "restarting: {detail}", "failed: {detail}", "unhealthy: {detail}",
    "its last lines were:", "gathering", "weighing", "building ({detail})", "running ({detail})",
    "{count} other files", "not stated", "equal, {equal} labels", "{worst} off, {equal} labels",
    "rows of the sample", "held-out rows",
    "healthy after {seconds} s", "{healthy}, {rows} golden rows equal over HTTP",
    "from (UTC)", "until (UTC)", "time (UTC)", "labels", "logged", "accuracy", "95 % interval", "mean error", "bias",
    "target", "percent", "answers", "change", "reason", "by", "input", "key",
    "route", "name", "roles", "models", "limits", "hash", "date (UTC)", "expires (UTC)",
    "difference", "meaning", "rows", "drifts", "contribution", "missing", "severity", "vulnerability", "package",
    "fixed in", "probability", "log-odds", "margin", "score",
)  # fmt: skip
"""Words of tables, of states and of progress, which the code holds apart from a sentence."""

HEADER = """# Messages of Estiba in {language}. Written by scripts/translations.py; only msgstr is edited by hand.
msgid ""
msgstr ""
"Language: {language}\\n"
"MIME-Version: 1.0\\n"
"Content-Type: text/plain; charset=UTF-8\\n"
"Content-Transfer-Encoding: 8bit\\n"
"""


PAGES = CODE / "serving" / "pages"
PAGE_TEXT = re.compile(r"""\bt\(\s*"((?:[^"\\]|\\.)*)"|(?<=\["skip", )"([^"]+)"|(?<=\["models-title", )"([^"]+)\"""")
"""The texts of the page: the first arguments of `t`."""

SHOWN_ON_THE_PAGE = (
    "src/estiba/serving/pages/",
    "src/estiba/serving/protocols/native",
    "src/estiba/serving/protocols/body_parsing",
    "src/estiba/model/coding/coder",
    "src/estiba/model/coding/tensor",
    "src/estiba/model/schema/values",
)
"""Files whose messages the page shows: its own, and those of answers to its requests."""

WARNING_CODES = ("unseen category", "outside observed range")
"""Warnings of answers, as the page writes them."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--check", action="store_true", help="write nothing")
    parser.add_argument("--todo", action="store_true", help="list messages without a translation")
    arguments = parser.parse_args()
    messages = {**help_messages(), **{word: "words of tables and progress" for word in WORDS}, **code_messages()}
    messages |= page_messages()
    failed = False
    for language in (name for name in LANGUAGES if name != SOURCE):
        path = LOCALE / f"{language}.po"
        known = translations(path)
        if arguments.todo:
            print("\n".join(repr(msgid) for msgid in messages if msgid not in known or not known[msgid].msgstr))
        elif arguments.check:
            failed |= complain(path, messages, known)
            failed |= page_json(messages, known) != (PAGES / f"{language}.json").read_text("utf-8")
        else:
            path.write_text(rendered(language, messages, known), encoding="utf-8")
            (PAGES / f"{language}.json").write_text(page_json(messages, known), encoding="utf-8")
    return int(failed)


def complain(path: Path, messages: dict[str, str], known: dict[str, Entry]) -> bool:
    """Print the faults of a catalogue; return True if there are any."""
    shown = path.relative_to(ROOT)
    missing = [f"not in it: {msgid!r}" for msgid in messages if msgid not in known]
    stale = [f"no longer in the code: {msgid!r}" for msgid in known if msgid not in messages]
    odd = [
        f"{sorted(names)} are no values of {entry.msgid!r}"
        for entry in known.values()
        if not entry.fuzzy and (names := placeholders(entry.msgstr) - placeholders(entry.msgid))
    ]
    for fault in (*missing, *stale, *odd):
        print(f"{shown}: {fault}", file=sys.stderr)
    if missing or stale:
        print("Run: make docs", file=sys.stderr)
    return bool(missing or stale or odd)


def page_messages() -> dict[str, str]:
    """The texts of the page, by text: the file."""
    from estiba.serving.http.problem_details import TITLES

    messages = {text: "src/estiba/serving/pages/answer.js" for text in (*WARNING_CODES, *TITLES.values())}
    for path in sorted(PAGES.glob("*.js")):
        for found in PAGE_TEXT.finditer(path.read_text("utf-8")):
            messages.setdefault(next(filter(None, found.groups())), path.relative_to(ROOT).as_posix())
    return messages


def page_json(messages: dict[str, str], known: dict[str, Entry]) -> str:
    """The part of a catalogue that the page shows, as JSON by English text."""
    shown = [msgid for msgid, file in messages.items() if file.startswith(SHOWN_ON_THE_PAGE)]
    translated = {m: known[m].msgstr for m in sorted(shown) if m in known and known[m].msgstr and not known[m].fuzzy}
    return json.dumps(translated, ensure_ascii=False, indent=0) + "\n"


def placeholders(text: str) -> set[str]:
    return set(re.findall(r"\{(\w+)\}", text))


def translations(path: Path) -> dict[str, Entry]:
    text = path.read_text("utf-8") if path.exists() else ""
    return {entry.msgid: entry for entry in entries(text) if entry.msgid}


def help_messages() -> dict[str, str]:
    """All texts of the help of commands, by text: the file of the command."""
    from estiba.cli.main import CHAPTERS, COMMANDS, cli

    main_file = "src/estiba/cli/main.py"
    messages = {text: "click" for text in CLICK}
    messages |= {title: main_file for title in CHAPTERS}
    messages |= {text: main_file for _, text in COMMANDS.values()}
    messages |= {text: main_file for text in texts_of(cli)}
    for name, (module, _) in COMMANDS.items():
        command = getattr(import_module(f"estiba.cli.{module}"), name)
        messages |= {text: f"src/estiba/cli/{module}.py" for text in texts_of(command) if text not in messages}
    return messages


def texts_of(command: click.Command) -> Iterator[str]:
    for text in (command.help, command.epilog):
        yield from translated_help.messages(inspect.cleandoc(text or ""))
    yield from (option.help for option in command.params if isinstance(option, click.Option) and option.help)
    for below in getattr(command, "commands", {}).values():
        yield from texts_of(below)


def code_messages() -> dict[str, str]:
    """The messages of errors and of the terminal, by template: the file of the first."""
    messages: dict[str, str] = {}
    for path in sorted(CODE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            for template in templates(node):
                messages.setdefault(template, path.relative_to(ROOT).as_posix())
    return messages


def templates(node: ast.AST) -> Iterator[str]:
    """The templates of the messages that a node holds."""
    for value in message_values(node):
        yield from (text for text in variants(value) if is_message(text))


def message_values(node: ast.AST) -> Iterator[ast.expr]:
    """The expressions of a node that people read."""
    if isinstance(node, ast.Call):
        name = getattr(node.func, "attr", getattr(node.func, "id", ""))
        yield from (keyword.value for keyword in node.keywords if keyword.arg in NAMES)
        if ERRORS.fullmatch(name) or name in PRINTS:
            yield from node.args
    elif isinstance(node, ast.Return) and node.value is not None:
        yield node.value
    elif isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        if any(getattr(target, "id", "") in NAMES for target in targets):
            yield node.value


def is_message(text: str) -> bool:
    own = re.sub(r"\{\w+\}", "", text)
    return " " in text.strip() and len(re.findall(r"[a-z]{2,}", own)) >= 2 and not own.lstrip().startswith(("<", "#"))


def variants(node: ast.expr) -> list[str]:
    """The templates that an expression can make."""
    if isinstance(node, ast.IfExp):
        return [*variants(node.body), *variants(node.orelse)]
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return [node.value]
    if isinstance(node, ast.JoinedStr | ast.BinOp):
        return [named(list(parts(node)))]
    return []


def parts(node: ast.expr) -> Iterator[str | ast.expr]:
    """Texts and values of an f-string or a sum of texts."""
    if isinstance(node, ast.Constant):
        yield str(node.value)
    elif isinstance(node, ast.JoinedStr):
        for value in node.values:
            yield from parts(value.value if isinstance(value, ast.FormattedValue) else value)
    elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        yield from parts(node.left)
        yield from parts(node.right)
    elif isinstance(node, ast.Call) and getattr(node.func, "id", "") == "did_you_mean":
        yield from (parts(node.args[2]) if len(node.args) > 2 else ["."])
    else:
        yield node


def named(pieces: list[str | ast.expr]) -> str:
    """A template with a name for each value; values side by side are one."""
    used: Counter[str] = Counter()
    text, after_value = "", False
    for piece in pieces:
        if isinstance(piece, str):
            text += piece
            after_value = after_value and not piece
        elif not after_value:
            name = name_of(piece)
            used[name] += 1
            text += f"{{{name}{used[name] if used[name] > 1 else ''}}}"
            after_value = True
    return text


def name_of(value: ast.expr) -> str:
    """A name for a value: the last one in its expression."""
    if isinstance(value, ast.Name):
        return value.id
    if isinstance(value, ast.Attribute):
        return value.attr
    return "value"


def rendered(language: str, messages: dict[str, str], known: dict[str, Entry]) -> str:
    """The catalogue; a new message gets the translation of a similar one that is gone, marked as fuzzy."""
    gone = {msgid: entry.msgstr for msgid, entry in known.items() if msgid not in messages and entry.msgstr}
    blocks = [HEADER.format(language=language)]
    for msgid, file in sorted(messages.items(), key=lambda item: item[1]):
        entry = known.get(msgid) or similar(msgid, gone)
        flags = ["fuzzy"] * entry.fuzzy + ["python-brace-format"] * bool(placeholders(msgid))
        flagged = f"#, {', '.join(flags)}\n" if flags else ""
        blocks.append(f"#: {file}\n{flagged}{field('msgid', msgid)}{field('msgstr', entry.msgstr)}")
    return "\n".join(blocks)


def similar(msgid: str, gone: dict[str, str]) -> Entry:
    nearest = next(iter(get_close_matches(msgid, gone, 1, MIN_SIMILARITY)), "")
    return Entry(msgid, gone.get(nearest, ""), fuzzy=bool(nearest))


def field(keyword: str, text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\t", "\\t")
    lines = [line.replace("\n", "\\n") for line in escaped.splitlines(keepends=True)]
    if len(lines) < 2:
        return f'{keyword} "{lines[0] if lines else ""}"\n'
    return f'{keyword} ""\n' + "".join(f'"{line}"\n' for line in lines)


if __name__ == "__main__":
    sys.exit(main())
