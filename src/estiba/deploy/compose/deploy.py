"""Deploy a project with Docker Compose, and restore the last healthy deployment where it fails."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from estiba.core.addresses import is_loopback
from estiba.core.cli_program import DOCKER
from estiba.core.errors import EstibaError
from estiba.core.stores.disk import temporary
from estiba.deploy.compose import last_good, reverse_proxy
from estiba.deploy.compose.compare import ServiceChange, compare, is_up_to_date
from estiba.deploy.compose.project import ComposeProject
from estiba.deploy.compose.render import BIND
from estiba.deploy.compose.rolling_update import rolling_update
from estiba.deploy.compose.secrets_in_use import check_lost_secrets
from estiba.deploy.compose.start import start, unwell
from estiba.deploy.output.files import Rendered, write
from estiba.deploy.plan import secrets
from estiba.deploy.plan.plan import Plan
from estiba.deploy.target import Report


@dataclass(frozen=True)
class ComposeProposal:
    """The changes to each service, and notes on new secrets."""

    changes: Sequence[ServiceChange]
    warnings: Sequence[str] = ()
    notes: Sequence[str] = ()


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
            project = replace(self.project, draft=draft)
            new = self._new_secrets()
            check_lost_secrets(self.plan, project.name, new)
            notes = [f"new      secret {name}  will be generated in {path}" for name, path in new.items()]
            return ComposeProposal(compare(project), warnings=self._open_ports(project), notes=notes)

    def _open_ports(self, project: ComposeProject) -> list[str]:
        """Warnings of model servers that .env lets others reach, although the project file does not ask for keys."""
        if self.plan.policies.needs_keys or self.plan.server.insecure:
            return []
        servers = {service.name for service in self.plan.services if service.models} | {reverse_proxy.NAME}
        return [
            f"{name} is published at {address}: whoever reaches it may use the models without a key. Set bind in "
            f'[compose] to that address instead of {BIND}, or keys = "required" in [gateway].'
            for name, service in project.services.items()
            for address in sorted({str(port.get("host_ip", "0.0.0.0")) for port in service.get("ports", ())})
            if name in servers and not is_loopback(address)
        ]

    def _new_secrets(self) -> Mapping[str, Path]:
        folder = self.project.folder / "secrets"
        return secrets.to_generate(self.plan.folder, self.plan.secrets, folder, self.plan.external_secrets)

    def apply(self, proposal: ComposeProposal, report: Report) -> None:
        """Write the files, start the containers, and wait until they are healthy; see `DeployTarget`."""
        folder = self.project.folder
        secrets.copy_to(self.plan.folder, self.plan.secrets, folder / "secrets", self.plan.external_secrets)
        if self._runs_well():
            self._save_last_good(report)  # also where nobody deployed them with `estiba deploy`
        write(self.files, folder)
        for change in proposal.changes:
            if change.service in self.rolling and change.action in ("changed", "scaled"):
                rolling_update(self.project, change, report)
        start(self.project)
        self._save_last_good(report)

    def restore(self, proposal: ComposeProposal, report: Report) -> str:
        """Bring back the files and the containers of the last healthy deployment; see `DeployTarget`."""
        try:
            with temporary("last-good") as kept:
                if not last_good.fetch(self.project, kept):
                    return "There is no earlier healthy deployment to restore; the containers are left as they are."
                report("restoring the last healthy deployment")
                last_good.copy(kept, self.project.folder)
        except EstibaError as error:
            return f"The last healthy deployment cannot be restored: {error.message}"
        try:
            start(replace(self.project))  # a copy has no configuration in its cache
        except EstibaError as error:
            return f"The last healthy deployment was restored, but does not become healthy: {error.message}"
        return "The last healthy deployment runs again."

    def _runs_well(self) -> bool:
        """Return whether the files in the folder are those of what runs, and all of it is healthy."""
        if not (self.project.folder / "compose.yaml").exists():
            return False
        before = replace(self.project)
        try:
            return is_up_to_date(before) and not unwell(before)
        except EstibaError:
            return False  # such as a compose.yaml that somebody has edited

    def _save_last_good(self, report: Report) -> None:
        try:
            last_good.save(replace(self.project))
        except EstibaError as error:
            report(f"The files of this deployment cannot be kept for a rollback: {error.message}")
