"""Deploy a project with Docker Compose, and restore the last healthy deployment where it fails."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from estiba.core.cli_program import DOCKER
from estiba.core.errors import EstibaError
from estiba.core.stores.disk import explained, temporary
from estiba.deploy.compose.compare import ServiceChange, compare
from estiba.deploy.compose.project import ComposeProject
from estiba.deploy.compose.render import GENERATED
from estiba.deploy.compose.rolling_update import rolling_update
from estiba.deploy.compose.start import start
from estiba.deploy.output.files import Rendered, write
from estiba.deploy.plan import secrets
from estiba.deploy.plan.plan import Plan
from estiba.deploy.target import Report

LAST_GOOD = ".last-good"
"""The folder, beside compose.yaml, of the files of the last deployment that became healthy."""

_KEPT_FILES = ("compose.yaml", ".env", GENERATED)


@dataclass(frozen=True)
class ComposeProposal:
    """The changes to each service."""

    changes: Sequence[ServiceChange]
    warnings: Sequence[str] = ()


@dataclass(frozen=True)
class ComposeTarget:
    """The Docker of this machine, as a target that a project is deployed to.

    Args:
        plan: whose secrets are copied beside compose.yaml. files: rendered from it.
        rolling: services whose containers are replaced one beside the other.
    """

    project: ComposeProject
    plan: Plan
    files: Rendered
    rolling: frozenset[str] = frozenset()

    @property
    def parts(self) -> str:
        return "services"

    def propose(self) -> ComposeProposal:
        """Compare the files with what runs; see `DeployTarget`."""
        done = self.project.docker("version", "--format", "{{.Server.Version}}")
        if done.code:
            raise DOCKER.failure(f"Docker does not answer: {done.said}", done.said)
        with temporary("draft") as draft:
            write(self.files, draft)
            return ComposeProposal(compare(replace(self.project, draft=draft)))

    def apply(self, proposal: ComposeProposal, report: Report) -> None:
        """Write the files, start the containers, and wait until they are healthy; see `DeployTarget`."""
        folder = self.project.folder
        secrets.copy_to(self.plan.folder, self.plan.secrets, folder / "secrets", self.plan.external_secrets)
        if not (folder / LAST_GOOD).exists() and (folder / "compose.yaml").exists():
            self._save_last_good()  # these files may be what runs: then they are what a rollback needs
        write(self.files, folder)
        for change in proposal.changes:
            if change.service in self.rolling and change.action in ("changed", "scaled"):
                rolling_update(self.project, change, report)
        start(self.project)
        self._save_last_good()

    def restore(self, proposal: ComposeProposal, report: Report) -> str:
        """Bring back the files and the containers of the last healthy deployment; see `DeployTarget`."""
        last_good = self.project.folder / LAST_GOOD
        if not (last_good / "compose.yaml").exists():
            return "There is no earlier healthy deployment to restore; the containers are left as they are."
        report("restoring the last healthy deployment")
        _copy(last_good, self.project.folder)
        try:
            start(replace(self.project))  # a copy has no configuration in its cache
        except EstibaError as error:
            return f"The last healthy deployment was restored, but does not become healthy: {error.message}"
        return "The last healthy deployment runs again."

    def _save_last_good(self) -> None:
        _copy(self.project.folder, self.project.folder / LAST_GOOD)


def _copy(source: Path, target: Path) -> None:
    """Copy the files of a deployment. Those in config/ are written in place, as containers have them mounted."""
    with explained("write", target):
        target.mkdir(exist_ok=True)
        for name in _KEPT_FILES:
            if (source / name).is_dir():
                shutil.copytree(source / name, target / name, dirs_exist_ok=True)
            elif (source / name).exists():
                unfinished = target / f".fresh-{os.getpid()}"
                shutil.copy2(source / name, unfinished)
                unfinished.replace(target / name)
