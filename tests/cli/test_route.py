"""The command `estiba route` shows and changes routes, and names mistakes."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from command_line import Estiba

from estiba.model.registry.registry import Registry, open_registry


@pytest.fixture
def registry(packed_once: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    """A registry with churn@1, the production, and churn@2, the candidate; the user's name is ada."""
    shutil.copytree(packed_once, tmp_path / "registry")
    monkeypatch.setenv("ESTIBA_REGISTRY", str(tmp_path / "registry"))
    monkeypatch.setenv("LOGNAME", "ada")
    monkeypatch.chdir(tmp_path)
    opened = open_registry(tmp_path / "registry")
    opened.set_alias("churn", "candidate", 2)
    return opened


def undated(text: str) -> str:
    return re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d UTC", "DATE", text)


def test_a_route_is_set_shown_and_removed(estiba: Estiba, registry: Registry) -> None:
    assert estiba("route", "churn").out == "churn has no route: churn@1 answers all requests.\n"
    options = ("--sticky", "header:X-User", "--shadow", "2", "--when", "header:X-Beta=1", "candidate")
    made = estiba("route", "churn", "production=95", "candidate=5", *options)
    assert (made.code, undated(made.out)) == (0, (
        "target      version  percent  answers\n"
        "production  1             95  its share\n"
        "candidate   2              5  its share, X-Beta: 1\n"
        "2           2                 nobody, as a shadow\n"
        "Sticky by header:X-User.\n"
        "Change 1, DATE, by ada.\n"
    ))  # fmt: skip
    assert estiba("route", "churn").out == made.out
    found = json.loads(estiba("route", "churn", "--json").out)
    assert found.pop("updated")
    assert found == {
        "model": "churn", "decided_by": "registry", "generation": 1, "by": "ada",
        "targets": [
            {"target": "production", "version": "1", "weight": 95.0},
            {"target": "candidate", "version": "2", "weight": 5.0},
        ],
        "sticky": "header:X-User", "shadow": {"target": "2", "version": "2"},
        "when": [{"header": "X-Beta", "value": "1", "target": "candidate"}],
    }  # fmt: skip
    assert estiba("route", "churn", "--reset").out == "churn has no route now: churn@1 answers all requests.\n"
    again = estiba("route", "churn", "--reset")
    assert (again.code, "churn has no route." in again.err) == (4, True)
    assert json.loads(estiba("route", "churn", "--json").out)["targets"] == []


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("churn", "production=95", "candidate=4"), 2, "The weights add up to 99, not to 100"),
        (("churn", "production=95", "candidat=5"), 4, "churn has no alias 'candidat'"),
        (("churn", "production"), 2, "'production' is no weight"),
        (("churn", "--sticky", "key"), 2, "The weights are missing"),
        (("churn", "production=100", "--sticky", "cookie"), 2, "'cookie' is no kind of stickiness"),
        (
            ("churn", "production=100", "--sticky", "field:agee"),
            2,
            "no field 'agee' to be sticky by; did you mean 'age'",
        ),
        (("churn", "production=100", "--when", "X-Beta=1", "candidate"), 2, "'X-Beta=1' is no condition"),
        (("churn", "production=100", "--reset"), 2, "--reset takes nothing else"),
        (("chum", "production=100"), 4, "There is no model 'chum'"),
        (("chum",), 4, "There is no model 'chum'"),
        (("two words",), 1, "cannot be the name of a model"),
    ],
)
def test_mistakes(estiba: Estiba, registry: Registry, arguments: tuple[str, ...], code: int, message: str) -> None:
    ran = estiba("route", *arguments)
    assert (ran.code, message in ran.err) == (code, True), ran
    assert registry.route_generation("churn") == 0


def test_the_project_file_decides_where_it_has_a_route(
    estiba: Estiba, registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ESTIBA_REGISTRY")
    route = "[gateway.routes.churn]\nweights = { production = 90, candidate = 10 }\n"
    (tmp_path / "estiba.toml").write_text(
        f'[project]\nregistry = "registry"\n\n[models.churn]\ntrain = "a:b"\n\n{route}'
    )
    shown = estiba("route", "churn")
    assert shown.out.splitlines()[-1] == f"{tmp_path}/estiba.toml:7 decides."
    assert "candidate   2             10  its share" in shown.out
    assert json.loads(estiba("route", "churn", "--json").out)["decided_by"] == "file"
    for arguments in (("production=50", "candidate=50"), ("--reset",)):
        ran = estiba("route", "churn", *arguments)
        assert (ran.code, f"{tmp_path}/estiba.toml:7 decides the route of churn" in ran.err) == (5, True)
    assert registry.route_generation("churn") == 0


def test_a_route_that_cannot_be_followed_is_shown_with_the_reason(estiba: Estiba, registry: Registry) -> None:
    estiba("route", "churn", "production=95", "2=5")
    (Path(registry.url) / "models" / "churn" / "versions" / "2.json").unlink()
    shown = estiba("route", "churn")
    assert "Servers keep the route that they had: churn has no version 2" in shown.err
    assert "2           ?              5  its share" in shown.out
    assert "no version 2" in json.loads(estiba("route", "churn", "--json").out)["problem"]


def test_the_history_says_who_changed_what_and_why(estiba: Estiba, registry: Registry) -> None:
    assert estiba("route", "churn", "--history").out == "The route of churn was never changed in this registry.\n"
    options = ("--sticky", "key", "--when", "header:X-Beta=1", "candidate", "--reason", "a first try")
    made = estiba("route", "churn", "production=95", "candidate=5", *options)
    assert made.out.endswith("Reason: a first try\n")
    estiba("route", "churn", "--reset", "--reason", "it was slow")
    found = estiba("route", "churn", "--history")
    shown = re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d", "DATE", found.out).splitlines()
    assert [re.split(r"  +", line.strip()) for line in shown] == [
        ["change", "date (UTC)", "by", "route", "reason"],
        ["2", "DATE", "ada", "--reset", "it was slow"],
        ["1", "DATE", "ada", "production=95 candidate=5 --sticky key --when header:X-Beta=1 candidate", "a first try"],
    ]
    changes = json.loads(estiba("route", "churn", "--history", "--json").out)
    assert [(each["generation"], each["by"], each["reason"]) for each in changes] == [
        (2, "ada", "it was slow"), (1, "ada", "a first try")
    ]  # fmt: skip
    assert changes[0]["route"] is None
    assert changes[1]["route"]["weights"] == {"production": 95, "candidate": 5}
    for number in range(25):
        estiba("route", "churn", f"production={100 - number}", f"candidate={number}")
    kept = [each["generation"] for each in json.loads(estiba("route", "churn", "--history", "--json").out)]
    assert kept == list(range(27, 7, -1))
    for wrong in (("--history", "--reset"), ("--reason", "x"), ("--history", "production=100")):
        assert estiba("route", "churn", *wrong).code == 2
    assert "one line" in estiba("route", "churn", "production=100", "--reason", "x\ny").err
    assert estiba("route", "chur", "--history").code == 4
