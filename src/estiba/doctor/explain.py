"""Write the documentation of a rule as Markdown, for the reference and for `estiba doctor --explain`."""

from __future__ import annotations

from collections.abc import Iterator
from posixpath import splitext

from estiba.doctor.rule import Rule

_LANGUAGES = {".py": "python", ".yaml": "yaml", ".toml": "toml", ".ipynb": "json"}


def explain(rule: type[Rule]) -> str:
    """Describe a rule: its title, reason, example and remedy."""
    return "\n\n".join([f"**{rule.severity}**: {rule.title}", rule.reason, *_example(rule), f"Remedy: {rule.remedy}"])


def _example(rule: type[Rule]) -> Iterator[str]:
    for name, text in rule.example.items():
        language = "dockerfile" if name == "Dockerfile" else _LANGUAGES.get(splitext(name)[1], "")
        yield f"`{name}`:"
        yield f"```{language}\n{text.rstrip()}\n```"
