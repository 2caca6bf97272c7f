"""Deploy a project to a target: propose changes, apply them, and restore the previous deployment where that fails."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Literal, Protocol, TypeVar

from estiba.core.errors import EstibaError

Action = Literal["new", "changed", "same", "stopped", "scaled", "task", "again", "removed"]
"""The effect of a deployment on one of its parts: `stopped` is started again, `scaled` gets another number of
containers, a `task` has succeeded and runs once more, and a Job that failed runs `again`."""

Report = Callable[[str], None]
"""Called with each step of a deployment, a line at a time."""


class Change(Protocol):
    """The effect of a deployment on one service of a Compose project, or on one object of a cluster."""

    @property
    def action(self) -> Action: ...

    @property
    def title(self) -> str:
        """Name of the part, and in a line what becomes of it."""

    @property
    def details(self) -> str:
        """The change line by line; may be empty."""


class Proposal(Protocol):
    """The effect of a deployment that has not begun."""

    @property
    def changes(self) -> Sequence[Change]: ...

    @property
    def warnings(self) -> Sequence[str]:
        """Sentences that a person should read before agreeing."""

    @property
    def notes(self) -> Sequence[str]:
        """Lines on what else is created, such as secrets."""


P = TypeVar("P", bound=Proposal)


class DeploymentFailed(EstibaError):
    """A deployment that did not become ready. The message has the reason, and the result of the rollback."""


class DeployTarget(Protocol[P]):
    """A place that a project is deployed to: the Docker of this machine, or a cluster."""

    @property
    def parts(self) -> str:
        """The plural of what changes are made to, such as `services`."""

    def propose(self) -> P:
        """Compare the project with what runs. Nothing is changed, on disk or where it runs.

        Raises:
            NotFound: something is missing. Conflict: something else is in the way. Unavailable: the target does not
                answer. EstibaError: a program that was asked failed.
        """

    def apply(self, proposal: P, report: Report) -> None:
        """Make the changes and wait until every part is ready.

        Raises:
            NotFound: something is missing; nothing was changed. DeploymentFailed: a part did not become ready.
        """

    def restore(self, proposal: P, report: Report) -> str:
        """Bring back the previous deployment after `apply` failed; return the result in a sentence."""


def deploy(target: DeployTarget[P], proposal: P, report: Report) -> None:
    """Apply a proposal, and restore the previous deployment where it fails.

    Raises:
        NotFound: something is missing; nothing was changed. DeploymentFailed: a part did not become ready.
    """
    began = time.monotonic()
    try:
        target.apply(proposal, report)
    except DeploymentFailed as error:
        raise DeploymentFailed(f"{error.message}\n{target.restore(proposal, report)}", hint=error.hint) from None
    report(f"All {target.parts} are ready after {time.monotonic() - began:.0f} s.")
