"""Request predictions from the model server over HTTP. The dashboard never loads the model itself."""

from __future__ import annotations

import os
from collections.abc import Hashable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import requests

MODEL = "carvision"
TIMEOUT_SECONDS = 10.0
"""Seconds to wait for a connection, and then for an answer."""


class Unreachable(Exception):
    """No model server answers at the address. The message has a remedy."""


class Refused(Exception):
    """The server refused the request.

    Args:
        message: what it said.
        fields: by field name, what is wrong with that field.
    """

    def __init__(self, message: str, fields: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.fields = fields or {}


@dataclass(frozen=True)
class Priced:
    """Prices in US dollars, one per record, and the server's warnings about fields of the first record."""

    prices: list[float]
    version: str
    remarks: dict[str, str] = field(default_factory=dict)


REMARKS = {"unseen-category": "Training never saw this; it is priced as an average car of its kind."}


def about(url: str) -> dict[str, Any]:
    """The served model: version, digest, engine, metrics."""
    found: dict[str, Any] = _ask("GET", f"{url}/models/{MODEL}")
    return found


def fields(url: str) -> dict[str, dict[str, Any]]:
    """By name, the JSON Schema of each field that the model takes, and whether it is `required`."""
    schema = _ask("GET", f"{url}/models/{MODEL}/schema")
    required = schema.get("required", [])
    return {name: {**about, "required": name in required} for name, about in schema["properties"].items()}


def parity(url: str) -> dict[str, Any]:
    """The differences between the packed model and the original, at packing and when the server loaded it."""
    found: dict[str, Any] = _ask("GET", f"{url}/models/{MODEL}/parity")
    return found


def card(url: str) -> str:
    """The model card, in Markdown."""
    return _send("GET", f"{url}/models/{MODEL}/card").text


def price(url: str, records: list[dict[str, Any]]) -> Priced:
    """The price of each record; raises Refused with the errors, by field, of the first record that has any."""
    answer = _ask("POST", f"{url}/models/{MODEL}/predict", {"records": records})
    remarks = {_field(one["pointer"]): REMARKS.get(one["code"], one["code"]) for one in answer.get("warnings", ())}
    prices = [float(prediction["prediction"]) for prediction in answer["predictions"]]
    return Priced(prices, str(answer["version"]), remarks)


def priced(url: str, table: pd.DataFrame) -> pd.DataFrame:
    """The adverts with a new column `modelled`, the served model's price in US dollars."""
    accepted = fields(url)
    records = [_record(row, accepted) for row in table.to_dict("records")]
    return table.assign(modelled=price(url, records).prices if records else [])


def _record(row: dict[Hashable, Any], accepted: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """A row as the model's input. Missing values and levels that the model does not accept are null."""
    record: dict[str, Any] = {}
    for name, schema in accepted.items():
        value = row.get(name)
        unknown = value is None or value != value or value not in schema.get("enum", [value])
        record[name] = None if unknown else value
    return record


def _ask(method: str, url: str, body: Any = None) -> Any:
    answer = _send(method, url, body)
    try:
        return answer.json()
    except ValueError:
        raise Unreachable(f"The server at {url} is not a model server. Check CARVISION_URL.") from None


def _send(method: str, url: str, body: Any = None) -> requests.Response:
    try:
        answer = requests.request(method, url, json=body, headers=_key(), timeout=TIMEOUT_SECONDS)
    except requests.RequestException as error:
        raise Unreachable(_why(error, url)) from None
    if answer.status_code >= 400:
        raise _refused(answer)
    return answer


def _key() -> dict[str, str]:
    """The header with the API key in the file of $ESTIBA_KEY_FILE; empty without one."""
    file = os.environ.get("ESTIBA_KEY_FILE", "")
    return {"x-api-key": Path(file).read_text().strip()} if file else {}


def _why(error: requests.RequestException, url: str) -> str:
    place = url.partition("/models/")[0]
    if isinstance(error, requests.Timeout):
        return f"The model server at {place} did not answer within {TIMEOUT_SECONDS:.0f} seconds."
    if isinstance(error, requests.ConnectionError):
        return f"Nothing answers at {place}. Start the models with `estiba up`, or set CARVISION_URL to where they are."
    return f"{place} cannot be asked: {error}. Check CARVISION_URL."


def _refused(answer: requests.Response) -> Refused | Unreachable:
    """The exception for an answer with a problem document (RFC 9457)."""
    try:
        problem = answer.json()
    except ValueError:
        problem = None
    if not isinstance(problem, dict) or "title" not in problem:
        return Unreachable(f"The server at {answer.url} is not a model server (status {answer.status_code}).")
    wrong: dict[str, str] = {}
    for error in problem.get("errors", ()):
        wrong.setdefault(_field(error["pointer"]), error["detail"])
    return Refused(problem.get("detail") or problem["title"], wrong)


def _field(pointer: str) -> str:
    """`#/records/0/model_year` is about `model_year`."""
    return str(pointer.rsplit("/", 1)[-1].replace("~1", "/").replace("~0", "~"))
