"""A worker module with a small pipeline: keys in a header, a cache, and a file of what observers see."""

from __future__ import annotations

import json
from pathlib import Path

from estiba.model.inference.load import Model
from estiba.serving.exchange import Answer, Exchange, Part
from estiba.serving.pipeline import Batch, Computes, Forbidden, Pipeline, TooManyRequests, Unauthorized
from estiba.serving.telemetry.metrics import Metrics
from estiba.serving.workers.worker import main


def admit(exchange: Exchange) -> None:
    """Admit callers by the header X-Key."""
    key = exchange.request.header(b"x-key").decode()
    if not key:
        raise Unauthorized("A key is missing.", hint="Send it as X-Key.")
    if key == "stranger":
        raise Forbidden("This key is not for this model.")
    if key == "greedy":
        raise TooManyRequests("This key has used up its requests.", retry_after=7)
    exchange.caller = key


class Cache:
    """Cache answers by path and body."""

    def __init__(self) -> None:
        self._answers: dict[bytes, Answer] = {}

    def takes(self, model: Model) -> bool:
        return True

    def answer(self, exchange: Exchange, batcher: Computes) -> None:
        if exchange.request.body == b'{"x":13.0}':
            raise RuntimeError("the cache does not like 13")
        key = exchange.request.path + b" " + bytes(exchange.request.body)
        if key in self._answers:
            exchange.endpoint.finish(exchange, self._answers[key])
        else:
            coded = exchange.coded or batcher.model.coder.pack(exchange.records)
            batcher.submit(Part(exchange, coded, (), Keeper(self._answers, key, exchange)))

    def skip(self, exchange: Exchange, model: Model) -> None:
        exchange.policy_fields += b"x-cache: large\r\n"

    def expire(self) -> None:
        """Nothing waits here."""


class Keeper:
    """Keep the answer to a part, and finish the exchange with it."""

    variant = ""

    def __init__(self, answers: dict[bytes, Answer], key: bytes, exchange: Exchange) -> None:
        self.answers, self.key, self.exchange = answers, key, exchange

    def handle(self, exchange: Exchange) -> None:
        raise AssertionError

    def reject(self, exchange: Exchange, error: BaseException) -> None:
        raise AssertionError

    def finish(self, exchange: Exchange, answer: Answer) -> None:
        assert answer.raw is not None
        self.answers[self.key] = answer
        self.exchange.endpoint.finish(self.exchange, answer)

    def refuse(self, exchange: Exchange, error: BaseException) -> None:
        self.exchange.refuse(error)


def observer(file: Path) -> object:
    """Write a line for each batch."""

    def observe(batch: Batch) -> None:
        seen = {
            "callers": [exchange.caller for exchange in batch.exchanges],
            "rows": batch.coded.matrix[:, 0].tolist(),
            "raw": batch.raw[:, 0].tolist(),
            "version": batch.model.version,
            "seconds": batch.ended_at - batch.began_at,
        }
        with file.open("a") as lines:
            lines.write(json.dumps(seen) + "\n")
        if 17.0 in seen["rows"]:
            raise RuntimeError("this observer does not like 17")

    return observe


def build_pipeline(policy: bytes, metrics: Metrics) -> Pipeline:
    assert metrics.folder is not None
    observe = observer(metrics.folder / "observed")
    return Pipeline(admit=(admit,), cache=Cache(), observe=(observe,))  # type: ignore[arg-type]


if __name__ == "__main__":
    main(build_pipeline)
