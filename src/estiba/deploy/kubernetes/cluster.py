"""Run kubectl for one cluster, and read objects from its output."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from estiba.core import shell
from estiba.core.cli_program import CliProgram
from estiba.core.errors import Unavailable

KUBECTL = CliProgram(
    "kubectl", install_hint="Install kubectl and configure it for a cluster: https://kubernetes.io/docs/tasks/tools."
)

Object = dict[str, Any]
"""A Kubernetes object, as in a manifest or as the cluster has it."""

ObjectKey = tuple[str, str, str]
"""Kind, namespace and name of an object."""


@dataclass(frozen=True)
class Cluster:
    """A cluster that kubectl is configured for. `context` is kubectl's; empty for the current one."""

    context: str = ""

    def kubectl(self, *arguments: str, environment: Mapping[str, str] | None = None) -> shell.Finished:
        """Run kubectl to its end, whatever its exit code. Raises NotFound where it is not installed."""
        options = ("--context", self.context) if self.context else ()
        return replace(KUBECTL, arguments=options).run(*arguments, environment=environment)

    def query(self, *arguments: str) -> Any:
        """Return the JSON output of a kubectl command; raises EstibaError with its complaint where it fails."""
        done = self.kubectl(*arguments, "-o", "json")
        if done.code:
            raise KUBECTL.failure(f"kubectl {' '.join(arguments[:2])}: {done.said}", done.said)
        return msgspec.json.decode(done.output or "{}")

    def check_reachable(self) -> None:
        """Check that the cluster answers.

        Raises:
            NotFound: kubectl is not installed. Unavailable: it is configured for no cluster, or none answers.
        """
        hint = "List the clusters of kubectl with: kubectl config get-contexts. Choose one with --context."
        in_a_pod = "KUBERNETES_SERVICE_HOST" in os.environ
        if not (self.context or in_a_pod) and self.kubectl("config", "current-context").code:
            # kubectl would ask localhost:8080, where anything may answer.
            raise Unavailable("kubectl has no current context, so there is no cluster to deploy to.", hint=hint)
        done = self.kubectl("get", "--raw", "/readyz", "--request-timeout=10s")
        if done.code:
            reason = done.said.splitlines()[-1] if done.said else "kubectl printed no reason"
            raise Unavailable(f"No cluster answers: {reason}", hint=hint)


def items(output: Object) -> list[Object]:
    """Return the objects in the output of kubectl: a list, a single object, or nothing."""
    objects: list[Object] = output.get("items", [output] if output else [])
    return objects


def key(item: Object) -> ObjectKey:
    """Return kind, namespace and name of an object; the namespace is empty where it has none."""
    meta = item["metadata"]
    return item["kind"], meta.get("namespace", ""), meta["name"]


def has_condition(item: Object, condition: str) -> bool:
    """Return whether a condition of an object's status is true."""
    conditions = item.get("status", {}).get("conditions", [])
    return any(each["type"] == condition and each["status"] == "True" for each in conditions)
