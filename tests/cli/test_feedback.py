"""estiba feedback and estiba quality."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from command_line import Estiba

from estiba.state.store import open_log


@pytest.fixture(autouse=True)
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten predictions of a minute ago, r0 to r9, of which the model said that all stay."""
    url = f"sqlite:///{tmp_path}/state.db"
    monkeypatch.setenv("ESTIBA_STATE", url)
    database = open_log(url)
    form = '{"kind":"class","name":"label","classes":["stays","leaves"]}'
    with database.transaction() as writing:
        writing.execute("INSERT INTO deployment VALUES ('d', 'churn', '3', '[\"x\"]', ?)", [form])
        about = ("churn", "3", "d", "", "", 0.5)
        at = int((time.time() - 60) * 1e6)
        said = b"\x81\xa5label\xa5stays"
        writing.insert("prediction", [(at, f"r{i}", 0, *about, bytes([0x91, i]), said, "", 0) for i in range(10)])
    database.close()


@pytest.mark.parametrize(
    "content",
    [
        "id,label\n" + "".join(f"r{i},{'leaves' if i < 3 else 'stays'}\n" for i in range(10)),
        json.dumps([{"id": f"r{i}", "label": "leaves" if i < 3 else "stays"} for i in range(10)]),
        "".join(json.dumps({"id": f"r{i}", "label": "leaves" if i < 3 else "stays"}) + "\n" for i in range(10)),
    ],
    ids=["csv", "json", "json lines"],
)
def test_a_file_of_labels_gives_the_quality(estiba: Estiba, tmp_path: Path, content: str) -> None:
    (tmp_path / "labels").write_text(content)
    ran = estiba("feedback", tmp_path / "labels")
    assert (ran.code, ran.out) == (0, "10 labels are kept; 0 of these predictions had one before.\n")
    lines = estiba("quality", "churn").out.splitlines()
    assert " ".join(lines[0].split()) == "from (UTC) version labels logged accuracy 95 % interval AUC"
    assert lines[1].split()[2:] == ["3", "10", "10", "70.0%", "39.7%", "to", "89.2%"]
    found = json.loads(estiba("quality", "churn", "--since", "1h", "--json").out)
    (version,) = found["windows"][0]["versions"]
    assert [each["recall"] for each in version["classes"]] == [1.0, 0.0]


@pytest.mark.slow
def test_wrong_files_say_what_to_do(estiba: Estiba, tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("id,label\nr0,stays\nr77,stays\n")
    ran = estiba("feedback", tmp_path / "labels.csv")
    assert (ran.code, "#/1/id" in ran.err, "r77" in ran.err) == (2, True, True)
    ran = estiba("feedback", tmp_path / "labels.csv", "--skip-unknown", "--json")
    assert json.loads(ran.out) == {"accepted": 1, "repeated": 0, "unknown": 1}
    assert "no label" in estiba("quality", "price").out
