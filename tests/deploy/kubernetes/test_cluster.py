"""The laboratory's cluster runs pods for real: probes, logs, exec, limits, names, rollouts, drains, scaling.

Run by `make test-kubernetes`, which builds the cluster first. What is asked here is whether a test that applies
rendered manifests may believe what it sees.
"""

from __future__ import annotations

import subprocess
import time
from contextlib import suppress
from typing import Any

import pytest
from cluster import BUILT, Cluster, Load, eventually, for_1_20

pytestmark = pytest.mark.slow

BUSYBOX = "/bin/busybox"
HARDENED = {
    "runAsNonRoot": True,
    "readOnlyRootFilesystem": True,
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}


def container(**changes: Any) -> dict[str, Any]:
    return {
        "name": "web",
        "image": "estiba.test/web:1",
        "ports": [{"containerPort": 8080}],
        "env": [{"name": "DRAIN_SECONDS", "value": "3"}],
        "readinessProbe": {"httpGet": {"path": "/ready", "port": 8080}, "periodSeconds": 1},
        "resources": {"requests": {"cpu": "50m", "memory": "16Mi"}, "limits": {"cpu": "200m", "memory": "32Mi"}},
        "securityContext": HARDENED,
        **changes,
    }


def deployment(replicas: int = 2, **changes: Any) -> dict[str, Any]:
    labels = {"app": "web"}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web"},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "strategy": {"rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [container(**changes)]}},
        },
    }


SERVICE = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "web"},
    "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}]},
}


def pod(name: str, **changes: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {"restartPolicy": "Never", "terminationGracePeriodSeconds": 8, "containers": [container(**changes)]},
    }


def shell(script: str) -> dict[str, Any]:
    """A container that runs a script instead of the server, and is ready as it is."""
    return {"command": ["/bin/sh", "-c", script], "readinessProbe": None}


def state(seen: Cluster, name: str) -> dict[str, Any]:
    """The status of a pod's only container, from the kubelet."""
    found: dict[str, Any] = seen.get("pod", name)["status"]["containerStatuses"][0]
    return found


def test_a_pod_runs_hardened_and_can_be_looked_into(namespace: Cluster) -> None:
    namespace.apply(pod("one"))
    namespace.kubectl("wait", "--for=condition=Ready", "pod/one", "--timeout=30s")
    assert "release 1 listens" in namespace.kubectl("logs", "one")
    status = namespace.kubectl("exec", "one", "--", BUSYBOX, "cat", "/proc/self/status")
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert fields["Uid"].split() == ["10001"] * 4
    assert int(fields["CapBnd"], 16) == 0
    assert fields["NoNewPrivs"] == "1"
    assert fields["Seccomp"] == "2"
    with pytest.raises(AssertionError, match="Read-only file system"):
        namespace.kubectl("exec", "one", "--", BUSYBOX, "touch", "/there")


def test_readiness_is_asked_of_the_pod(namespace: Cluster) -> None:
    namespace.apply(pod("slow", env=[{"name": "START_SECONDS", "value": "4"}]))
    namespace.kubectl("wait", "--for=condition=ContainersReady=False", "pod/slow", "--timeout=30s")
    namespace.kubectl("wait", "--for=condition=Ready", "pod/slow", "--timeout=30s")
    events = namespace.kubectl("get", "events", "--field-selector=reason=Unhealthy", "-o", "jsonpath={..message}")
    assert "Readiness probe failed: HTTP probe failed with statuscode: 503" in events


def test_a_pod_that_fails_its_liveness_is_started_again(namespace: Cluster) -> None:
    probe = {"httpGet": {"path": "/live", "port": 9999}, "periodSeconds": 1, "failureThreshold": 1}
    sick = pod("sick", livenessProbe=probe, env=[])
    sick["spec"]["restartPolicy"] = "Always"
    namespace.apply(sick)
    eventually(lambda: state(namespace, "sick").get("restartCount", 0) >= 1)
    assert "asked to leave: terminated" in namespace.kubectl("logs", "sick", "--previous")


def test_memory_beyond_the_limit_kills(namespace: Cluster) -> None:
    namespace.apply(pod("greedy", **shell("x=0123456789; while true; do x=$x$x; done")))
    eventually(lambda: "terminated" in state(namespace, "greedy")["state"])
    assert state(namespace, "greedy")["state"]["terminated"]["reason"] == "OOMKilled"


def last_words(seen: Cluster, name: str) -> list[str]:
    """Delete a pod, and what it said until its end. (Its name is free up to 10 s later: the kubelet's own pace.)"""
    seen.kubectl("wait", "--for=condition=Ready", f"pod/{name}", "--timeout=30s")
    command = ["kubectl", "--kubeconfig", str(seen.kubeconfig), "-n", seen.namespace, "logs", "-f", name]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as log:
        seen.kubectl("delete", "pod", name, "--wait=false")
        said, _ = log.communicate(timeout=30)
    return said.splitlines()


def test_a_pod_that_is_deleted_gets_sigterm_and_its_time(namespace: Cluster) -> None:
    namespace.apply(pod("leaving"))
    began = time.monotonic()
    said = last_words(namespace, "leaving")
    # The kubelet may add that the container whose log it follows is gone.
    assert said[1:3] == ["asked to leave: terminated", "left with nothing unanswered"]
    assert time.monotonic() - began > 3


def test_a_pod_that_ignores_sigterm_is_killed_after_its_time(namespace: Cluster) -> None:
    stubborn = pod("stubborn", **shell("trap 'echo asked' TERM; while true; do echo here; sleep 0.2; done"))
    stubborn["spec"]["terminationGracePeriodSeconds"] = 2
    namespace.apply(stubborn)
    said = last_words(namespace, "stubborn")
    assert 5 <= len(said) - said.index("asked") <= 15


def test_a_service_has_a_name_and_spreads_calls_over_its_ready_pods(namespace: Cluster) -> None:
    namespace.apply(deployment(), SERVICE, {**SERVICE, "metadata": {"name": "each"}, "spec": headless()})
    namespace.rolled_out("web")
    with Load(namespace.address("web")) as load:
        eventually(lambda: len(load.answers) == 2)
    assert load.lost == []
    for name in ("web", f"web.{namespace.namespace}", f"web.{namespace.namespace}.svc.cluster.local"):
        assert namespace.kubectl(*inside("wget", "-qO-", f"http://{name}/")).startswith("release 1 pod web-")
    addresses = {one["status"]["podIP"] for one in namespace.get("pods")["items"]}
    found = namespace.kubectl(*inside("nslookup", f"each.{namespace.namespace}.svc.cluster.local"))
    assert all(address in found for address in addresses)
    with pytest.raises(AssertionError, match="bad address"):
        namespace.kubectl(*inside("wget", "-qO-", "http://nobody/"))


def inside(*command: str) -> tuple[str, ...]:
    return ("exec", "deployment/web", "--", BUSYBOX, *command)


def headless() -> dict[str, Any]:
    return {**SERVICE["spec"], "clusterIP": "None"}  # type: ignore[dict-item]


def test_settings_secrets_and_volumes_reach_a_pod(namespace: Cluster) -> None:
    script = "echo $COLOUR; cat /secret/key; echo kept >/data/file; cat /data/file; cat /cpu"
    asks = pod("asks", **shell(script))
    asks["spec"]["securityContext"] = {"fsGroup": 2000}
    asks["spec"]["containers"][0] |= {
        "env": [{"name": "COLOUR", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "colour"}}}],
        "volumeMounts": [
            {"name": "secret", "mountPath": "/secret", "readOnly": True},
            {"name": "data", "mountPath": "/data"},
        ],
    }
    asks["spec"]["volumes"] = [
        {"name": "secret", "secret": {"secretName": "hidden"}},
        {"name": "data", "persistentVolumeClaim": {"claimName": "data"}},
    ]
    namespace.apply(
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"}, "data": {"colour": "ochre"}},
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "hidden"}, "stringData": {"key": "s3cret\n"}},
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": "data"},
            "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
        },
        asks,
    )
    eventually(lambda: namespace.get("pod", "asks")["status"]["phase"] in ("Succeeded", "Failed"))
    assert namespace.kubectl("logs", "asks").splitlines()[:3] == ["ochre", "s3cret", "kept"]


def policy(name: str, of: dict[str, str], **rules: Any) -> dict[str, Any]:
    spec = {"podSelector": {"matchLabels": of}, "policyTypes": [kind.capitalize() for kind in rules], **rules}
    return {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": name}, "spec": spec}


def test_what_policies_forbid_is_refused(namespace: Cluster) -> None:
    visitor = pod("visitor", **shell("sleep 1000"))
    visitor["metadata"]["labels"] = {"app": "visitor"}
    namespace.apply(deployment(replicas=1), SERVICE, visitor)
    namespace.rolled_out("web")
    namespace.kubectl("wait", "--for=condition=Ready", "pod/visitor", "--timeout=30s")

    def visit() -> bool:
        """True if the visitor's pod resolves the service's name and gets an answer."""
        with suppress(AssertionError):
            return "release" in namespace.kubectl("exec", "visitor", "--", BUSYBOX, "wget", "-qO-", "http://web/")
        return False

    def call() -> bool:
        """True if this machine, outside of the cluster, gets an answer."""
        with Load(namespace.address("web"), clients=1) as load:
            eventually(lambda: load.answers or load.lost)
        return not load.lost

    eventually(visit)
    assert call()
    namespace.apply(policy("closed", {}, ingress=[], egress=[]))
    eventually(lambda: not call())
    assert not visit()
    visitors = {"podSelector": {"matchLabels": {"app": "visitor"}}}
    namespace.apply(policy("web", {"app": "web"}, ingress=[{"from": [visitors], "ports": [{"port": 8080}]}]))
    time.sleep(2)
    assert not visit()
    names = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}}}
    to_web = {"to": [{"podSelector": {"matchLabels": {"app": "web"}}}]}
    asks_names = {"to": [names], "ports": [{"protocol": "UDP", "port": 53}]}
    namespace.apply(policy("visitor", {"app": "visitor"}, egress=[to_web, asks_names]))
    eventually(visit)
    assert not call()
    namespace.kubectl("annotate", "namespace", namespace.namespace, "estiba.test/machine=app=visitor")
    eventually(call)


def test_a_rollout_under_load_loses_no_request(namespace: Cluster) -> None:
    namespace.apply(deployment(), SERVICE)
    namespace.rolled_out("web")
    with Load(namespace.address("web")) as load:
        eventually(lambda: load.answers.total() > 200)
        namespace.kubectl("set", "image", "deployment/web", "web=estiba.test/web:2")
        namespace.rolled_out("web")
        eventually(lambda: len(namespace.get("pods")["items"]) == 2, seconds=60)
    assert load.lost == []
    releases = {body.split()[1] for body in load.answers}
    assert releases == {"1", "2"}
    print(f"{load.answers.total()} requests, none lost, the slowest {load.slowest * 1000:.0f} ms")


def test_without_a_drain_the_load_notices(namespace: Cluster) -> None:
    """The proof above proves something only if a service that leaves at once is seen to lose requests."""
    namespace.apply(deployment(env=[], **hasty()), SERVICE)
    namespace.rolled_out("web")
    with Load(namespace.address("web"), clients=8) as load:
        for release in ("2", "1", "2"):
            namespace.kubectl("set", "image", "deployment/web", f"web=estiba.test/web:{release}")
            namespace.rolled_out("web")
    assert load.lost


def hasty() -> dict[str, Any]:
    """Ready at once, whether or not anything listens, and gone as soon as it is asked to go."""
    return {"readinessProbe": None}


def test_a_release_that_never_gets_ready_stalls_and_is_undone(namespace: Cluster) -> None:
    namespace.apply(deployment(), SERVICE)
    namespace.rolled_out("web")
    with Load(namespace.address("web")) as load:
        namespace.kubectl("set", "env", "deployment/web", "START_SECONDS=1000")
        with pytest.raises(AssertionError, match="timed out"):
            namespace.rolled_out("web", seconds=6)
        ready = [one["status"]["containerStatuses"][0]["ready"] for one in namespace.get("pods")["items"]]
        assert sorted(ready) == [False, True, True]
        namespace.kubectl("rollout", "undo", "deployment/web")
        namespace.rolled_out("web")
    assert load.lost == []


@pytest.mark.timeout(240)
def test_the_autoscaler_sees_load_and_its_end(namespace: Cluster) -> None:
    namespace.apply(deployment(replicas=1), SERVICE, for_1_20(autoscaler()))
    namespace.rolled_out("web")

    def replicas() -> int:
        return int(namespace.get("deployment", "web")["spec"]["replicas"])

    with Load(namespace.address("web"), path="/work"):
        eventually(lambda: replicas() == 3, seconds=60)
    eventually(lambda: replicas() == 1, seconds=60)


def autoscaler() -> dict[str, Any]:
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}
    processor = {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "web"},
        "spec": {
            "scaleTargetRef": target,
            "minReplicas": 1,
            "maxReplicas": 3,
            "metrics": [{"type": "Resource", "resource": processor}],
        },
    }


def test_an_image_can_be_loaded_under_a_name(namespace: Cluster) -> None:
    namespace.load(BUILT / "images" / "web-2.tar", "shop/web:7")
    namespace.apply(pod("named", image="shop/web:7", imagePullPolicy="Never"))
    namespace.kubectl("wait", "--for=condition=Ready", "pod/named", "--timeout=30s")
    assert "release 2 listens" in namespace.kubectl("logs", "named")
