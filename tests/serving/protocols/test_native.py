"""Predictions asked for over real sockets: right ones, wrong ones, many at once."""

from __future__ import annotations

import gzip
import json
import math
import random
import re
import zlib
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from raw import Reader, post, price
from toys import CHURN_ROW, Live

PATH = "/models/churn/predict"
JSON = {"content-type": "application/json"}


def ask(http: Any, body: bytes | str, path: str = PATH, **headers: str) -> httpx.Response:
    answer: httpx.Response = http.post(path, content=body, headers={**JSON, **headers})
    return answer


def row(**changes: Any) -> dict[str, Any]:
    return {**CHURN_ROW, **changes}


def problems(http: Any, body: Any, status: int = 422) -> dict[str, str]:
    """Detail by pointer of an answer that must be a problem."""
    answer = ask(http, body if isinstance(body, (bytes, str)) else json.dumps(body))
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    found = answer.json()
    assert found["status"] == status
    assert found["instance"] == f"urn:request:{answer.headers['x-request-id']}"
    return {error["pointer"]: error["detail"] for error in found.get("errors", ())}


# What is right


def test_one_bare_record_and_many(http: Any) -> None:
    bare = ask(http, json.dumps(CHURN_ROW)).json()
    many = ask(http, json.dumps({"records": [CHURN_ROW, row(age=42)]})).json()
    assert bare["predictions"] == many["predictions"][:1]
    assert len(many["predictions"]) == 2
    assert (many["model"], many["version"], many["warnings"]) == ("churn", "1", [])
    expected = 1 / (1 + math.exp(-(41 + 10.5 + 1) / 100))
    assert bare["predictions"][0]["probabilities"]["leaves"] == pytest.approx(expected)


@pytest.mark.parametrize("path", [PATH, "/predict", "/models/churn/versions/1/predict", "/models/%63hurn/predict"])
def test_every_way_to_the_model(http: Any, path: str) -> None:
    answer = ask(http, json.dumps(CHURN_ROW), path + "?trace=1")
    assert answer.status_code == 200
    assert answer.headers["x-model-version"] == "1"
    assert answer.headers["content-type"] == "application/json"


def test_csv_answers_as_json_does(http: Any) -> None:
    text = "active,a/b~c d,channel,country,balance,age\r\ntrue,,web,ES,10.5,41\r\n0,2.5,phone,DE,-1e3,18\r\n"
    rows = [CHURN_ROW, {**row(age=18, balance=-1000, country="DE", channel="phone", active=False), "a/b~c d": 2.5}]
    csv = ask(http, b"\xef\xbb\xbf" + text.encode(), **{"content-type": "text/csv; charset=utf-8"}).json()
    plain = ask(http, json.dumps({"records": rows})).json()
    assert csv["predictions"] == plain["predictions"]
    assert csv["warnings"] == plain["warnings"] == [{"code": "unseen-category", "pointer": "#/records/1/channel"}]


@pytest.mark.parametrize("kind", ["application/json; charset=utf-8", "Application/JSON", ""])
def test_content_types_that_mean_json(http: Any, kind: str) -> None:
    assert ask(http, json.dumps(CHURN_ROW), **{"content-type": kind}).status_code == 200


@pytest.mark.parametrize("odd", [{"age": 41.0}, {"active": 1}, {"balance": 1.05e1}])
def test_odd_but_lossless_values_are_taken(http: Any, odd: dict[str, Any]) -> None:
    answer = ask(http, json.dumps(row(**odd)))
    assert answer.json()["predictions"] == ask(http, json.dumps(CHURN_ROW)).json()["predictions"]


def test_a_large_body_is_answered_as_a_small_one(http: Any) -> None:
    rows = [row(age=18 + n % 60, channel=("web", "phone")[n % 2]) for n in range(3000)]
    small = [ask(http, json.dumps({"records": rows[n : n + 100]})).json() for n in range(0, 3000, 100)]
    large = ask(http, json.dumps({"records": rows})).json()
    odd = ask(http, json.dumps({"params": None, "records": [*rows[:-1], {**rows[-1], "age": float(rows[-1]["age"])}]}))
    assert large["predictions"] == odd.json()["predictions"] == [p for part in small for p in part["predictions"]]
    assert len(large["warnings"]) == 100
    assert large["warnings"][1]["pointer"] == "#/records/3/channel"


def test_a_callers_id_is_kept_if_it_is_plain(http: Any) -> None:
    given = ask(http, json.dumps(CHURN_ROW), **{"x-request-id": "a-1"})
    assert given.headers["x-request-id"] == given.json()["id"] == "a-1"
    for bad in (b"x" * 129, b"a b", b"\xc3\xbc", b""):
        answer = http.post(PATH, content=json.dumps(CHURN_ROW), headers={b"x-request-id": bad})
        assert re.fullmatch("[0-9A-Z]{26}", answer.headers["x-request-id"])


# What is wrong

DEEP = 20_000


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b'{"age": NaN}', 400),
        (b'{"age": Infinity}', 400),
        (b'{"records": [{"balance": 1e400}]}', 400),
        (b'{"country": "\xff"}', 400),
        (b'{"country": "\\ud800"}', 400),
        (b'{"records": [{}], "params": ' + b'{"a":' * DEEP + b"1" + b"}" * DEEP + b"}", 400),
        (b"[" * DEEP, 400),
        (b"\xff\xfe{\0}\0", 400),
        (json.dumps(CHURN_ROW).encode() + b"x", 400),
        (b"[]", 422),
        (b"null", 422),
        (b"5", 422),
        (b'"records"', 422),
        (b"{}", 422),
        (b'{"records": []}', 422),
        (b'{"records": {}}', 422),
        (b'{"records": null}', 422),
        (b'{"records": [[]]}', 422),
        (b'{"records": [null]}', 422),
        (b'{"records": [' + b"{}," * 100_000 + b"{}]}", 413),
    ],
)
def test_bodies_that_are_none(http: Any, body: bytes, status: int) -> None:
    problems(http, body, status)
    assert ask(http, json.dumps(CHURN_ROW)).status_code == 200


@pytest.mark.parametrize(
    ("changes", "name", "detail"),
    [
        ({"age": "41"}, "age", 'expected an integer, got "41"'),
        ({"age": 41.5}, "age", "expected an integer, got 41.5"),
        ({"age": True}, "age", "expected an integer, got true"),
        ({"age": None}, "age", "may not be missing; expected an integer"),
        ({"age": 17}, "age", "must be at least 18, got 17"),
        ({"age": 2**53 + 1}, "age", "expected an integer from -2**53 to 2**53, beyond which digits are lost, got 900"),
        ({"age": 10**30}, "age", "expected an integer from -2**53 to 2**53, beyond which digits are lost, got"),
        ({"balance": "x"}, "balance", 'expected a number, got "x"'),
        ({"balance": 10**400}, "balance", "expected a finite number"),
        ({"balance": []}, "balance", "expected a number, got an array"),
        ({"country": "IT"}, "country", 'expected one of: ES, FR, DE, got "IT"'),
        ({"country": 1}, "country", "expected one of: ES, FR, DE, got 1"),
        ({"channel": 1}, "channel", "expected one of: web, shop, got 1"),
        ({"active": "true"}, "active", 'expected true or false, got "true"'),
        ({"active": 2}, "active", "expected true or false, got 2"),
        ({"a/b~c d": "x"}, "a~1b~0c%20d", 'expected a number, got "x"'),
    ],
)
def test_a_wrong_value_is_named(http: Any, changes: dict[str, Any], name: str, detail: str) -> None:
    bare = problems(http, row(**changes))
    many = problems(http, {"records": [CHURN_ROW, row(**changes)]})
    assert list(bare) == [f"#/{name}"]
    assert list(many) == [f"#/records/1/{name}"]
    assert bare[f"#/{name}"].startswith(detail)


def test_a_hint_says_what_json_does_not_have(http: Any) -> None:
    for number in ("NaN", "Infinity", "-Infinity"):
        answer = ask(http, f'{{"age": {number}}}')
        assert answer.status_code == 400
        assert answer.json()["detail"].endswith("JSON has no NaN and no Infinity: send null for a missing value.")
    assert "NaN" not in ask(http, '{"age": "NaN"').json()["detail"]


def test_a_byte_order_mark_is_skipped(http: Any) -> None:
    plain = ask(http, json.dumps(CHURN_ROW)).json()["predictions"]
    assert ask(http, b"\xef\xbb\xbf" + json.dumps(CHURN_ROW).encode()).json()["predictions"] == plain


@pytest.mark.parametrize(("value", "same"), [(1.0, True), (0.0, False), (1, True), (0, False)])
def test_numbers_for_booleans_are_one_and_zero(http: Any, value: float, same: bool) -> None:
    """A column of booleans with gaps is float64 in pandas."""
    expected = ask(http, json.dumps(row(active=same))).json()["predictions"]
    assert ask(http, json.dumps(row(active=value))).json()["predictions"] == expected
    names = [name for name in CHURN_ROW if name != "a/b~c d"]
    cells = [str(value) if name == "active" else str(CHURN_ROW[name]) for name in names]
    body = f"{','.join(names)}\n{','.join(cells)}\n"
    answer = http.post("/predict", content=body, headers={"content-type": "text/csv"})
    assert answer.json()["predictions"] == expected
    body = f",{','.join(names)}\n0,{','.join(cells)}\n"
    answer = http.post("/predict", content=body, headers={"content-type": "text/csv"})
    assert "this column has no name, as pandas' index" in answer.json()["errors"][0]["detail"]


def test_wrong_keys_and_wrong_values_are_named_together(http: Any) -> None:
    wrong = {"agee": 41, "balance": "x", "country": "ES", "channel": "web", "active": True}
    found = problems(http, {"records": [wrong], "params": None})
    assert found["#/records/0/age"] == "missing; it is required"
    assert "did you mean 'age'?" in found["#/records/0/agee"]
    assert found["#/records/0/balance"] == 'expected a number, got "x"'


def test_the_envelope_is_checked(http: Any) -> None:
    assert list(problems(http, {"records": [CHURN_ROW], "a/b": 1})) == ["#/a~1b"]
    assert list(problems(http, {"records": [CHURN_ROW], "params": 5})) == ["#/params"]


def test_no_more_than_a_hundred_problems(http: Any) -> None:
    assert len(problems(http, {"records": [row(age="x")] * 3000})) == 100
    assert len(problems(http, {"records": [{}] * 3000})) == 100


@pytest.mark.parametrize(
    ("text", "status"),
    [
        (b"", 422),
        (b"age\r\n", 422),
        (b"age,agee\r\n1,2\r\n", 422),
        (b"age,age\r\n1,2\r\n", 422),
        (b"age,balance\r\n1\r\n", 422),
        (b'age\r\n"1\r\n', 400),
        (b"age\r\n\xff\r\n", 400),
        (b"age\r\n" + b"1\r\n" * 100_001, 413),
        (b"age,balance,country,channel,active\r\n1_8,1,ES,web,true\r\n", 422),
        (b"age,balance,country,channel,active\r\n18,nan,ES,web,true\r\n", 422),
        (b"age,balance,country,channel,active\r\n18,inf,ES,web,true\r\n", 422),
    ],
)
def test_wrong_csv(http: Any, text: bytes, status: int) -> None:
    answer = ask(http, text, **{"content-type": "text/csv"})
    assert (answer.status_code, answer.json()["status"]) == (status, status), answer.text


@pytest.mark.parametrize(("mark", "name"), [(";", "';'"), ("\t", "a tab"), ("|", "'|'")])
def test_csv_with_another_separator_is_told_so(http: Any, mark: str, name: str) -> None:
    lines = ("age,balance,country,channel,active", "18,1.5,ES,web,true")
    answer = ask(http, "\r\n".join(lines).replace(",", mark).encode(), **{"content-type": "text/csv"})
    assert answer.status_code == 400
    assert f"The separator seems to be {name}: send cells separated by ','" in answer.json()["detail"]


def test_a_form_is_told_which_header_to_send(http: Any) -> None:
    answer = ask(http, json.dumps(CHURN_ROW), **{"content-type": "application/x-www-form-urlencoded"})
    assert answer.json()["detail"].endswith(
        "Add the header -H 'Content-Type: application/json': curl -d sends the type of a form."
    )


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "a" * 300, "json"])
def test_other_content_types(http: Any, kind: str) -> None:
    assert ask(http, json.dumps(CHURN_ROW), **{"content-type": kind}).status_code == 415


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "HEAD"])
def test_other_methods(http: Any, method: str) -> None:
    answer = http.request(method, PATH)
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, POST, QUERY, OPTIONS")


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/models/churns/predict", "churn, price"),
        ("/models/churn/versions/9/predict", "churn@1"),
        ("/models//churn/predict", "/docs"),
        ("/models/churn/predict/", "/docs"),
        ("/nothing", "/docs"),
    ],
)
def test_unknown_paths_say_what_there_is(http: Any, path: str, said: str) -> None:
    answer = ask(http, json.dumps(CHURN_ROW), path)
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"
    assert said in answer.json()["detail"]


@pytest.mark.parametrize("host", ["[", "a b", "evil.example", "\xff", "t:99999999"])
def test_a_strange_host_changes_nothing(server: Live, host: str) -> None:
    with server.connect() as sock:
        for path in (b"/docs/", b"/models/", b"/health"):
            sock.sendall(b"GET %b HTTP/1.1\r\nHost: %b\r\n\r\n" % (path, host.encode("latin-1")))
            answer = Reader(sock).answer()
            assert answer is not None
            assert answer.status in (200, 307, 404)
            assert "evil" not in answer.headers.get("location", "")


# Many at once


def test_batched_calls_are_answered_as_lone_ones(http: Any, server: Live) -> None:
    chance = random.Random(7)
    bodies, lone = [], []
    for n in range(120):
        rows = [row(age=chance.randint(18, 100), channel=chance.choice(["web", "phone"])) for _ in range(n % 5 + 1)]
        bodies.append(json.dumps({"records": rows}).encode())
        lone.append(ask(http, bodies[-1]).json())

    def pipeline(chosen: range) -> list[Any]:
        with server.connect() as sock:
            sock.sendall(b"".join(post(bodies[n], PATH) for n in chosen))
            reader = Reader(sock)
            return [answer.json for _ in chosen if (answer := reader.answer())]

    with ThreadPoolExecutor(8) as pool:
        parts = list(pool.map(pipeline, [range(start, 120, 8) for start in range(8)]))
    together = [parts[n % 8][n // 8] for n in range(120)]
    for one, other in zip(lone, together, strict=True):
        assert one["warnings"] == other["warnings"]
        assert [p["label"] for p in one["predictions"]] == [p["label"] for p in other["predictions"]]
        for a, b in zip(one["predictions"], other["predictions"], strict=True):
            assert a["probabilities"] == pytest.approx(b["probabilities"], rel=1e-14)


def test_a_row_that_breaks_the_model_costs_only_its_own_call(server: Live) -> None:
    def one(n: int) -> tuple[int, bytes]:
        with server.connect() as sock:
            sock.sendall(post(b'{"x": %d}' % (-99 if n % 5 == 0 else n)))
            answer = Reader(sock).answer()
            assert answer is not None
            return answer.status, answer.body

    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(one, range(60)))
    assert [status for status, _ in answers] == [500 if n % 5 == 0 else 200 for n in range(60)]
    failed = json.loads(answers[0][1])
    assert failed["type"] == "urn:estiba:problem:model-failed"
    assert b"secret" not in answers[0][1]
    assert failed["instance"].rpartition(":")[2] in server.log.read_text()
    assert "secret-of-the-house" in server.log.read_text()


def test_the_model_breaks_in_a_thread_too(server: Live) -> None:
    body = b'{"records": [' + b",".join([b'{"x": -99}'] * 20_000) + b"]}"
    with server.connect() as sock:
        sock.sendall(post(body) + post())
        reader = Reader(sock)
        first = reader.answer()
        assert first is not None
        assert (first.status, first.json["type"]) == (500, "urn:estiba:problem:model-failed")
        assert price(reader.answer()) == pytest.approx(0.01)


@pytest.mark.parametrize("count", [1, 20_000])
def test_json_never_holds_nan(server: Live, count: int) -> None:
    with server.connect() as sock:
        sock.sendall(post(b'{"records": [' + b",".join([b'{"x": -97}'] * count) + b"]}"))
        answer = Reader(sock).answer()
    assert answer is not None
    assert b"NaN" not in answer.body
    assert answer.json["predictions"] == [{"value": None}] * count


def test_compressed_bodies_are_read(server: Live) -> None:
    row = json.dumps(CHURN_ROW).encode()
    plain = httpx.post(f"{server.url}/predict", content=row, headers=JSON).json()["predictions"]
    many = json.dumps({"records": [CHURN_ROW] * 3000}).encode()
    for body, encoding in (
        (gzip.compress(row, mtime=0), "gzip"),
        (gzip.compress(row, mtime=0), "X-GZIP"),
        (gzip.compress(row[:20], mtime=0) + gzip.compress(row[20:], mtime=0), "gzip"),
        (zlib.compress(row), "deflate"),
        (row, "identity"),
        (gzip.compress(many, mtime=0), "gzip"),
    ):
        answer = httpx.post(f"{server.url}/predict", content=body, headers={**JSON, "content-encoding": encoding})
        assert answer.json()["predictions"][:1] == plain, encoding
    assert len(answer.json()["predictions"]) == 3000


@pytest.mark.parametrize(
    ("body", "encoding", "status", "said"),
    [
        (b"{}", "br", 415, "reads bodies in gzip and deflate, not 'br'"),
        (b"{}", "gzip, gzip", 415, "not 'gzip, gzip'"),
        (b"{}", "gzip", 400, "not valid gzip data"),
        (gzip.compress(b"{}", mtime=0)[:-4], "gzip", 400, "The gzip data of the body is incomplete"),
        (gzip.compress(b"{}", mtime=0) + b"more", "gzip", 400, "not valid gzip data"),
        (b"", "gzip", 400, "is incomplete"),
        (gzip.compress(b"", mtime=0) * 200_000, "gzip", 400, "more than 16 members"),
        (gzip.compress(b" " * 200_000_000, mtime=0), "gzip", 413, "larger than 16777216 bytes"),
    ],
)
def test_bodies_that_cannot_be_decompressed(server: Live, body: bytes, encoding: str, status: int, said: str) -> None:
    before = server.resident()
    answer = httpx.post(f"{server.url}/predict", content=body, headers={**JSON, "content-encoding": encoding})
    assert (answer.status_code, said in answer.json()["detail"]) == (status, True), answer.text
    assert ("accept-encoding" in answer.headers) == (status == 415)
    assert server.resident() - before < 80_000_000


@pytest.mark.parametrize("method", ["post", "get"])
def test_one_bare_record_at_the_short_path_has_its_prediction_at_the_top_too(http: Any, method: str) -> None:
    row = {key: value for key, value in CHURN_ROW.items() if value is not None}
    asked = {"json": CHURN_ROW} if method == "post" else {"params": {**row, "active": "true"}}
    answer = getattr(http, method)("/predict", **asked).json()
    (prediction,) = answer["predictions"]
    assert prediction.items() <= answer.items()
    assert answer["model"] == "churn"


def test_records_in_a_list_are_answered_in_a_list_only(http: Any) -> None:
    answer = http.post("/predict", json={"records": [CHURN_ROW]}).json()
    assert answer.keys() == {"id", "model", "version", "predictions", "warnings"}
