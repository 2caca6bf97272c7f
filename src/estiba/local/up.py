"""Train the models of a project before `estiba up` starts anything."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from estiba.model.training.runner import Event, Outcome
    from estiba.project import Project


def train(
    project: Project, *, force: bool = False, on_event: Callable[[Event], None] = lambda event: None
) -> tuple[Outcome, ...]:
    """Train the models that have changed.

    Args:
        force: train all models. on_event: called with the progress of training.

    Raises:
        TrainingFailed: a training failed. BadProject: there is no model.
    """
    from estiba.model.training import runner

    return runner.train(project.workshop, force=force, on_event=on_event)


def model_ports(project: Project) -> dict[int, str]:
    """The models that have a port of their own, by that port."""
    return {options.port: name for name, options in project.models.items() if options.port is not None}
