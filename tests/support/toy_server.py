"""Serves toy models as its one argument, a JSON object, says. Prints its URL once it answers."""

from __future__ import annotations

import math
import sys
import time
from typing import Any

import msgspec

from estiba.model.coding.coder import Coded, Matrix
from estiba.model.inference.load import Model, load
from estiba.serving.options import ServerOptions
from estiba.serving.server import serve

BROKEN_ROW = -99.0
SLOW_ROW = -98.0
LOST_ROW = -97.0


class Moody:
    """An engine that raises at -99, takes a while at -98 and knows no answer at -97; otherwise as the real one."""

    def __init__(self, engine: Any) -> None:
        self.engine = engine

    def predict(self, coded: Coded) -> Matrix:
        if BROKEN_ROW in coded.matrix:
            raise RuntimeError("this row breaks me: secret-of-the-house")
        if SLOW_ROW in coded.matrix:
            time.sleep(0.5)
        answer: Matrix = self.engine.predict(coded)
        return answer * math.nan if LOST_ROW in coded.matrix else answer

    def close(self) -> None:
        self.engine.close()


def moody(model: Model) -> Model:
    model.engine = Moody(model.engine)
    return model


def main() -> None:
    spec = msgspec.json.decode(sys.argv[1])
    options = msgspec.convert({"port": 0, "log": "json", **spec["settings"]}, ServerOptions)
    models = [moody(load(ref, registry=spec["registry"], threads=1)) for ref in spec["models"]]
    serve(models, options, on_ready=lambda url: print(url, flush=True))


if __name__ == "__main__":
    main()
