"""estiba log."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from command_line import Estiba

from estiba.state.store import open_log


@pytest.fixture(autouse=True)
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A log with one prediction a minute, the newest a minute ago; the hundredth of them belongs to another model."""
    url = f"sqlite:///{tmp_path}/state.db"
    monkeypatch.setenv("ESTIBA_STATE", url)
    database = open_log(url)
    with database.transaction() as writing:
        for model in ("price", "other"):
            writing.execute("INSERT INTO deployment VALUES (?, ?, '3', '[\"x\"]', '')", (model, model))
        line = "INSERT INTO prediction VALUES (?, ?, 0, ?, '3', ?, 'ada', '', 0.5, ?, ?, '', 0)"
        for i in range(1, 101):
            model = "other" if i == 100 else "price"
            at = int((time.time() - 60 * i) * 1e6)
            writing.execute(line, (at, f"r{i}", model, model, bytes([0x91, i]), b"\x81\xa5value" + bytes([i])))
    database.close()


def test_the_newest_of_the_last_hour_are_a_table(estiba: Estiba) -> None:
    lines = estiba("log", "price").out.splitlines()
    assert lines[0].split() == ["time", "(UTC)", "model", "input", "answer", "key"]
    assert [line.split()[3:] for line in lines[1:]] == [[f"x={i}", f"value={i}", "ada"] for i in range(20, 0, -1)]


def test_json_is_a_line_for_each(estiba: Estiba) -> None:
    found = [json.loads(line) for line in estiba("log", "--since", "3h", "--limit", "0", "--json").out.splitlines()]
    assert len(found) == 100
    assert (found[0]["model"], found[-1]["id"], found[-1]["input"]) == ("other", "r1", {"x": 1})
    narrow = estiba("log", "--since", "20m", "--until", "10m", "--where", "x!=12", "--limit", "0", "--json").out
    assert [json.loads(line)["input"]["x"] for line in narrow.splitlines()] == [19, 18, 17, 16, 15, 14, 13, 11, 10]


def test_parquet_has_a_column_for_each_value(estiba: Estiba, tmp_path: Path) -> None:
    ran = estiba("log", "price", "--since", "1d", "--parquet", tmp_path / "log.parquet")
    assert (ran.code, "99 predictions are in" in ran.out) == (0, True)
    table = pq.read_table(tmp_path / "log.parquet")
    assert {"at", "id", "row", "model", "version", "key", "ms", "input.x", "output.value"} <= set(table.column_names)
    assert sorted(table["input.x"].to_pylist()) == list(range(1, 100))


def test_mistakes_say_what_would_be_right(estiba: Estiba) -> None:
    wrong = estiba("log", "price", "--where", "y>1")
    assert (wrong.code, "price has no value 'y'" in wrong.err, "x, value, version, key" in wrong.err) == (2, True, True)
    assert "is no condition" in estiba("log", "--where", "x").err
    assert estiba("log", "--since", "soon").code == 2
    assert "There is no prediction in the log" in estiba("log", "nothing").out
