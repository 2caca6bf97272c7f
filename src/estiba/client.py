"""Client: asks a server for predictions from Python."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, SupportsFloat
from urllib.parse import quote

import msgspec
import urllib3

import estiba
from estiba.core.errors import BadInput, BadRequest, EstibaError, NotFound, Problem, Unavailable
from estiba.model.schema.rows import Prediction, Records, Rows, records_of

_MAX_PROBLEMS = 100
"""Wrong values that are named in one error, as many as a server names."""

_RETRIED = urllib3.Retry(
    total=4,
    allowed_methods=None,  # a prediction changes nothing, so asking twice is safe
    status_forcelist=(503,),
    backoff_factor=0.1,
    respect_retry_after_header=True,
    raise_on_status=False,
)


class Client:
    """A connection pool to one server. Safe to share between threads; connections are kept open and reused.

    Refused connections and 503 are tried again, four times in all, waiting as long as the server asks for.
    """

    def __init__(self, url: str = "http://127.0.0.1:8000", *, timeout: float = 60.0) -> None:
        """Opens nothing yet.

        Args:
            url: where the server is, such as `http://localhost:8000`; a path prefix is kept.
            timeout: seconds to wait for a connection, and then for each answer.
        """
        self.url = url.rstrip("/")
        self._pool = urllib3.PoolManager(
            retries=_RETRIED, timeout=timeout, maxsize=8, headers={"user-agent": f"estiba/{estiba.__version__}"}
        )

    def predict(self, rows: Rows, *, model: str | None = None, version: str | int | None = None) -> list[Prediction]:
        """One prediction per row.

        Args:
            rows: records by field name, one such record, or a DataFrame.
            model: which model; by default the server's own default.
            version: which of its versions; by default the current one.

        Raises:
            BadInput: values that do not match the model's signature, each named.
            NotFound: no such model or version. Unavailable: not ready, or not reached. EstibaError: anything else.
        """
        if version is not None and model is None:
            raise BadRequest("A version is of a model: say which with model=...")
        records = records_of(rows)
        if not records:
            return []
        _refuse_what_json_changes(records)
        path = f"/models/{model}" if model else ""
        path += f"/versions/{version}" if version is not None else ""
        answer = self._ask("POST", f"{path}/predict", {"records": records})
        predictions: list[Prediction] = answer["predictions"]
        return predictions

    def models(self) -> list[dict[str, Any]]:
        """What the server serves: name, version, digest, metrics and more of each model."""
        found: list[dict[str, Any]] = self._ask("GET", "/models")["models"]
        return found

    def ready(self) -> bool:
        """Whether the server answers predictions now. Does not wait."""
        try:
            return bool(self._pool.request("GET", f"{self.url}/health/ready", retries=False).status == 200)
        except urllib3.exceptions.HTTPError:
            return False

    def close(self) -> None:
        """Closes the connections."""
        self._pool.clear()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _ask(self, method: str, path: str, body: Any = None) -> Any:
        content = None if body is None else msgspec.json.encode(body, enc_hook=_plain)
        try:
            answer = self._pool.request(
                method, self.url + path, body=content, headers={"content-type": "application/json"}
            )
        except urllib3.exceptions.HTTPError as error:
            raise Unavailable(f"{self.url} cannot be reached: {error}", hint="Is the server running there?") from error
        if answer.status == 200:
            return msgspec.json.decode(answer.data)
        raise _error(answer.status, answer.data)


def _refuse_what_json_changes(records: Records) -> None:
    """Raise BadInput for values that the encoder would turn into others: infinity into null, bytes into text."""
    problems: list[Problem] = []
    for number, record in enumerate(records):
        for name, value in record.items() if isinstance(record, Mapping) else ():
            if isinstance(value, (bytes, bytearray, memoryview)):
                detail = "bytes have no form in JSON; decode them to text"
            elif isinstance(value, SupportsFloat) and _is_infinite(value):
                detail = f"expected a finite number, got {float(value)}"
            else:
                continue
            step = quote(str(name).replace("~", "~0").replace("/", "~1"), "!$&'()*+,;=:@/?-._~")
            problems.append(Problem(f"#/records/{number}/{step}", detail))
    if problems:
        raise BadInput(problems[:_MAX_PROBLEMS])


def _is_infinite(value: SupportsFloat) -> bool:
    kind = type(value)
    return (isinstance(value, float) or kind.__name__.startswith("float")) and math.isinf(value)


def _plain(value: Any) -> Any:
    """NumPy's scalars, timestamps and pandas' missing values as JSON."""
    if type(value).__name__ in ("NAType", "NaTType"):
        return None
    if hasattr(value, "isoformat"):
        return value.isoformat()
    if hasattr(value, "item"):
        return value.item()
    raise TypeError(f"A {type(value).__name__} cannot be sent as JSON.")


def _error(status: int, content: bytes) -> EstibaError:
    """The error that a problem+json body tells of."""
    try:
        body = msgspec.json.decode(content)
        errors = [Problem(e["pointer"], e["detail"]) for e in body.get("errors", ())]
        detail = body.get("detail") or body.get("title") or f"The server answered {status}."
    except (msgspec.DecodeError, AttributeError, KeyError, TypeError):
        return EstibaError(f"The server answered {status}, and not as Estiba does.", hint="Is this the right URL?")
    if errors:
        return BadInput(errors)
    kinds: dict[int, type[EstibaError]] = {400: BadRequest, 404: NotFound, 503: Unavailable}
    instance = body.get("instance", "")
    return kinds.get(status, EstibaError)(detail, hint=f"The request was {instance}." if instance else None)
