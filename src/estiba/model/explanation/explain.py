"""Explain one prediction by the contribution of each field, on a scale on which the contributions add up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, Literal, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from estiba.core.errors import BadRequest
from estiba.core.suggest import did_you_mean
from estiba.model.coding.coder import Coded
from estiba.model.engines.onnx_reader import NotRecognised
from estiba.model.explanation.mixtures import Mixer
from estiba.model.explanation.scales import (
    TOLERANCE,
    TOLERANCE_OF_SINGLE,
    Relation,
    Scale,
    find_relation,
    log_odds,
    margin_of_class,
)
from estiba.model.explanation.shapley import MAX_FIELDS, Method, Values, additive, model_free
from estiba.model.explanation.tree_values import Sums, TreeValues
from estiba.model.inference.load import Model, TensorModel
from estiba.model.schema.rows import Prediction
from estiba.model.schema.signature import NamedOutput

DEFAULT_ROWS = 20_000
"""Rows that the model may be asked for an explanation without trees."""

MIXED_ROWS, MIXED_ROWS_BY_SUM = 64, 6
"""Mixtures of the explained row and background rows on which the relation to the trees' answers is found, at least and
for each number that the trees answer with."""


class Contribution(msgspec.Struct, frozen=True):
    """The contribution of one field.

    Args:
        value: of the explained record; None where it is missing.
        error: the standard error of a sampled contribution; None for an exact one.
    """

    field: str
    value: Any
    contribution: float
    error: float | None = None


class Explanation(msgspec.Struct, frozen=True):
    """Contributions of the fields of one record to one number of its prediction. `base` and all of them add up to
    `explained`.

    Args:
        output: the number that is explained: a class or target, with the output's name before it where there are more.
        scale: of all numbers here: of the answer itself, or `log-odds` of its probability, or the `margin` of a class.
        method: `trees` (exact), `additive` (exact, of a model without interactions), `subsets` (exact) or
            `permutations` (sampled).
        base: mean over the background rows.
        background_rows: how many; `background_source` says which rows they are.
        asked_rows: mixtures that the model was asked for.
        contributions: the largest first.
        prediction: the answer to the record.
    """

    model: str
    version: str
    output: str
    scale: Scale
    method: Method
    base: float
    explained: float
    background_rows: int
    background_source: Literal["holdout", "sample"]
    asked_rows: int
    contributions: tuple[Contribution, ...]
    prediction: Prediction


class Target(NamedTuple):
    """The column of the engine's answer that is explained.

    Args:
        first, last: the columns of its output, for several classes.
    """

    name: str
    column: int
    scale: Scale
    first: int
    last: int


class Explainer:
    """Explains predictions of one model. Safe to share between threads.

    Raises:
        BadRequest: the model has tensors for inputs, or was packed without background rows.
    """

    def __init__(self, model: Model) -> None:
        if isinstance(model, TensorModel):
            raise BadRequest(f"{model.name} takes tensors; only models of tables are explained.")
        profile = model.profile
        if profile is None:
            hint = "Pack the model again, with this Estiba or a newer one."
            raise BadRequest(f"{model.name}@{model.version} was packed without background rows.", hint=hint)
        self._model = model
        self._background = profile.background.coded
        self._source: Literal["holdout", "sample"] = profile.source
        fields = model.signature.fields
        self._text_fields = {field.name: i for i, field in enumerate(fields) if field.kind == "text"}

    @cached_property
    def _trees(self) -> TreeValues | None:
        """The model's trees; None where its answers are no sums of trees."""
        if self._model.manifest.engine != "onnx":
            return None
        try:
            return TreeValues(self._model.artifact)
        except NotRecognised:
            return None

    def explain(
        self, records: Sequence[Mapping[str, Any]], *, output: str = "", max_rows: int = DEFAULT_ROWS
    ) -> list[Explanation]:
        """Explain the prediction for each record.

        Args:
            output: the class, target or output to explain. By default the positive class, of several classes the one
                that is predicted, of several outputs the first.
            max_rows: rows that the model may be asked for each record where it has no trees.

        Raises:
            BadInput: values that do not match the signature. BadRequest: there is no such output, or no trees and too
                many fields.
        """
        model = self._model
        checked = model.coder.check(model.coder.names.without_unread(list(records)))
        coded = Coded(checked.matrix, checked.texts)
        raw = model.answer(coded)
        predictions, _ = model.predictions.with_warnings(raw)
        shown = model.coder.rows(coded)
        return [
            self._explained(coded.take(np.array([i])), self._target(output, raw[i]), shown[i], predictions[i], max_rows)
            for i in range(len(coded))
        ]

    def _explained(
        self, row: Coded, target: Target, shown: Mapping[str, Any], prediction: Prediction, max_rows: int
    ) -> Explanation:
        scale, values = self._values(Mixer(row, self._background, self._text_fields), target, max_rows)
        errors = [None] * len(shown) if values.errors is None else values.errors.tolist()
        each = zip(self._model.signature.fields, values.contributions.tolist(), errors, strict=True)
        contributions = [Contribution(f.name, shown[f.name], number, error) for f, number, error in each]
        return Explanation(
            model=self._model.name,
            version=self._model.version,
            output=target.name,
            scale=scale,
            method=values.method,
            base=values.base,
            explained=values.base + float(values.contributions.sum()),
            background_rows=len(self._background),
            background_source=self._source,
            asked_rows=values.asked,
            contributions=tuple(sorted(contributions, key=lambda c: -abs(c.contribution))),
            prediction=prediction,
        )

    def _values(self, mixer: Mixer, target: Target, max_rows: int) -> tuple[Scale, Values]:
        if self._trees is not None:
            found = _of_trees(self._trees, mixer, target)
            if found is not None:
                return found
        return self._without_trees(mixer, target, max_rows)

    def _without_trees(self, mixer: Mixer, target: Target, max_rows: int) -> tuple[Scale, Values]:
        if mixer.fields > MAX_FIELDS:
            raise BadRequest(
                f"{self._model.name} has {mixer.fields} fields and no trees; at most {MAX_FIELDS} can be explained."
            )

        def on_own_scale(rows: Coded) -> npt.NDArray[np.float64]:
            return self._model.answer(rows)[:, target.column]

        if target.scale == "probability":
            values = additive(mixer, lambda rows: log_odds(on_own_scale(rows)))
            if values is not None:
                return "log-odds", values
        values = additive(mixer, on_own_scale)
        return target.scale, values or model_free(mixer, on_own_scale, max_rows)

    def _target(self, wanted: str, raw: npt.NDArray[np.float64]) -> Target:
        outputs = self._model.signature.each
        known = [target for output in outputs for target in _targets(output)]
        if not known:
            raise BadRequest(f"{self._model.name} answers with labels alone, which are no numbers to explain.")
        if wanted:
            for target in known:
                if target.name == wanted:
                    return target
            names = [target.name for target in known]
            hint = f"It has: {', '.join(names[:20])}."
            raise BadRequest(f"{self._model.name} has no output {wanted!r}{did_you_mean(wanted, names)}", hint=hint)
        return _usual(outputs, known, raw)


def _targets(output: NamedOutput) -> list[Target]:
    """List the classes of an output, or its one number."""
    signature, head = output.signature, output.signature.head
    before = f"{output.name}." if output.name else ""
    last = output.start + head.columns

    def target(name: str, column: int, scale: Scale) -> Target:
        return Target(name, output.start + column, scale, output.start, last)

    if head.kind == "values":
        return [target(output.name or head.names[0], 0, "value")] if head.columns == 1 else []
    if head.columns == 1:
        return [target(before + signature.outputs.score, 0, "score")]
    scale: Scale = "probability" if head.kind == "probabilities" else "score"
    return [target(before + str(label), i, scale) for i, label in enumerate(head.classes[: head.columns])]


def _usual(outputs: tuple[NamedOutput, ...], known: list[Target], raw: npt.NDArray[np.float64]) -> Target:
    """The target that is explained where none is named."""
    output = next(output for output in outputs if output.signature.head.columns)
    own = [target for target in known if output.start <= target.column < output.stop]
    positive = output.signature.positive
    if len(own) == 1:
        return own[0]
    if positive >= 0:
        return own[positive]
    return own[int(np.nanargmax(raw[own[0].column : own[-1].column + 1]))]


def _of_trees(trees: TreeValues, mixer: Mixer, target: Target) -> tuple[Scale, Values] | None:
    """The values from the trees; None where the explained number is no weighted sum of what they answer."""
    background, row = mixer.background.matrix, mixer.row.matrix
    random = np.random.default_rng(0)
    count = max(MIXED_ROWS, MIXED_ROWS_BY_SUM * trees.count)
    masks = random.random((count, mixer.fields)) < random.random((count, 1))
    mixed = mixer.mix(masks, np.arange(count) % len(background)).matrix
    asked = trees.ask(np.concatenate([mixed, background, row]))
    relation = _relation(asked, target, TOLERANCE_OF_SINGLE if trees.is_single else TOLERANCE)
    if relation is None:
        return None
    contributions = trees.values(row, background) @ relation.weights
    base = float(asked.sums[count:-1].mean(axis=0) @ relation.weights + relation.offset)
    return relation.scale, Values("trees", base, contributions, None, len(asked.sums))


def _relation(asked: Sums, target: Target, tolerance: float) -> Relation | None:
    found = find_relation(asked.sums, asked.answers[:, target.column], target.scale, tolerance)
    if found is None and target.scale == "probability" and target.last - target.first > 2:
        of_output = asked.answers[:, target.first : target.last]
        found = margin_of_class(asked.sums, of_output, target.column - target.first, tolerance)
    return found
