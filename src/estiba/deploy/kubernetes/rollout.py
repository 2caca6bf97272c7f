"""Wait for the workloads of a deployment, and find the reason why one does not become ready."""

from __future__ import annotations

import time

import msgspec

from estiba.core.cli_program import MAX_REPORTED_LINES
from estiba.deploy.kubernetes.cluster import Cluster, Object, has_condition, items
from estiba.deploy.kubernetes.compare import ObjectChange
from estiba.deploy.target import Report

_POLL_SECONDS = 1.0


def wait_until_ready(cluster: Cluster, change: ObjectChange, timeout_seconds: float, report: Report) -> bool:
    """Wait until a workload is ready, or a Job has succeeded; False where it fails, or takes longer.

    A Deployment's own deadline, and the last attempt of a Job, may end the wait before the timeout.
    """
    if change.kind == "Job":
        return _wait_for_job(cluster, change, timeout_seconds, report)
    timeout = f"--timeout={timeout_seconds:g}s"
    done = cluster.kubectl("rollout", "status", change.resource, "--namespace", change.namespace, timeout)
    if done.code == 0:
        report(f"{change.resource} is ready")
    return done.code == 0


def _wait_for_job(cluster: Cluster, change: ObjectChange, timeout_seconds: float, report: Report) -> bool:
    # kubectl can wait for the success of a Job or for its failure, not for either.
    deadline = time.monotonic() + timeout_seconds
    while time.monotonic() < deadline:
        done = cluster.kubectl("get", change.resource, "--namespace", change.namespace, "-o", "json")
        # A cluster that does not answer for a moment is asked again: an error would leave half of a deployment.
        job = msgspec.json.decode(done.output) if done.code == 0 else {}
        if has_condition(job, "Failed"):
            return False
        if has_condition(job, "Complete"):
            report(f"{change.resource} is done")
            return True
        time.sleep(_POLL_SECONDS)
    return False


def delete_unready_pods(cluster: Cluster, change: ObjectChange) -> None:
    """Delete the pods of a workload that are not ready. A StatefulSet waits for such a pod for ever."""
    for pod in _pods(cluster, change):
        if not has_condition(pod, "Ready"):
            cluster.kubectl("delete", "pod", pod["metadata"]["name"], "--namespace", change.namespace)


def failure_reason(cluster: Cluster, change: ObjectChange) -> str:
    """Return the state, the warnings and the log of the newest pod of a workload that is not ready."""
    pod = next((pod for pod in _pods(cluster, change) if not has_condition(pod, "Ready")), None)
    if pod is None:
        return f"It has no pod that is not ready. See: kubectl describe {change.resource} -n {change.namespace}"
    name, namespace = pod["metadata"]["name"], ("--namespace", change.namespace)
    init_states = pod["status"].get("initContainerStatuses", [])
    states = [*init_states, *pod["status"].get("containerStatuses", [])]
    unready = next((state for state in states if not state.get("ready")), None)
    if unready in init_states:
        states = [unready]  # the other containers only wait for it
    # The log of a container that waits or has ended is that of its last run; one that runs again has a new log.
    restarted = any(state.get("restartCount") and "running" in state.get("state", {}) for state in states)
    container = [] if unready is None else ["--container", unready["name"]]
    previous = ["--previous"] if restarted else []
    log = cluster.kubectl("logs", name, *container, *namespace, f"--tail={MAX_REPORTED_LINES}", *previous)
    lines = [f"pod {name}:"]
    lines += [f"  {state['name']}: {text}" for state in states for text in _container_states(state, log.output)]
    lines += [f"  {warning}" for warning in _warnings(cluster, name, change.namespace)]
    if log.code == 0 and log.output.strip():
        lines += ["last lines of its log:", *(f"  {line}" for line in log.output.splitlines()[-MAX_REPORTED_LINES:])]
    return "\n".join(lines)


def _pods(cluster: Cluster, change: ObjectChange) -> list[Object]:
    """Return the pods of a workload, the newest first."""
    owner = cluster.query("get", change.resource, "--namespace", change.namespace)
    labels = ",".join(f"{name}={value}" for name, value in owner["spec"]["selector"]["matchLabels"].items())
    pods = items(cluster.query("get", "pods", "--namespace", change.namespace, "--selector", labels))
    return sorted(pods, key=lambda pod: str(pod["metadata"]["creationTimestamp"]), reverse=True)


def _warnings(cluster: Cluster, pod: str, namespace: str) -> list[str]:
    selector = f"involvedObject.name={pod}"
    events = items(cluster.query("get", "events", "--namespace", namespace, "--field-selector", selector))
    newest = sorted(events, key=lambda event: str(event.get("lastTimestamp")))[-MAX_REPORTED_LINES:]
    return [
        f"{event.get('reason')}: {event.get('message', '').strip()}"
        for event in newest
        if event.get("type") == "Warning"
    ]


def _container_states(status: Object, log: str) -> list[str]:
    """Describe the states of a container that does not run. Messages that only repeat its log are left out."""
    lines = []
    for field in ("state", "lastState"):
        for name, about in status.get(field, {}).items():
            if name != "running":
                texts = [str(about[part]).strip() for part in ("reason", "message") if about.get(part)]
                code = [f"exit code {about['exitCode']}"] if "exitCode" in about else []
                lines.append(f"{name}: {', '.join([*(text for text in texts if text not in log), *code])}")
    return lines
