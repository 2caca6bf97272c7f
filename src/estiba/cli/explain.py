"""estiba explain."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import IO, TYPE_CHECKING, Any

import click

from estiba.cli import completion, terminal
from estiba.cli.common_options import json_option, registry_option, trust_option
from estiba.core.language import translated

if TYPE_CHECKING:
    from estiba.model.explanation.explain import Explanation
    from estiba.model.inference.load import Model

BAR_CHARACTERS = 20


@click.command(
    epilog="""\b
Examples:
  estiba explain bankchurn                                   the model's own example
  estiba explain bankchurn --set Age=60 --set Geography=Germany
  estiba explain bankchurn@3 customer.json --output 1
  curl -s http://localhost:9000/customers/7 | estiba explain bankchurn - --json
"""
)
@click.argument("ref", shell_complete=completion.refs)
@click.argument("file", metavar="[RECORD]", type=click.File("rb"), required=False)
@click.option("--set", "changes", metavar="FIELD=VALUE", multiple=True, help="Change a value; may be repeated.")
@click.option("--output", default="", metavar="NAME",
              help="The class, target or output to explain; by default the positive or predicted class.")  # fmt: skip
@click.option("--rows", type=click.IntRange(100), default=20_000, show_default=True,
              help="Rows that the model may be asked, where it has no trees.")  # fmt: skip
@registry_option
@trust_option
@json_option
def explain(  # noqa: PLR0913 - one parameter per option
    ref: str,
    file: IO[bytes] | None,
    changes: tuple[str, ...],
    output: str,
    rows: int,
    registry: str | None,
    trust: bool,
    as_json: bool,
) -> None:
    """Show what each field contributed to a prediction.

    RECORD is a file with one record as JSON; - reads standard input. The contributions are Shapley values against
    background rows of training: exact for sums of trees, for models without interactions and for few fields, else
    sampled, with their standard error. A server answers the same at POST /models/NAME/explain.
    """
    import msgspec

    from estiba.cli.common_options import registry_location
    from estiba.model.explanation.explain import Explainer
    from estiba.model.inference.load import load

    model = load(ref, registry=registry_location(registry), trust=trust)
    explainer = Explainer(model)
    record = {**(_read(file) if file is not None else model.example), **_changed(model, changes)}
    explanation = explainer.explain([record], output=output, max_rows=rows)[0]
    if as_json:
        terminal.json(msgspec.to_builtins(explanation))
        return
    _show(explanation)


def _read(file: IO[bytes]) -> Mapping[str, Any]:
    import msgspec

    from estiba.core.errors import BadRequest

    try:
        return msgspec.json.decode(file.read(), type=dict[str, Any])
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise BadRequest(f"{file.name} is no record: {error}.", hint='Write one JSON object: {"FIELD": ...}') from None


def _changed(model: Model, changes: tuple[str, ...]) -> dict[str, Any]:
    """The values of `--set`; what a number or boolean field gets is read as JSON, and so is null."""
    import msgspec

    kinds = {field.name: field.kind for field in model.signature.fields}
    values: dict[str, Any] = {}
    for change in changes:
        name, equals, text = change.partition("=")
        if not equals:
            raise click.UsageError(f"--set takes FIELD=VALUE, not {change!r}.")
        values[name] = text
        if text == "null" or kinds.get(name) in ("number", "integer", "boolean"):
            try:
                values[name] = msgspec.json.decode(text.encode())
            except msgspec.DecodeError:
                continue  # the check of the record names the field and what it takes
    return values


def _show(explanation: Explanation) -> None:
    import msgspec

    prediction = msgspec.json.encode(explanation.prediction).decode()
    terminal.line(f"{explanation.model}@{explanation.version}: {prediction}")
    terminal.line()
    sampled = explanation.method == "permutations"
    heads = ("field", "value", "contribution", *(("±",) if sampled else ()), "")
    largest = max((abs(c.contribution) for c in explanation.contributions), default=0.0) or 1.0
    rows = [
        (
            c.field,
            _value(c.value),
            f"{c.contribution:+.4g}",
            *((f"{c.error:.2g}",) if sampled else ()),
            _bar(c.contribution / largest),
        )
        for c in explanation.contributions
    ]
    terminal.table(heads, rows, right={"value", "contribution", "±"})
    terminal.line()
    terminal.line(
        f"Explained: {translated(explanation.scale)} of {explanation.output} = {explanation.explained:.6g}; "
        f"the mean of the background rows is {explanation.base:.6g}."
    )
    _say_method(explanation)


def _say_method(explanation: Explanation) -> None:
    match explanation.method:
        case "trees":
            terminal.line("This is exact, from the model's trees.")
        case "additive":
            terminal.line("This is exact, as no fields of this model interact.")
        case "subsets":
            terminal.line("This is exact, from all subsets of the fields that differ.")
        case "permutations":
            terminal.line("This is sampled: ± is a standard error.")
    if explanation.background_source == "holdout":
        terminal.line(f"The background is {explanation.background_rows} held-out rows.")
    else:
        terminal.line(f"The background is {explanation.background_rows} rows of the training sample.")


def _value(value: Any) -> str:
    return translated("missing") if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _bar(share: float) -> str:
    """A bar to the right on a terminal; nothing in a pipe."""
    if not terminal.is_terminal(sys.stdout) or not share:
        return ""
    return ("▬" if share < 0 else "█") * max(round(abs(share) * BAR_CHARACTERS), 1)
