"""JSON objects with a key twice: refused by name in every protocol, with and without the kernel."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from toys import CHURN_ROW

from estiba.core.errors import BadInput
from estiba.model.coding.kernel import compiled
from estiba.serving.protocols.repeated_keys import check_of

ONCE = json.dumps(CHURN_ROW)
TWICE = ONCE[:-1] + ', "age": 99}'


def batch(name: str, *rows: str) -> str:
    return f'{{"{name}": [{", ".join(rows)}]}}'


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        (TWICE, "#/age"),
        (batch("records", ONCE, TWICE), "#/records/1/age"),
        (batch("records", ONCE)[:-1] + f', "records": [{ONCE}]}}', "#/records"),
        (batch("records", *[ONCE] * 900, TWICE), "#/records/900/age"),
        (ONCE.replace('"age"', '"a/b~c d": 1, "age"'), "#/a~1b~0c%20d"),
    ],
)
def test_the_native_path_names_the_key(http: Any, body: str, pointer: str) -> None:
    answer = http.post("/models/churn/predict", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 422, answer.text
    assert answer.json()["errors"] == [{"pointer": pointer, "detail": "this key appears twice"}]


def test_one_number_twice_in_a_model_without_missing_values(http: Any) -> None:
    ask = {"content-type": "application/json"}
    assert http.post("/models/price/predict", content='{"x": 1, "x": 2}', headers=ask).status_code == 422
    assert http.post("/models/price/predict", content='{"x": 1}', headers=ask).status_code == 200
    with_params = '{"records": [{"x": 1}], "params": {"a": 1, "b": ":"}}'
    assert http.post("/models/price/predict", content=with_params, headers=ask).status_code == 200


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/models/churn:predict", batch("instances", TWICE)),
        ("/invocations", batch("dataframe_records", TWICE)),
        ("/v2/models/price/infer", batch("inputs", '{"name": "x", "name": "x", "shape": [1], "datatype": "FP64"}')),
    ],
)
def test_other_protocols_name_it_in_a_sentence(http: Any, path: str, body: str) -> None:
    answer = http.post(path, content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 400, answer.text
    assert "this key appears twice" in answer.text


def test_keys_of_different_objects_are_no_repetition(http: Any) -> None:
    text = json.dumps({"records": [{**CHURN_ROW, "channel": 'a "b": {"age": 1, "age": 2}'}] * 3})
    answer = http.post("/models/churn/predict", content=text, headers={"content-type": "application/json"})
    assert answer.status_code == 200, answer.text


def _made(chance: random.Random, depth: int = 0) -> str:
    kind = chance.choice("nsol" if depth < 4 else "ns")
    if kind == "n":
        return chance.choice(["1", "null", "true", "-2.5e3"])
    if kind == "s":
        return json.dumps(chance.choice(["a", "b:c", 'q"x', "{", "}", "[", "\\", ", "]))
    parts = [_made(chance, depth + 1) for _ in range(chance.randint(0, 4))]
    if kind == "l":
        return f"[{','.join(parts)}]"
    pairs = [f'"{chance.choice("abcdefgh") * chance.randint(1, 12)}" : {part}' for part in parts]
    return f"{{{', '.join(pairs)}}}"


def _repeats(text: str) -> bool:
    found = []

    def note(pairs: list[tuple[str, Any]]) -> None:
        found.append(len(dict(pairs)) < len(pairs))

    json.loads(text, object_pairs_hook=note)
    return any(found)


@pytest.mark.parametrize("kernel", [True, False])
def test_random_documents_are_judged_as_python_judges_them(kernel: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if kernel and compiled() is None:
        pytest.skip("there is no kernel without a C compiler")
    if not kernel:
        monkeypatch.setattr("estiba.serving.protocols.repeated_keys.compiled", lambda: None)
    check, chance = check_of(8), random.Random(7)
    for _ in range(3000):
        text = _made(chance)
        try:
            check(text.encode(), -1)
            refused = False
        except BadInput:
            refused = True
        assert refused == _repeats(text), text


def test_the_kernel_gives_up_on_a_body_made_to_take_long() -> None:
    """Keys of 47 open objects take all places but two, so every later key would look at all of them."""
    kernel = compiled()
    if kernel is None:
        pytest.skip("there is no kernel without a C compiler")
    names = [f'"k{i}":1' for i in range(974)]
    levels = ["{" + ",".join(names[start : start + 21]) + ',"n":' for start in range(0, 974, 21)]
    small = ["{" + '"a":1' + "}"] * 60_000
    body = f"{''.join(levels)}[{','.join(small)}]{'}' * len(levels)}".encode()
    assert kernel.repeated_keys(body, 250, -1)  # it cannot tell
    check_of(250)(body, -1)  # and Python can
    assert not kernel.repeated_keys(f"[{','.join(small)}]".encode(), 250, -1)


def test_bytes_that_are_no_json_end_in_no_crash() -> None:
    check, chance = check_of(300), random.Random(7)
    for _ in range(5000):
        check(bytes(chance.choices(b'{}[]",:\\a', k=chance.randint(0, 80))), -1)
    check(b"[" * 100_000, -1)


@pytest.mark.parametrize(
    "path", ["/models/price/predict", "/v1/models/price:predict", "/v2/models/price/infer", "/invocations"]
)
@pytest.mark.parametrize("key", [r"\ud800", r"x\udc00y", r"\udfff\ud800"])
def test_half_a_surrogate_pair_in_a_key_is_refused(http: Any, path: str, key: str) -> None:
    for body in (f'{{"{key}": 1}}', f'{{"{key}": [1], "{key}": [[2]]}}', f'{{"records": [{{"x": 1, "{key}": 2}}]}}'):
        answer = http.post(path, content=body, headers={"content-type": "application/json"})
        assert answer.status_code in (400, 422), answer.text
