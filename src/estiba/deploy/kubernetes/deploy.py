"""Rollout: manifests brought to a cluster with kubectl, waited for, and taken back where they do not get ready."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from json import JSONDecoder
from pathlib import Path
from typing import Any, Literal

import msgspec

from estiba.core import shell
from estiba.core.cli_program import MAX_REPORTED_LINES, CliProgram
from estiba.core.errors import EstibaError, NotFound, Unavailable
from estiba.core.stores.disk import temporary

ROLLED = ("Deployment", "StatefulSet", "DaemonSet")
"""Kinds that `kubectl rollout` knows."""

AWAITED = ("Job", *ROLLED)
"""Kinds that are waited for, in this order: what a task should have done is the reason why others do not get ready."""

APPLIED = "kubectl.kubernetes.io/last-applied-configuration"

KUBECTL = CliProgram(
    "kubectl", install_hint="Install kubectl and configure it for a cluster: https://kubernetes.io/docs/tasks/tools."
)

Say = Callable[[str], None]


@dataclass(frozen=True)
class Change:
    """What applying does to one object.

    Args:
        became: `again` is a Job that failed before, and is made anew. difference: shows what changes.
    """

    kind: str
    name: str
    namespace: str
    became: Literal["new", "changed", "same", "again"]
    difference: str = ""

    @property
    def place(self) -> str:
        """As kubectl takes it."""
        return f"{self.kind.lower()}/{self.name}"


@dataclass(frozen=True)
class Target:
    """A kustomization and the cluster that it is for.

    Args:
        folder: of the kustomization. context: of kubectl's settings; empty for the current one.
        timeout: seconds for each workload. A Deployment's own deadline, and a Job's last attempt, may end it before.
    """

    folder: Path
    context: str = ""
    timeout: float = 600.0

    def kubectl(self, *words: str, environment: Mapping[str, str] | None = None) -> shell.Finished:
        """Run kubectl to its end. Raises NotFound if it is not installed."""
        arguments = ("--context", self.context) if self.context else ()
        return replace(KUBECTL, arguments=arguments).run(*words, environment=environment)

    def ask(self, *words: str) -> Any:
        """What kubectl answers as JSON; raises EstibaError with its own words where it fails."""
        done = self.kubectl(*words, "-o", "json")
        if done.code:
            raise EstibaError(f"kubectl {' '.join(words[:2])}: {done.said}")
        return msgspec.json.decode(done.output or "{}")


@dataclass(frozen=True)
class Proposal:
    """What a deployment would do.

    Args:
        objects: of the manifests. changes: one for each of them.
        before: the objects that are in the cluster now, as they were last applied.
        missing: secrets that pods need and nobody has made, as namespace/name.
        abandoned: workloads of the project in the cluster that the manifests no longer have.
    """

    objects: Sequence[dict[str, Any]]
    changes: Sequence[Change]
    before: Sequence[dict[str, Any]] = ()
    missing: Sequence[str] = ()
    abandoned: Sequence[str] = field(default=())

    @property
    def nothing(self) -> bool:
        return all(change.became == "same" for change in self.changes)


class RolledBack(EstibaError):
    """A deployment that did not get ready; the message says why, and what became of it."""


def propose(target: Target) -> Proposal:
    """Compares manifests with the cluster. Nothing is changed.

    Raises:
        NotFound: no kubectl, or no kustomization. Unavailable: no cluster answers. EstibaError: kubectl's complaint.
    """
    if not (target.folder / "kustomization.yaml").is_file():
        raise NotFound(f"There is no kustomization.yaml in {target.folder}.", hint="Write it with: estiba kubernetes")
    _reach(target)
    objects = _objects(target)
    _check_namespaces(target, objects)
    live = _items(target.ask("get", "--kustomize", str(target.folder), "--ignore-not-found"))
    differences = _differences(target, objects, live)
    there = {_key(one): one for one in live}
    return Proposal(
        objects,
        [_change(one, there, differences) for one in objects],
        [found for found in map(_as_applied, live) if found is not None],
        sorted(_missing(target, objects)),
        sorted(_abandoned(target, objects)),
    )


def carry_out(target: Target, proposal: Proposal, say: Say) -> None:
    """Applies manifests, waits until all workloads are ready, and restores what was there where one is not.

    Args:
        say: is told each step, a line at a time.

    Raises:
        NotFound: a secret is missing; nothing was changed. RolledBack: what was applied did not get ready.
    """
    if proposal.missing:
        namespace, _, name = proposal.missing[0].partition("/")
        hint = f"kubectl --namespace {namespace} create secret generic {name} --from-file=value=FILE"
        raise NotFound(f"The cluster has no secret {', '.join(proposal.missing)}.", hint=f"Make it with: {hint}")
    began = time.monotonic()
    for change in proposal.changes:
        if change.became == "again":
            target.kubectl("delete", change.place, "--namespace", change.namespace)
    done = target.kubectl("apply", "--kustomize", str(target.folder))
    for line in done.output.splitlines():
        if not line.endswith(" unchanged"):
            say(line)
    if done.code:
        raise RolledBack(f"The cluster refused a manifest: {done.said}\n{_restore(target, proposal, say)}")
    awaited = [change for change in proposal.changes if change.kind in AWAITED]
    for change in sorted(awaited, key=lambda one: AWAITED.index(one.kind)):
        if not _ready(target, change, say):
            why = _reason(target, proposal, change)
            became = "failed, or did not end in time" if change.kind == "Job" else "did not get ready"
            raise RolledBack(f"{change.place} {became}.\n{why}\n{_restore(target, proposal, say)}")
    say(f"All is ready after {time.monotonic() - began:.0f} s.")


def _reach(target: Target) -> None:
    hint = "See which cluster kubectl talks to: kubectl config get-contexts. Name another with --context."
    in_a_pod = "KUBERNETES_SERVICE_HOST" in os.environ
    if not (target.context or in_a_pod) and target.kubectl("config", "current-context").code:
        # kubectl would ask localhost:8080, where anything may answer.
        raise Unavailable("kubectl knows no cluster: its settings have no current context.", hint=hint)
    done = target.kubectl("get", "--raw", "/readyz", "--request-timeout=10s")
    if done.code:
        said = done.said.splitlines()[-1] if done.said else ""
        raise Unavailable(f"No cluster answers: {said}", hint=hint)


def _objects(target: Target) -> list[dict[str, Any]]:
    """The manifests. A trial of `apply` would print what is in the cluster; `create` prints what is in the files."""
    done = target.kubectl("create", "--kustomize", str(target.folder), "--dry-run=client", "-o", "json")
    if done.code:
        raise EstibaError(f"{target.folder}: {done.said}", hint="Were these manifests written for this cluster?")
    decoder, text, found = JSONDecoder(), done.output.strip(), []
    while text:
        one, end = decoder.raw_decode(text)
        found += _items(one)
        text = text[end:].lstrip()
    return found


def _check_namespaces(target: Target, objects: Sequence[dict[str, Any]]) -> None:
    wanted = {one["metadata"]["namespace"] for one in objects if "namespace" in one["metadata"]}
    wanted -= {one["metadata"]["name"] for one in objects if one["kind"] == "Namespace"}
    for name in sorted(wanted):
        if not target.ask("get", "namespace", name, "--ignore-not-found"):
            hint = f"Make it with: kubectl create namespace {name}"
            raise NotFound(f"The cluster has no namespace {name}.", hint=hint)


def _items(found: dict[str, Any]) -> list[dict[str, Any]]:
    """kubectl gives a list, a single object, or nothing."""
    items: list[dict[str, Any]] = found.get("items", [found] if found else [])
    return items


def _key(one: dict[str, Any]) -> tuple[str, str, str]:
    meta = one["metadata"]
    return one["kind"], meta.get("namespace", ""), meta["name"]


def _change(
    one: dict[str, Any], there: Mapping[tuple[str, str, str], dict[str, Any]], differences: Mapping[str, str]
) -> Change:
    kind, namespace, name = key = _key(one)
    if key not in there:
        return Change(kind, name, namespace, "new")
    if kind == "Job" and _is_so(there[key], "Failed"):
        return Change(kind, name, namespace, "again")
    difference = differences.get(".".join((kind, namespace, name)), "")
    return Change(kind, name, namespace, "changed" if difference else "same", difference)


def _differences(target: Target, objects: Sequence[dict[str, Any]], live: Sequence[dict[str, Any]]) -> dict[str, str]:
    """By kind.namespace.name, how the cluster's object would change, as `kubectl diff` says."""
    spaces = {one["metadata"]["name"] for one in objects if one["kind"] == "Namespace"}
    if spaces - {one["metadata"]["name"] for one in live if one["kind"] == "Namespace"}:
        return {}  # the cluster cannot compare what is in a namespace that it does not have; all of it is new
    plain = {"KUBECTL_EXTERNAL_DIFF": ""}
    done = target.kubectl("diff", "--kustomize", str(target.folder), environment=plain)
    if done.code > 1:
        raise EstibaError(f"kubectl diff: {done.said}")
    found = {}
    for block in re.split(r"^diff (?=-)", done.output, flags=re.MULTILINE)[1:]:
        head, _, body = block.partition("\n")
        # Files are named VERSION.KIND.NAMESPACE.NAME below a folder for each side; versions hold dots.
        file = head.rsplit("/", 1)[-1].strip()
        parts = re.fullmatch(r"(?:.*?\.)?v\d\w*\.(?P<kind>\w+)\.(?P<rest>.*)", file)
        if parts is not None:
            found[f"{parts['kind']}.{parts['rest']}"] = "\n".join(body.splitlines()[2:])
    return found


def _as_applied(one: dict[str, Any]) -> dict[str, Any] | None:
    text = one["metadata"].get("annotations", {}).get(APPLIED)
    return msgspec.json.decode(text) if text else None


def _missing(target: Target, objects: Sequence[dict[str, Any]]) -> set[str]:
    """Secrets that pods mount, less those that the manifests or the cluster have."""
    wanted = set()
    for one in objects:
        for volume in _pod(one).get("volumes", []):
            sources = [volume, *volume.get("projected", {}).get("sources", [])]
            names = [s["secret"].get("name") or s["secret"].get("secretName") for s in sources if "secret" in s]
            wanted |= {f"{one['metadata'].get('namespace', 'default')}/{name}" for name in names}
    made = {"/".join(_key(one)[1:]) for one in objects if one["kind"] in ("Secret", "ExternalSecret")}
    for space in {name.partition("/")[0] for name in wanted}:
        made |= {"/".join(_key(one)[1:]) for one in _items(target.ask("get", "secrets", "--namespace", space))}
    return wanted - made


def _abandoned(target: Target, objects: Sequence[dict[str, Any]]) -> set[str]:
    rolled = [one for one in objects if one["kind"] in ROLLED]
    if not rolled:
        return set()
    meta = rolled[0]["metadata"]
    mine = {f"app.kubernetes.io/{word}" for word in ("part-of", "managed-by")}
    labels = ",".join(f"{name}={value}" for name, value in sorted(meta.get("labels", {}).items()) if name in mine)
    if labels.count(",") != len(mine) - 1:
        return set()
    place = ("--namespace", meta.get("namespace", "default"), "--selector", labels)
    live = {_key(one) for one in _items(target.ask("get", "deployments,statefulsets", *place))}
    return {f"{kind.lower()}/{name}" for kind, _, name in live - {_key(one) for one in rolled}}


def _pod(one: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = one.get("spec", {}).get("template", {}).get("spec", {})
    return found


def _ready(target: Target, change: Change, say: Say) -> bool:
    if change.kind == "Job":
        return _done(target, change, say)
    limit = f"--timeout={target.timeout:g}s"
    done = target.kubectl("rollout", "status", change.place, "--namespace", change.namespace, limit)
    if done.code == 0:
        say(f"{change.place} is ready")
    return done.code == 0


def _done(target: Target, change: Change, say: Say) -> bool:
    """Whether a Job does its work in time; kubectl can wait for its success or its failure, not for either."""
    until = time.monotonic() + target.timeout
    while time.monotonic() < until:
        done = target.kubectl("get", change.place, "--namespace", change.namespace, "-o", "json")
        # A cluster that is silent for a moment is asked again: giving up here would leave half of a deployment.
        job = msgspec.json.decode(done.output) if done.code == 0 else {}
        if _is_so(job, "Failed"):
            return False
        if _is_so(job, "Complete"):
            say(f"{change.place} is done")
            return True
        time.sleep(1)
    return False


def _restore(target: Target, proposal: Proposal, say: Say) -> str:
    """Applies what was there before; says what became of it."""
    new = [change.place for change in proposal.changes if change.became == "new"]
    if not proposal.before:
        return "This was the first deployment, so there is nothing to go back to; what was applied is left to look at."
    say("restoring what was there before")
    with temporary("restore") as folder:
        file = folder / "before.json"
        file.write_bytes(msgspec.json.encode({"apiVersion": "v1", "kind": "List", "items": proposal.before}))
        done = target.kubectl("apply", "--filename", str(file))
    if done.code:
        return f"What was there before could not be restored: {done.said}"
    left = f" New objects are left to look at: {', '.join(new)}." if new else ""
    stuck = [change.place for change in proposal.changes if change.became != "new" and not _back(target, change, say)]
    if stuck:
        return f"What was there before was applied again, but is not ready: {', '.join(stuck)}.{left}"
    return f"What was there before runs again.{left}"


def _back(target: Target, change: Change, say: Say) -> bool:
    """Whether a workload is as it was. A StatefulSet waits for a pod that will never be ready: it has to go."""
    if change.kind not in ROLLED:
        return True
    if change.kind == "StatefulSet" and change.became == "changed":
        for pod in _pods(target, change):
            if not _is_ready(pod):
                target.kubectl("delete", "pod", pod["metadata"]["name"], "--namespace", change.namespace)
    return _ready(target, change, say)


def _pods(target: Target, change: Change) -> list[dict[str, Any]]:
    """The pods of a workload, the newest first."""
    owner = target.ask("get", change.place, "--namespace", change.namespace)
    labels = ",".join(f"{name}={value}" for name, value in owner["spec"]["selector"]["matchLabels"].items())
    pods = _items(target.ask("get", "pods", "--namespace", change.namespace, "--selector", labels))
    return sorted(pods, key=lambda pod: str(pod["metadata"]["creationTimestamp"]), reverse=True)


def _is_ready(pod: dict[str, Any]) -> bool:
    return _is_so(pod, "Ready")


def _is_so(one: dict[str, Any], condition: str) -> bool:
    conditions = one.get("status", {}).get("conditions", [])
    return any(each["type"] == condition and each["status"] == "True" for each in conditions)


def _reason(target: Target, proposal: Proposal, change: Change) -> str:
    """What is known of the newest pod that is not ready: its state, its events, its last words."""
    failing = next((pod for pod in _pods(target, change) if not _is_ready(pod)), None)
    if failing is None:
        return "None of its pods is there that is not ready: see kubectl describe."
    name, place = failing["metadata"]["name"], ("--namespace", change.namespace)
    lines = [f"pod {name}:"]
    status = failing["status"]
    states = [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]
    stuck = next((one for one in states if not one.get("ready")), None)
    if stuck in status.get("initContainerStatuses", []):
        states = [stuck]  # the others only wait for it
    # Of a container that waits or has ended, the log is that of its end; one that runs again has new words.
    again = any(one.get("restartCount") and "running" in one.get("state", {}) for one in states)
    which = [] if stuck is None else ["--container", stuck["name"]]
    log = target.kubectl("logs", name, *which, *place, f"--tail={MAX_REPORTED_LINES}", *(["--previous"] * again))
    lines += [f"  {one['name']}: {text}" for one in states for text in _states(one, log.output)]
    events = _items(target.ask("get", "events", *place, "--field-selector", f"involvedObject.name={name}"))
    for event in sorted(events, key=lambda one: str(one.get("lastTimestamp")))[-MAX_REPORTED_LINES:]:
        if event.get("type") == "Warning":
            lines.append(f"  {event.get('reason')}: {event.get('message', '').strip()}")
    if log.code == 0 and log.output.strip():
        lines += ["last lines of its log:", *(f"  {line}" for line in log.output.splitlines()[-MAX_REPORTED_LINES:])]
    return "\n".join(lines)


def _states(status: dict[str, Any], log: str) -> list[str]:
    """What became of a container; not its last words again, which some leave as the message of their end."""
    found = []
    for word in ("state", "lastState"):
        for name, about in status.get(word, {}).items():
            if name != "running":
                said = [str(about[key]).strip() for key in ("reason", "message") if about.get(key)]
                said = [text for text in said if text not in log]
                code = [f"exit code {about['exitCode']}"] if "exitCode" in about else []
                found.append(f"{name}: {', '.join([*said, *code])}")
    return found
