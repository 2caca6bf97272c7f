"""estiba verify."""

from __future__ import annotations

import click

from estiba.cli import completion
from estiba.cli.common_options import json_option, registry_option, trust_option


@click.command(
    epilog="""\b
Examples:
  estiba verify bankchurn
  estiba verify ./artifacts/4f1c... --json
"""
)
@click.argument("ref", shell_complete=completion.refs)
@registry_option
@trust_option
@json_option
def verify(ref: str, registry: str | None, trust: bool, as_json: bool) -> None:
    """Check that a model still answers as it did in training.

    Every file is compared with its digest, and the model predicts its golden rows again. The exit code is 3 if that
    fails.
    """
    from estiba.cli import common_options, model_table, terminal
    from estiba.model.inference.load import load

    model = load(ref, registry=common_options.registry_location(registry), trust=trust)
    if as_json:
        summary = {
            "model": model.name,
            "version": model.version,
            "digest": f"sha256:{model.digest}",
            "parity": model.parity,
            "notes": model.notes,
        }
        terminal.json(summary)
        return
    rows, files = model.golden_count, len(model.manifest.files)
    shown = model_table.proof(model.parity) if model.parity else ""
    terminal.line(f"{model.name}@{model.version} is sound: {files} files as packed, {rows} golden rows ({shown}).")
    for note in model.notes:
        terminal.warning(note)
