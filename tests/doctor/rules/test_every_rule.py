"""Every rule is documented, has a broken project or a test that shows it, and finds itself in its own example."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import msgspec
import pytest

from estiba.cli.main import run
from estiba.doctor.catalogue import RULES
from estiba.doctor.rule import Rule

HERE = Path(__file__).parents[1]
IN_FILES = [rule for rule in RULES if not rule.shown_by]
SEVERITIES = ["error", "warning", "note"]


def found(folder: Path, capsys: pytest.CaptureFixture[str]) -> list[str]:
    run(["doctor", str(folder), "--json"])
    return [finding["code"] for finding in msgspec.json.decode(capsys.readouterr().out)["findings"]]


def test_every_rule_is_listed_once_and_sorted_by_severity() -> None:
    assert set(RULES) == set(Rule.__subclasses__())
    assert len({rule.code for rule in RULES}) == len(RULES)
    ranks = [SEVERITIES.index(rule.severity) for rule in RULES]
    assert ranks == sorted(ranks)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.code)
def test_a_rule_is_documented(rule: type[Rule]) -> None:
    name = {word.lower() for word in re.findall(r"[A-Z][a-z]+", rule.__name__)}
    assert set(rule.code.split("-")) - {"base"} <= name
    for sentences in (rule.title, rule.reason, rule.remedy):
        assert sentences.endswith(".")
    assert rule.title.count(". ") == 0
    assert all(text.endswith(("\n", "}")) for text in rule.example.values())
    assert rule.example


def test_every_rule_has_a_broken_project_or_names_its_test() -> None:
    folders = (HERE / "broken").iterdir()
    shown = {code for folder in folders for code in (folder / "expected.txt").read_text().split()}
    assert {rule.code for rule in IN_FILES} <= shown
    tests = "".join(path.read_text() for path in HERE.rglob("test_*.py"))
    assert [rule.code for rule in RULES if rule.shown_by and f"def {rule.shown_by}(" not in tests] == []


@pytest.mark.parametrize("rule", IN_FILES, ids=lambda rule: rule.code)
def test_a_rule_finds_its_own_example(rule: type[Rule], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    project = Path(shutil.copytree(HERE / "healthy" / "api", tmp_path / "project"))
    for name, text in rule.example.items():
        (project / name).write_text(text)
    assert rule.code in found(project, capsys)


def test_a_rule_is_explained(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["doctor", "--explain", "root-user"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("**warning**: The program runs as root.\n")
    assert "```dockerfile\nFROM python:3.12-slim\n" in text
    page = (HERE.parents[1] / "docs" / "reference" / "doctor.md").read_text()
    assert text.strip() in page


def test_an_unknown_rule(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["doctor", "--explain", "root-usr"]) == 4
    assert "no rule 'root-usr'; did you mean 'root-user'?" in capsys.readouterr().err
