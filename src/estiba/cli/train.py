"""estiba train."""

from __future__ import annotations

from pathlib import Path

import click

from estiba.cli.common_options import json_option, project_option


@click.command(
    epilog="""\b
Examples:
  estiba train                  every model that has changed
  estiba train bankchurn        one model
  estiba train --force --json   all again, with the result for a script
"""
)
@click.argument("names", metavar="[MODEL]...", nargs=-1)
@project_option
@click.option("--force", is_flag=True, help="Train also what has not changed.")
@json_option
def train(names: tuple[str, ...], project: Path | None, force: bool, as_json: bool) -> None:
    """Train, pack and register the project's models.

    A model whose code, data, settings and library versions are as they were is not trained again. A training that
    fails leaves the registry as it was.
    """
    import estiba.project
    from estiba.cli import progress, terminal
    from estiba.cli.up import show_outcomes
    from estiba.model.training import runner as training

    found = estiba.project.load(project)
    with progress.trainings() as on_event:
        outcomes = training.train(found.workshop, names, force=force, on_event=on_event)
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
