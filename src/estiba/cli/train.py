"""estiba train."""

from __future__ import annotations

from pathlib import Path

import click

from estiba.cli import completion
from estiba.cli.common_options import json_option, project_option


@click.command(
    epilog="""\b
Examples:
  estiba train                  all models that have changed
  estiba train bankchurn        one model
  estiba train --force --json   all models again, with the result as JSON
"""
)
@click.argument("names", metavar="[MODEL]...", nargs=-1, shell_complete=completion.project_models)
@project_option
@click.option("--force", is_flag=True, help="Also train models that have not changed.")
@json_option
def train(names: tuple[str, ...], project: Path | None, force: bool, as_json: bool) -> None:
    """Train, pack and register the project's models.

    A model whose code, data, settings and library versions have not changed is not trained again. A training that
    fails does not change the registry.
    """
    import estiba.project
    from estiba.cli import progress, terminal
    from estiba.cli.up import show_outcomes
    from estiba.model.training import runner as training

    loaded = estiba.project.load(project)
    with progress.trainings() as on_event:
        outcomes = training.train(loaded.workshop, names, force=force, on_event=on_event)
    if not as_json:
        show_outcomes(outcomes)
        return
    terminal.json(
        [
            {
                "ref": str(outcome.version),
                "digest": f"sha256:{outcome.version.digest}",
                "trained": bool(outcome.why),
                "why": outcome.why,
                "seconds": round(outcome.seconds, 3),
                "engine": outcome.manifest.engine,
                "metrics": outcome.manifest.metrics,
                "parity": outcome.manifest.parity,
                "simulated": bool(outcome.manifest.source and outcome.manifest.source.simulated),
                "notes": outcome.notes,
            }
            for outcome in outcomes
        ]
    )
