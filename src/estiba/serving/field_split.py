"""Choose the version for a request by a field of its rows, once they are decoded.

All versions of a route take the same rows. So the endpoint of one of them decodes every request, and what it passes on
goes to the batcher of the chosen one, and is answered by that one's endpoint.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

import msgspec

from estiba.model.inference.load import Model
from estiba.serving.catalog import Target
from estiba.serving.exchange import Answer, Exchange
from estiba.serving.pipeline import Pipeline
from estiba.serving.protocols.endpoint import Endpoint


class FieldSplit:
    """Takes the place of a batcher behind the endpoints of the model that decodes.

    Attributes:
        pipeline: the policies that are asked before a version is chosen.
    """

    def __init__(self, model: Model, targets: Sequence[Target], choose: Callable[[Exchange], Target]) -> None:
        """Keep what is needed; `model` is the one that decodes."""
        self.model = model
        self.pipeline = Pipeline()
        self._choose = choose
        self._batchers = tuple(dict.fromkeys(target.deployment.batcher for target in targets))
        coded = _coding(model)
        self._same = {id(target.deployment): _coding(target.deployment.model) == coded for target in targets}

    def use(self, pipeline: Pipeline) -> None:
        """Ask these policies, except for the cache: it is asked for the chosen version."""
        self.pipeline = Pipeline(charge=pipeline.charge)

    def submit(self, exchange: Exchange) -> None:
        """Pass a decoded exchange to the chosen version, which answers it or refuses it."""
        try:
            self._chosen(exchange)
            cast(Endpoint, exchange.endpoint)._ask_model(exchange)
        except Exception as error:
            exchange.refuse(error)

    def run_large(self, exchange: Exchange) -> Answer:
        """Let the chosen version run one exchange, in a thread."""
        return self._chosen(exchange).deployment.batcher.run_large(exchange)

    def settle(self) -> None:
        """Count and observe finished runs of all versions."""
        for batcher in self._batchers:
            batcher.settle()

    def _chosen(self, exchange: Exchange) -> Target:
        """Choose a target, and hand the exchange over to its endpoint."""
        target = self._choose(exchange)
        endpoint = target.endpoints[cast(Endpoint, exchange.endpoint).protocol]
        exchange.endpoint = endpoint
        if target.deployment.model is self.model:
            return target
        if not self._same[id(target.deployment)]:
            exchange.records, exchange.coded = (), None
            endpoint.decode(exchange)
        elif exchange.coded is None:
            coded = self.model.coder.pack(exchange.records)
            if self.model.signature.keep:
                coded = msgspec.structs.replace(coded, kept=self.model.coder.kept(exchange.records))
            exchange.coded = coded
        return target


def _coding(model: Model) -> object:
    """All that the coded form of a row depends on."""
    return [(field.name, field.kind, field.levels, field.unseen, field.nullable) for field in model.signature.fields]
