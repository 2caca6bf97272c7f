"""Labels sent to a real server: quality is what scikit-learn computes from the same answers and labels."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from postgres import postgres_server
from sklearn import metrics
from toys import CHURN_ROW, Live, until

from estiba.core.errors import BadInput, BadRequest
from estiba.gateway import keys
from estiba.gateway.feedback import MAX_LABELS, GivenLabel, read_labels, record
from estiba.gateway.keys import KeyRequest
from estiba.gateway.log_retention import LogKeeper
from estiba.gateway.quality import quality
from estiba.state.store import open_log, open_state

Start = Callable[..., Live]

CSV = {"content-type": "text/csv"}
DAY = 86_400.0


def logging(folder: Path) -> dict[str, Any]:
    return {"state": f"sqlite:///{folder}/state.db", "log": {"enabled": True}}


def asked(live: Live, model: str, records: list[dict[str, Any]]) -> tuple[str, list[dict[str, Any]]]:
    """The id of a request and its answers."""
    body = httpx.post(f"{live.url}/models/{model}/predict", json={"records": records}).json()
    return body["id"], body["predictions"]


def sent(live: Live, body: Any, **headers: str) -> httpx.Response:
    if isinstance(body, str):
        return httpx.post(f"{live.url}/feedback", content=body, headers={**CSV, **headers})
    return httpx.post(f"{live.url}/feedback", json=body, headers=headers)


def measured(live: Live, model: str) -> Any:
    """Quality of the only version in the only window of a day."""
    found = httpx.get(f"{live.url}/models/{model}/quality?since=1d").json()
    (window,) = found["windows"]
    (version,) = window["versions"]
    return window, version


@pytest.mark.slow
def test_quality_of_classes_is_that_of_scikit_learn(tmp_path: Path, start_server: Start) -> None:
    live = start_server("churn", gateway=logging(tmp_path), workers=2)
    draw = random.Random(4)
    records = [{**CHURN_ROW, "age": draw.randint(18, 90), "balance": draw.uniform(-50, 50)} for _ in range(400)]
    answers, labels, given = [], [], []
    for start in range(0, 400, 100):
        request, predictions = asked(live, "churn", records[start : start + 100])
        truth = [draw.choice([each["label"], "stays", "leaves"]) for each in predictions]
        answers += predictions
        labels += truth
        given += [{"id": request, "row": row, "label": label} for row, label in enumerate(truth)]
    assert sent(live, given[0]).json() == {"accepted": 1, "repeated": 0, "unknown": 0}
    assert sent(live, given[1:200]).json()["accepted"] == 199
    lines = "".join(f"{each['id']},{each['label']},{each['row']}\n" for each in given[200:])
    assert sent(live, f"id,label,row\n{lines}").json()["accepted"] == 200

    window, version = measured(live, "churn")
    said = [each["label"] for each in answers]
    probability = [each["probabilities"]["leaves"] for each in answers]
    leaves = [label == "leaves" for label in labels]
    assert (window["labels"], window["logged"], version["labels"]) == (400, 400, 400)
    assert version["accuracy"] == pytest.approx(metrics.accuracy_score(labels, said))
    low, high = version["accuracy_interval"]
    assert low < version["accuracy"] < high
    assert version["auc"] == pytest.approx(metrics.roc_auc_score(leaves, probability))
    assert version["brier"] == pytest.approx(metrics.brier_score_loss(leaves, probability))
    assert version["log_loss"] == pytest.approx(metrics.log_loss(leaves, probability))
    for each in version["classes"]:
        precision = metrics.precision_score(labels, said, pos_label=each["name"], zero_division=0)
        assert (each["precision"] or 0) == pytest.approx(precision)
        assert each["recall"] == pytest.approx(metrics.recall_score(labels, said, pos_label=each["name"]))
        assert (each["labels"], each["predicted"]) == (labels.count(each["name"]), said.count(each["name"]))


@pytest.mark.slow
def test_quality_of_values_and_labels_that_change(tmp_path: Path, start_server: Start) -> None:
    live = start_server("price", default="price", gateway=logging(tmp_path))
    draw = random.Random(5)
    request, predictions = asked(live, "price", [{"x": draw.uniform(-5, 5)} for _ in range(50)])
    said = [each["value"] for each in predictions]
    labels = [value + draw.gauss(0.3, 1) for value in said]
    first = [{"id": request, "row": row, "label": 0} for row in range(50)]
    final = [{"id": request, "row": row, "label": label} for row, label in enumerate(labels)]
    assert sent(live, first).json() == {"accepted": 50, "repeated": 0, "unknown": 0}
    assert sent(live, final).json() == {"accepted": 50, "repeated": 50, "unknown": 0}
    _, version = measured(live, "price")
    assert version["mae"] == pytest.approx(metrics.mean_absolute_error(labels, said))
    assert version["rmse"] == pytest.approx(metrics.mean_squared_error(labels, said) ** 0.5)
    assert version["bias"] == pytest.approx(sum(said) / 50 - sum(labels) / 50)
    database = open_log(f"sqlite:///{tmp_path}/state.db")
    with database.transaction(write=False) as reading:
        assert reading.execute("SELECT count(*), sum(newest) FROM feedback") == [(100, 50)]
    database.close()


@pytest.mark.slow
def test_wrong_labels_are_named_and_none_is_kept(tmp_path: Path, start_server: Start) -> None:
    live = start_server("churn", "price", default="price", gateway=logging(tmp_path))
    one, _ = asked(live, "churn", [CHURN_ROW])
    several, _ = asked(live, "price", [{"x": 1.0}, {"x": 2.0}])
    right = {"id": one, "label": "stays"}
    for wrong, field, words in (
        ({"id": "nothing", "label": "stays"}, "#/1/id", "no prediction nothing"),
        ({"id": one, "row": 7, "label": "stays"}, "#/1/id", "row 7"),
        ({"id": one, "label": "stay"}, "#/1/label", "did you mean 'stays'"),
        ({"id": one, "label": "leaves"}, "#/1/label", "Another label"),
        ({"id": several, "label": 3}, "#/1/row", "several rows"),
        ({"id": several, "row": 0, "label": "cheap"}, "#/1/label", "no number"),
        ({"id": several, "row": 0, "label": True}, "#/1/label", "no number"),
    ):
        answer = sent(live, [right, wrong])
        assert answer.status_code == 422, answer.text
        assert [each["pointer"] for each in answer.json()["errors"]] == [field]
        assert words.lower() in answer.json()["errors"][0]["detail"].lower()
    for body in ('{"id": 1}', "[", '{"id": "a", "label": null}', '{"id": "", "label": 1}', "[]",
                 '{"id": "a", "label": 1, "row": -1}', '{"id": "a\\u0000", "label": 1}'):  # fmt: skip
        headers = {"content-type": "application/json"}
        answer = httpx.post(f"{live.url}/feedback", content=body, headers=headers)
        assert answer.status_code == 400, (body, answer.text)
    for text in ("id\n1", "id,label,id\na,b,c", "id,label\na", "id,label,row\na,b,x", "id,label\na,b,c", "\xff"):
        answer = httpx.post(f"{live.url}/feedback", content=text.encode("latin-1"), headers=CSV)
        assert answer.status_code == 400, (text, answer.text)
    assert httpx.post(f"{live.url}/feedback", content=b"{}").status_code == 400  # a page of another site could send it
    packed = {"content-encoding": "gzip"}
    assert httpx.post(f"{live.url}/feedback", content=b"x", headers={**CSV, **packed}).status_code == 400
    assert httpx.get(f"{live.url}/models/churn/quality").json()["windows"][-1]["labels"] == 0
    skipping = httpx.post(f"{live.url}/feedback?unknown=skip", json=[right, {"id": "nothing", "label": 1}])
    assert skipping.json() == {"accepted": 1, "repeated": 0, "unknown": 1}
    for path, status in (
        ("/models/none/quality", 404), ("/models/churn/quality?since=x", 400),
        ("/models/churn/quality?since=9w&window=1s", 400),
    ):  # fmt: skip
        assert httpx.get(live.url + path).status_code == status


@pytest.mark.slow
def test_keys_send_labels_for_their_own_models(tmp_path: Path, start_server: Start) -> None:
    database = open_state(f"sqlite:///{tmp_path}/state.db")
    secrets = {
        name: keys.create(database, request)[0]
        for name, request in (
            ("ada", KeyRequest("ada")),
            ("shop", KeyRequest("shop", models=("price",))),
            ("reader", KeyRequest("reader", ("read",))),
        )
    }
    database.close()
    live = start_server("churn", gateway={**logging(tmp_path), "needs_keys": True})
    ask = {"x-api-key": secrets["ada"]}
    assert until(lambda: httpx.get(f"{live.url}/models", headers=ask).status_code == 200, 10)
    answer = httpx.post(f"{live.url}/models/churn/predict", json={"records": [CHURN_ROW]}, headers=ask).json()
    label = {"id": answer["id"], "label": "stays"}
    statuses = {name: sent(live, label, **{"x-api-key": secret}).status_code for name, secret in secrets.items()}
    assert statuses == {"ada": 200, "shop": 422, "reader": 403}
    assert sent(live, label).status_code == 401


@pytest.mark.slow
def test_a_server_without_a_log_says_how_to_get_one(server: Live) -> None:
    answer = sent(server, {"id": "a", "label": 1})
    assert (answer.status_code, "[gateway.log]" in answer.json()["detail"]) == (404, True)


@pytest.mark.slow
def test_labels_are_refused_while_the_log_cannot_be_written(tmp_path: Path, start_server: Start) -> None:
    (tmp_path / "log.db").write_text("no database " * 200)
    live = start_server("price", default="price", gateway=logging(tmp_path))
    request, _ = asked(live, "price", [{"x": 1.0}])
    answer = sent(live, {"id": request, "label": 2.0})
    assert (answer.status_code, "no label was kept" in answer.json()["detail"]) == (503, True)
    (tmp_path / "log.db").unlink()
    assert until(lambda: sent(live, {"id": request, "label": 2.0}).status_code == 200, 10)


@pytest.mark.slow
def test_postgresql_keeps_labels_and_measures_them(start_server: Start) -> None:
    with postgres_server() as postgres:
        live = start_server("churn", gateway={"state": postgres.url, "log": {"enabled": True}})
        request, predictions = asked(live, "churn", [CHURN_ROW, {**CHURN_ROW, "age": 90}])
        labels = [{"id": request, "row": 0, "label": "stays"}, {"id": request, "row": 1, "label": "leaves"}]
        assert sent(live, labels).json()["accepted"] == 2
        assert sent(live, labels).json()["repeated"] == 2
        _, version = measured(live, "churn")
        probability = [each["probabilities"]["leaves"] for each in predictions]
        assert version["log_loss"] == pytest.approx(metrics.log_loss([0, 1], probability), rel=1e-12)


@pytest.mark.slow
def test_labels_of_many_writers_are_all_kept_and_go_with_their_predictions(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/state.db"
    database = open_log(url)
    with database.transaction() as writing:
        form = '{"kind":"value","name":"value"}'
        writing.execute("INSERT INTO deployment VALUES ('d', 'price', '3', '[\"x\"]', ?)", [form])
        about = ("price", "3", "d", "", "", 0.5)
        rows = [(1_000_000 * i, f"r{i}", 0, *about, bytes([0x91, 1]), b"\x81\xa5value\x01", "", 0) for i in range(200)]
        writing.insert("prediction", rows)

    def write(first: int) -> None:
        own = open_log(url)
        record(own, [GivenLabel(f"r{i}", float(i)) for i in range(first, 200, 4)], source=f"w{first}")
        own.close()

    threads = [threading.Thread(target=write, args=(first,)) for first in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    whole = quality(database, "price", since=200.0, window=50.0, now=200.0)
    assert [window.labels for window in whole.windows] == [50, 50, 50, 50]
    assert whole.windows[0].versions[0].bias == pytest.approx(1 - sum(range(50)) / 50)
    with pytest.raises(BadInput, match="r200"):
        record(database, [GivenLabel("r200", 1.0)])
    LogKeeper(url, keep_days=1).tick()
    assert quality(database, "price", since=DAY, window=DAY, now=200.0).windows[0].labels == 0
    database.close()


@pytest.mark.slow
def test_too_many_labels_are_refused() -> None:
    body = b"id,label\n" + b"a,1\n" * (MAX_LABELS + 1)
    with pytest.raises(BadRequest, match="100,001 labels"):
        read_labels(body, "text/csv")
    assert len(read_labels(body, "text/csv", limit=None)) == MAX_LABELS + 1
