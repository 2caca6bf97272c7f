"""Deploy a project to a Kubernetes cluster, and restore the previous objects where it fails."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from estiba.core.errors import EstibaError, NotFound
from estiba.core.stores.disk import explained, temporary
from estiba.deploy.kubernetes.cluster import Cluster
from estiba.deploy.kubernetes.compare import ROLLOUT_KINDS, ClusterProposal, ObjectChange, compare
from estiba.deploy.kubernetes.rollout import delete_unready_pods, failure_reason, wait_until_ready
from estiba.deploy.output.files import Rendered, check, write
from estiba.deploy.target import DeploymentFailed, Report

_AWAITED_KINDS = ("Job", *ROLLOUT_KINDS)
"""Kinds that are waited for, in this order: a Job that failed is the reason why others do not become ready."""

_MAX_LISTED_FILES = 5

_COMPONENT = re.compile(r"(?:\.\./)+(components/[\w.-]+)")
"""A component, in a line of an overlay that is no comment."""


@dataclass(frozen=True)
class KubernetesTarget:
    """A cluster, as a target that a project is deployed to.

    Args:
        folder: of the manifests. overlay: the kustomization to apply, relative to it.
        files: are written to the folder first; None applies the files that are there.
        timeout_seconds: for each workload.
    """

    cluster: Cluster
    folder: Path
    overlay: str = "."
    files: Rendered | None = None
    timeout_seconds: float = 600.0

    @property
    def parts(self) -> str:
        return "objects"

    def propose(self) -> ClusterProposal:
        """Compare the manifests with the cluster; see `DeployTarget`."""
        with self._draft() as draft:
            if not (draft / self.overlay / "kustomization.yaml").is_file():
                raise NotFound(f"There is no kustomization.yaml in {self.folder / self.overlay}.", hint=self._hint())
            self.cluster.check_reachable()
            proposal = compare(self.cluster, draft / self.overlay)
            unrehearsed = list(self._unrehearsed(draft))
        return replace(proposal, warnings=[*self._stale_files(), *unrehearsed, *proposal.warnings])

    def _unrehearsed(self, folder: Path) -> Iterator[str]:
        """Yield a warning for the components of production that staging does not have."""
        if self.overlay != "overlays/production" or not (folder / "overlays/staging/kustomization.yaml").is_file():
            return
        staging, production = (_components(folder / f"overlays/{name}") for name in ("staging", "production"))
        if missing := [name for name in production if name not in staging]:
            yield f"Production includes {', '.join(missing)}, and staging does not: nothing has rehearsed that."

    def apply(self, proposal: ClusterProposal, report: Report) -> None:
        """Write and apply the manifests, and wait until all workloads are ready; see `DeployTarget`."""
        if proposal.missing_secrets:
            namespace, _, name = proposal.missing_secrets[0].partition("/")
            command = f"kubectl --namespace {namespace} create secret generic {name} --from-file=value=FILE"
            names = ", ".join(proposal.missing_secrets)
            raise NotFound(f"The cluster has no secret {names}.", hint=f"Create it with: {command}")
        if self.files is not None:
            write(self.files, self.folder)
        for change in proposal.changes:
            if change.action == "again":
                self.cluster.kubectl("delete", change.resource, "--namespace", change.namespace)
        done = self.cluster.kubectl("apply", "--kustomize", str(self.folder / self.overlay))
        for line in done.output.splitlines():
            if not line.endswith(" unchanged"):
                report(line)
        if done.code:
            raise DeploymentFailed(f"The cluster refused a manifest: {done.said}")
        self._wait(proposal, report)

    def restore(self, proposal: ClusterProposal, report: Report) -> str:
        """Apply the objects of before again, and wait for them; see `DeployTarget`."""
        if not proposal.before:
            return "There is no earlier deployment to restore; the objects are left as they are."
        report("restoring the previous deployment")
        with temporary("restore") as folder:
            file = folder / "before.json"
            file.write_bytes(msgspec.json.encode({"apiVersion": "v1", "kind": "List", "items": proposal.before}))
            done = self.cluster.kubectl("apply", "--filename", str(file))
        if done.code:
            return f"The previous deployment could not be restored: {done.said}"
        new = [change.resource for change in proposal.changes if change.action == "new"]
        left = f" New objects are left as they are: {', '.join(new)}." if new else ""
        old = [change for change in proposal.changes if change.action != "new"]
        unready = [change.resource for change in old if not self._wait_for_restored(change, report)]
        if unready:
            return f"The previous deployment was restored, but these are not ready: {', '.join(unready)}.{left}"
        return f"The previous deployment runs again.{left}"

    @contextmanager
    def _draft(self) -> Iterator[Path]:
        """Yield a folder with the files that `apply` would write, so that a proposal writes none.

        It is made beside the folder, so that paths of an overlay that lead out of the folder are right in it too.
        """
        if self.files is None:
            yield self.folder
            return
        beside = self.folder.parent if os.access(self.folder.parent, os.W_OK) else None
        with temporary("draft", beside) as draft:
            if self.folder.is_dir():
                with explained("copy", self.folder):
                    shutil.copytree(self.folder, draft, symlinks=True, ignore=_hidden_folders, dirs_exist_ok=True)
            write(self.files, draft)
            yield draft

    def _hint(self) -> str:
        names = sorted({path.parent.name for path in self.folder.glob("overlays/*/kustomization.yaml")})
        return f"Overlays: {', '.join(names)}." if names else "Write it with: estiba kubernetes"

    def _stale_files(self) -> list[str]:
        """Name the files that `apply` will overwrite."""
        stale = [] if self.files is None else check(self.files, self.folder)
        stale = [path for path in stale if (self.folder / path).exists()]
        if not stale:
            return []
        names = ", ".join(stale[:_MAX_LISTED_FILES]) + (", ..." if len(stale) > _MAX_LISTED_FILES else "")
        return [f"manifests in {self.folder} are out of date and will be rendered again: {names}"]

    def _wait(self, proposal: ClusterProposal, report: Report) -> None:
        awaited = [change for change in proposal.changes if change.kind in _AWAITED_KINDS]
        for change in sorted(awaited, key=lambda change: _AWAITED_KINDS.index(change.kind)):
            if not wait_until_ready(self.cluster, change, self.timeout_seconds, report):
                outcome = "failed, or did not end in time" if change.kind == "Job" else "did not become ready"
                raise DeploymentFailed(f"{change.resource} {outcome}.\n{self._reason(change)}")

    def _reason(self, change: ObjectChange) -> str:
        try:
            return failure_reason(self.cluster, change)
        except EstibaError as error:  # without a reason, the previous deployment is restored all the same
            return error.message

    def _wait_for_restored(self, change: ObjectChange, report: Report) -> bool:
        if change.kind not in ROLLOUT_KINDS:
            return True
        if change.kind == "StatefulSet" and change.action == "changed":
            delete_unready_pods(self.cluster, change)
        return wait_until_ready(self.cluster, change, self.timeout_seconds, report)


def _hidden_folders(folder: str, names: list[str]) -> list[str]:
    return [name for name in names if name.startswith(".") and (Path(folder) / name).is_dir()]


def _components(overlay: Path) -> list[str]:
    file = overlay / "kustomization.yaml"
    with explained("read", file):
        lines = [line for line in file.read_text().splitlines() if not line.lstrip().startswith("#")]
    return _COMPONENT.findall("\n".join(lines))
