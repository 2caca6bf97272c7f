"""A client of an Estiba server, for predictions from Python."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import urllib3

import estiba
from estiba.core.errors import BadInput, BadRequest, EstibaError, NotFound, Problem, Unavailable
from estiba.core.stores.disk import explained
from estiba.core.variables import KEY_FILE
from estiba.model.schema import binary_tensors
from estiba.model.schema.json_pointer import unescape
from estiba.model.schema.json_values import plain_records
from estiba.model.schema.rows import NOT_FINITE, Prediction, Rows, records_of, warn_not_finite

_RETRIED = urllib3.Retry(
    total=4,
    allowed_methods=None,  # a prediction changes nothing, so a retry is safe
    status_forcelist=(503,),
    backoff_factor=0.1,
    respect_retry_after_header=True,
    raise_on_status=False,
)


class Client:
    """A connection pool to one server. Safe to share between threads; connections are kept open and reused.

    Refused connections and 503 are retried up to four times, with exponential backoff or after the server's
    Retry-After.
    """

    def __init__(
        self,
        url: str = "http://127.0.0.1:8000",
        *,
        key: str | None = None,
        timeout: float = 60.0,
        ca_file: str | Path | None = None,
    ) -> None:
        """Open no connection yet.

        Args:
            url: base URL of the server, such as `http://localhost:8000`; a path prefix is kept.
            key: an API key, where the server asks for one; by default $ESTIBA_KEY, or the content of the file
                $ESTIBA_KEY_FILE. Spaces and line breaks around it, as files of secrets have them, are left out.
            timeout: seconds to wait for a connection, and then for each response.
            ca_file: PEM file of the certificates to trust for `https://`; by default those of this machine.

        Raises:
            EstibaError: the key has other characters than printable ASCII, or there is no such file.
        """
        self.url = url.rstrip("/")
        self._headers = {"user-agent": f"estiba/{estiba.__version__}"}
        if key := (key or os.environ.get("ESTIBA_KEY") or _key_in_file()).strip():
            self._headers["authorization"] = f"Bearer {_checked(key)}"
        trusted = None
        if ca_file is not None:
            with explained("read", Path(ca_file)):
                Path(ca_file).read_bytes()
            trusted = str(ca_file)
        self._pool = urllib3.PoolManager(retries=_RETRIED, timeout=timeout, maxsize=8, ca_certs=trusted)

    def predict(self, rows: Rows, *, model: str | None = None, version: str | int | None = None) -> list[Prediction]:
        """One prediction per row.

        Args:
            rows: records by field name, one such record, or a DataFrame; also all else that `Model.predict` takes.
                Rows without names, such as arrays, cost one more request, for the model's fields. Of a model of tensors
                arrays by field name, or that of the only field, whose first axis counts records; they are sent as
                binary tensors, and predictions hold arrays then.
            model: the model's name; by default the server's default model.
            version: one of its versions; by default the current one.

        A number that is not finite is None, with a RuntimeWarning.

        Raises:
            BadInput: values that do not match the model's signature, each named. BadRequest: `rows` holds no records.
            NotFound: no such model or version. Unavailable: not ready, or not reached. EstibaError: anything else.
        """
        if version is not None and model is None:
            raise BadRequest("A version belongs to a model: name it with model=...")
        if (metadata := self._tensor_model(rows, model)) is not None:
            return self._infer(rows, metadata, version)
        records = records_of(rows, lambda: self._fields(model))
        if not records:
            return []
        path = f"/models/{model}" if model else ""
        path += f"/versions/{version}" if version is not None else ""
        answer = self._ask("POST", f"{path}/predict", {"records": plain_records(records)})
        predictions: list[Prediction] = answer["predictions"]
        warn_not_finite(_not_finite(answer.get("warnings", ())))
        return predictions

    def models(self) -> list[dict[str, Any]]:
        """List the models that are served: name, version, digest, metrics and more of each."""
        found: list[dict[str, Any]] = self._ask("GET", "/models")["models"]
        return found

    def ready(self) -> bool:
        """Return True if the server is ready for predictions now. Does not retry."""
        try:
            answer = self._pool.request("GET", f"{self.url}/health/ready", headers=self._headers, retries=False)
            return bool(answer.status == 200)
        except urllib3.exceptions.HTTPError:
            return False

    def close(self) -> None:
        """Close the connections."""
        self._pool.clear()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _name(self, model: str | None) -> str:
        """The name of the model, or of the default one."""
        name = model or next((served["name"] for served in self.models() if served["default"]), None)
        if name is None:
            raise NotFound("The server has no default model.", hint="Name a model with model=...")
        return name

    def _fields(self, model: str | None) -> list[str]:
        """The names of the model's fields, in order."""
        properties = self._ask("GET", f"/models/{self._name(model)}/schema")["properties"]
        return [field for field, schema in properties.items() if schema.get("x-estiba", {}).get("kind") != "kept"]

    def _tensor_model(self, rows: Rows, model: str | None) -> dict[str, Any] | None:
        """The metadata of a model of tensors that is asked with arrays; None for other models and other rows."""
        named = isinstance(rows, Mapping) and all(hasattr(value, "dtype") for value in rows.values())
        if not (named and any(value.ndim for value in rows.values())) and not _is_array(rows):
            return None
        metadata: dict[str, Any] = self._ask("GET", f"/v2/models/{self._name(model)}")
        return metadata if "batch" in metadata["properties"] else None

    def _infer(self, rows: Rows, metadata: dict[str, Any], version: str | int | None) -> list[Prediction]:
        """Predictions for arrays, by name or of the only field, by the Open Inference Protocol with binary data."""
        name = metadata["name"]
        arrays = rows if isinstance(rows, Mapping) else {metadata["inputs"][0]["name"]: rows}
        header, blocks = binary_tensors.request(metadata["inputs"], arrays)
        path = f"/v2/models/{name}" + (f"/versions/{version}" if version is not None else "") + "/infer"
        length = {binary_tensors.LENGTH_HEADER: str(len(header))}
        answer = self._send("POST", path, header + blocks, {"content-type": "application/octet-stream", **length})
        if answer.status != 200:
            raise _error(answer.status, answer.data)
        outputs = binary_tensors.outputs(answer.data, answer.headers.get(binary_tensors.LENGTH_HEADER))
        if metadata["properties"]["batch"] == "none":
            return [outputs]
        count = len(next(iter(outputs.values())))
        return [{key: array[i] for key, array in outputs.items()} for i in range(count)]

    def _send(self, method: str, path: str, content: bytes | None, headers: dict[str, str]) -> Any:
        try:
            return self._pool.request(method, self.url + path, body=content, headers={**self._headers, **headers})
        except urllib3.exceptions.HTTPError as error:
            raise Unavailable(
                f"{self.url} cannot be reached: {_reason(error)}.", hint="Is the server running there?"
            ) from error

    def _ask(self, method: str, path: str, body: Any = None) -> Any:
        content = None if body is None else msgspec.json.encode(body)
        answer = self._send(method, path, content, {"content-type": "application/json"})
        if answer.status == 200:
            return msgspec.json.decode(answer.data)
        raise _error(answer.status, answer.data)


def _checked(key: str) -> str:
    """The key itself; raises EstibaError for one that no header of HTTP can carry, and does not repeat it."""
    if not (key.isascii() and key.isprintable()):
        raise EstibaError(
            "The API key holds characters that a key cannot have: a line break, or letters beyond ASCII.",
            hint="Copy the key again from where it was shown, all of it and nothing else.",
        )
    return key


def _is_array(rows: Rows) -> bool:
    """Tell whether rows are an array of NumPy's kind, and no table or column with names."""
    return hasattr(rows, "tobytes") and getattr(rows, "ndim", 0) > 0 and not hasattr(rows, "index")


def _reason(error: Exception) -> str:
    """The reason of a failed request in a few words, without the names of Python objects."""
    reason = getattr(error, "reason", None) or error
    cause = reason.__cause__ or reason.__context__
    if isinstance(reason, urllib3.exceptions.NameResolutionError):
        return "its host name is not known"
    refused = isinstance(reason, urllib3.exceptions.NewConnectionError)  # urllib3 counts it as a timeout, too
    if isinstance(reason, urllib3.exceptions.ConnectTimeoutError) and not refused:
        return "no connection within the timeout"
    if isinstance(reason, urllib3.exceptions.ReadTimeoutError):
        return "no answer within the timeout"
    if isinstance(reason, urllib3.exceptions.SSLError):
        return "its certificate is not trusted here (ca_file names a file of certificates to trust)"
    if isinstance(reason, urllib3.exceptions.LocationParseError):
        return "it is no valid URL"
    if isinstance(cause, OSError) and cause.strerror:
        return cause.strerror[0].lower() + cause.strerror[1:]
    if isinstance(reason, urllib3.exceptions.ProtocolError):
        return "the connection was closed before an answer"
    return "the connection failed"


def _not_finite(warnings: Iterable[dict[str, str]]) -> list[tuple[int, str]]:
    """Row and output of each warning about an answer that is not finite."""
    steps = [warning["pointer"].split("/", 3) for warning in warnings if warning["code"] == NOT_FINITE]
    return [(int(row), unescape(name)) for _, _, row, name in steps]


def _error(status: int, content: bytes) -> EstibaError:
    """The error that a problem+json body describes."""
    try:
        body = msgspec.json.decode(content)
        errors = [Problem(e["pointer"], e["detail"]) for e in body.get("errors", ())]
        detail = body.get("error") or body.get("detail") or body.get("title") or f"The server answered {status}."
    except (msgspec.DecodeError, AttributeError, KeyError, TypeError):
        return EstibaError(f"The server answered {status}, and not as Estiba does.", hint="Is this the right URL?")
    if errors:
        return BadInput(errors)
    kinds: dict[int, type[EstibaError]] = {400: BadRequest, 404: NotFound, 503: Unavailable}
    instance = body.get("instance", "")
    return kinds.get(status, EstibaError)(detail, hint=f"The request was {instance}." if instance else None)


def _key_in_file() -> str:
    """The key in the file of $ESTIBA_KEY_FILE; empty without one."""
    if not (name := os.environ.get(KEY_FILE)):
        return ""
    with explained("read", Path(name)):
        return Path(name).read_text()
