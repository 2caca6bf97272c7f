"""Train what changed in a project and serve its models."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from estiba.model.training import fingerprints
from estiba.serve import Running, check_address, serve

if TYPE_CHECKING:
    from estiba.model.training.runner import Event, Outcome
    from estiba.project import Project


def prepare(
    project: Project, *, force: bool = False, on_event: Callable[[Event], None] = lambda event: None
) -> tuple[Outcome, ...]:
    """Trains what has changed, after a look at whether it could be served at all.

    Args:
        force: train everything. on_event: is told how training goes.

    Raises:
        TrainingFailed: a training failed. BadProject: there is no model. EstibaError: the address is taken or not
            allowed.
    """
    from estiba.model.training.runner import train
    from estiba.serving.http.listen import listen

    check_address(project.server)
    for port in (project.server.port, *own_ports(project)):
        listen(project.server.host, port).close()
    return train(project.workshop, force=force, on_event=on_event)


def up(project: Project, outcomes: Sequence[Outcome], *, on_ready: Callable[[Running], None]) -> None:
    """Serves the models of a project until a signal says stop.

    What was trained here may run its own code; what somebody else put into the registry may not.

    Args:
        outcomes: of `prepare`. on_ready: is told where.

    Raises:
        NotTrusted, BadArtifact: a model is not sound. EstibaError: the address is taken.
    """
    refs, ports = list(project.models), own_ports(project)
    ours = Ours(project.folder, refs, {outcome.version.digest for outcome in outcomes})
    serve(refs, project.server, registry=project.registry, trust=ours.digests, ports=ports, on_ready=on_ready)


class Ours:
    """Artifacts that a project has trained itself: those that are known, and those that it trains meanwhile.

    So a server trusts what `estiba train` makes beside it, as the next server would.
    """

    def __init__(self, folder: Path, names: Sequence[str], known: Collection[str]) -> None:
        self._folder = folder
        self._names = tuple(names)
        self._known = frozenset(known)

    def digests(self) -> frozenset[str]:
        """All that were seen so far."""
        self._known = self._known.union(*(fingerprints.claimed(self._folder, name) for name in self._names))
        return self._known


def own_ports(project: Project) -> dict[int, str]:
    """Models by the port of their own."""
    return {options.port: name for name, options in project.models.items() if options.port is not None}
