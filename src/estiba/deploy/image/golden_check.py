"""Ask a server of an image for the golden rows of its models, and compare the answers with those of training."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.error import HTTPError
from urllib.request import ProxyHandler, Request, build_opener

import numpy as np

from estiba.core.errors import EstibaError, ParityError
from estiba.deploy.image.spec import Contents
from estiba.model.artifact import artifact, golden_rows, golden_tensors
from estiba.model.coding.predictions import Predictions
from estiba.model.coding.tensor_coder import CodedTensors, TensorCoder
from estiba.model.inference.load import GOLDEN_FILE
from estiba.model.schema.rows import Prediction

_BATCH_ROWS = 256
"""Golden rows in one request."""


class _Asked(NamedTuple):
    """A version of a model, and the path that asks it and no other version."""

    name: str
    digest: str
    path: str


def _asked(contents: Contents) -> Iterator[_Asked]:
    """The versions of an image. A model with a route sends only a share of the requests to each of them."""
    for name in contents.models:
        for version, digest in contents.versions(name).items():
            own = f"/versions/{version}" if name in contents.routed else ""
            yield _Asked(name, digest, f"/models/{name}{own}/predict")


def ask(server: str, contents: Contents, models: Path) -> int:
    """Ask every version of an image for its golden rows, and return their number.

    Args:
        server: the base URL of a running container. models: the folder of a registry with the models.

    Raises:
        ParityError: an answer differs. EstibaError: the server does not answer.
    """
    return sum(_ask_golden(server, models, asked) for asked in _asked(contents))


def _ask_golden(server: str, models: Path, asked: _Asked) -> int:
    packed = artifact.read(models / "artifacts" / asked.digest)
    signature = packed.manifest.signature
    url = server + asked.path
    if signature.is_tensors:
        return _ask_tensors(url, packed)
    rows = golden_rows.unseal(packed.file(GOLDEN_FILE).read_bytes())
    expected = Predictions(signature).rows(rows.matrix)
    parity = packed.manifest.parity
    tolerance = parity.tolerance if parity else golden_rows.TOLERANCE
    for first in range(0, len(expected), _BATCH_ROWS):
        body = json.dumps({"records": rows.records[first : first + _BATCH_ROWS]}).encode()
        answer = _post(url, body)
        for n, (want, got) in enumerate(zip(expected[first : first + _BATCH_ROWS], answer["predictions"], strict=True)):
            if not _agree(want, got, tolerance):
                raise ParityError(
                    f"In the image, {asked.name} answers golden row {first + n} with {got}; in training it was {want}.",
                    hint="The libraries of the image differ from those that packed the model: train it again.",
                )
    return len(expected)


def _ask_tensors(url: str, packed: artifact.Artifact) -> int:
    """Ask a model of tensors for its golden records, compare the answers, and return the number of records."""
    manifest = packed.manifest
    golden = golden_tensors.unseal(packed.file(GOLDEN_FILE).read_bytes())
    outputs = manifest.signature.head.tensors

    def run(coded: CodedTensors) -> list[Prediction]:
        records = [{name: array.tolist() for name, array in record.items()} for record in golden.arrays()]
        answers = _post(url, json.dumps({"records": records}).encode())["predictions"]
        dtypes = {each.name: object if each.dtype == "string" else each.dtype for each in outputs}
        return [{name: np.array(row[name], dtype) for name, dtype in dtypes.items()} for row in answers]

    tolerance = manifest.parity.tolerance if manifest.parity else golden_tensors.TOLERANCE
    return golden_tensors.prove(TensorCoder(manifest.signature), golden, run, tolerance).rows


def _post(url: str, body: bytes) -> dict[str, Any]:
    request = Request(url, body, {"content-type": "application/json"})
    try:
        with build_opener(ProxyHandler({})).open(request, timeout=60) as answer:
            decoded: dict[str, Any] = json.load(answer)
            return decoded
    except HTTPError as error:
        raise EstibaError(f"{url} answers {error.code}: {error.read().decode(errors='replace')[:500]}") from None
    except OSError as error:
        raise EstibaError(f"{url} does not answer: {error}") from None


def _agree(want: Mapping[str, Any], got: Mapping[str, Any], tolerance: float) -> bool:
    return want.keys() == got.keys() and all(_near(want[key], got[key], tolerance) for key in want)


def _near(want: Any, got: Any, tolerance: float) -> bool:
    if isinstance(want, Mapping):
        return _agree(want, got, tolerance)
    if isinstance(want, float) and isinstance(got, (int, float)):
        return (
            want == got or abs(want - got) <= tolerance * max(1.0, abs(want)) or (math.isnan(want) and math.isnan(got))
        )
    return bool(want == got)
