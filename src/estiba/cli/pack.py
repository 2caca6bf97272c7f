"""estiba pack."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from estiba.cli.common_options import csv_options, json_option, registry_option, sheet_option, trust_option

if TYPE_CHECKING:
    from estiba.model.packing.pack import Packed


@click.command(
    epilog="""\b
Examples:
  estiba pack churn.skops --name churn --sample rows.csv --target Exited
  estiba pack price.onnx --name price --sample rows.parquet --engine onnx
  estiba pack detector.onnx --name detector --sample inputs.npz
  estiba pack old.joblib --name old --sample rows.csv --trust --alias candidate
"""
)
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--name", required=True, help="Name of the model.")
@click.option(
    "--sample",
    type=click.Path(path_type=Path),
    required=True,
    help="Rows like those of training: .csv, .parquet or .xlsx; arrays for an ONNX file of tensors: .npy or .npz.",
)
@click.option(
    "--target", default="", metavar="COLUMN", help="A column of the sample that is not an input of the model."
)
@click.option("--description", default="", help="Purpose of the model, in a sentence.")
@click.option(
    "--engine",
    type=click.Choice(["auto", "onnx", "python"]),
    default="auto",
    show_default=True,
    help="auto converts to ONNX if the answers stay equal; onnx fails if they do not; python never converts.",
)
@click.option(
    "--rows",
    type=click.Choice(["sample", "made"]),
    default="sample",
    show_default=True,
    help="made stores no row of the sample: golden and background rows are composed of levels, quantiles and words.",
)
@click.option("--alias", "aliases", multiple=True, help="Alias to set on the new version; may be repeated.")
@csv_options
@sheet_option
@registry_option
@trust_option
@json_option
def pack(  # noqa: PLR0913 - one parameter per option
    file: Path,
    name: str,
    sample: Path,
    target: str,
    description: str,
    engine: Literal["auto", "onnx", "python"],
    rows: Literal["sample", "made"],
    aliases: tuple[str, ...],
    separator: str,
    decimal: str,
    encoding: str,
    sheet: str,
    registry: str | None,
    trust: bool,
    as_json: bool,
) -> None:
    """Pack and register a saved model file.

    FILE is a model saved with skops, joblib or pickle, ONNX, XGBoost, LightGBM or CatBoost. Its fields
    are read from the sample, and the packed model is compared with the original on rows of it.
    """
    from estiba.cli import common_options, progress
    from estiba.model.coding.csv_file import CsvOptions
    from estiba.model.packing.from_file import from_file
    from estiba.model.packing.pack import PackOptions, register
    from estiba.model.registry.records import check_name
    from estiba.model.training.runner import Event

    check_name(name)
    written = CsvOptions(separator, decimal, encoding)
    written.check()
    options = PackOptions(description=description, engine=engine, rows=rows)
    with progress.trainings() as on_event:
        on_event(Event(name, "reading", str(file)))
        trained, notes = from_file(file, sample, target=target, trust=trust, csv_options=written, sheet=sheet)
        on_event(Event(name, "packing"))
        packed = register(trained, name, options, registry=common_options.registry_location(registry), aliases=aliases)
        on_event(Event(name, "done", packed.ref))
    _show(packed, notes, as_json)


def _show(packed: Packed, notes: tuple[str, ...], as_json: bool) -> None:
    from estiba.cli import model_table, terminal

    manifest = packed.artifact.manifest
    if as_json:
        summary = {
            "ref": packed.ref,
            "digest": f"sha256:{packed.artifact.digest}",
            "new": packed.new,
            "engine": manifest.engine,
            "reason": manifest.reason,
            "parity": manifest.parity,
            "notes": [*notes, *packed.notes],
        }
        terminal.json(summary)
        return
    model_table.models([(manifest, str(packed.version))])
    for note in (*notes, *packed.notes):
        terminal.warning(note)
    terminal.line(f"{packed}{'' if packed.new else ' (already registered)'}")
