"""Use the laboratory's Kubernetes cluster (scripts/lab/kubernetes), and count lost requests under constant load."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import pytest

LAB = Path(__file__).resolve().parents[2] / "scripts" / "lab" / "kubernetes"
BUILT = Path(os.environ.get("ESTIBA_LAB") or "/tmp/estiba-lab") / "kubernetes"
GATE = "estiba.test/machine=app.kubernetes.io/name=gate"
"""The cluster takes this machine for a pod of that name, as policies mean pods."""


@dataclass(frozen=True)
class Cluster:
    """A running cluster, used from one namespace."""

    kubeconfig: Path
    namespace: str = "default"

    def kubectl(self, *arguments: str, text: str = "") -> str:
        """Run kubectl with `text` as its standard input; return its output, or raise AssertionError with its error."""
        command = ["kubectl", "--kubeconfig", str(self.kubeconfig), "--namespace", self.namespace, *arguments]
        done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"kubectl {' '.join(arguments)}: {done.stderr}"
        return done.stdout

    def apply(self, *objects: dict[str, Any]) -> None:
        self.kubectl("apply", "-f", "-", text=json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}))

    def get(self, *what: str) -> Any:
        return json.loads(self.kubectl("get", *what, "-o", "json"))

    def address(self, service: str) -> str:
        """The address of a service for this machine: `10.215.3.4:80`."""
        spec = self.get("service", service)["spec"]
        return f"{spec['clusterIP']}:{spec['ports'][0]['port']}"

    def rolled_out(self, deployment: str, seconds: int = 60) -> None:
        self.kubectl("rollout", "status", f"deployment/{deployment}", f"--timeout={seconds}s")

    def load(self, archive: Path, name: str | None = None) -> None:
        """Load an image onto the node: a file of `docker save`, or an OCI layout (archive or folder) with a `name`."""
        subprocess.run([str(LAB / "load"), str(archive), *([name] if name else [])], check=True, capture_output=True)

    def load_from_docker(self, image: str) -> None:
        """Load an image of this machine's Docker onto the node, under the same name."""
        saved = subprocess.run(["docker", "save", image], check=True, capture_output=True)
        subprocess.run([str(LAB / "load"), "-"], input=saved.stdout, check=True, capture_output=True)

    @contextmanager
    def new_namespace(self) -> Iterator[Cluster]:
        """The cluster with a new namespace, which is deleted afterwards."""
        inside = replace(self, namespace=f"test-{os.urandom(4).hex()}")
        self.kubectl("create", "namespace", inside.namespace)
        eventually(lambda: "default" in inside.kubectl("get", "serviceaccounts", "-o", "name"))
        yield inside
        self.kubectl("delete", "namespace", inside.namespace, "--wait=false")


NEWER = {
    ("autoscaling/v2", "HorizontalPodAutoscaler"): "autoscaling/v2beta2",
    ("batch/v1", "CronJob"): "batch/v1beta1",
    ("policy/v1", "PodDisruptionBudget"): "policy/v1beta1",
}
"""Kinds that Kubernetes 1.20 has under an older API version only, with the same fields."""


def for_1_20(manifest: dict[str, Any]) -> dict[str, Any]:
    """A manifest of a newer Kubernetes with the API version of the laboratory's cluster, and the same specification."""
    version = manifest["apiVersion"]
    return manifest | {"apiVersion": NEWER.get((version, manifest["kind"]), version)}


def missing() -> str | None:
    """The reason why no cluster can run here; None where one can."""
    if os.environ.get("ESTIBA_KUBERNETES") != "1":
        return "a cluster is started only when asked for: make test-kubernetes"
    if os.geteuid() != 0:
        return "the cluster needs root"
    if not (BUILT / "bin" / "kubelet").exists():
        return f"Kubernetes is not built: run {LAB}/build"
    return None


@contextmanager
def running() -> Iterator[Cluster]:
    """The running cluster, or a new one for this run of the tests."""
    if (reason := missing()) is not None:
        pytest.skip(reason)
    found = (BUILT / "run" / "node.pid").exists()
    started = subprocess.run([str(LAB / "up")], capture_output=True, text=True, check=False)
    assert started.returncode == 0, started.stderr
    yield Cluster(BUILT / "run" / "keys" / "admin.kubeconfig")
    if not found:
        subprocess.run([str(LAB / "down")], check=True)


def eventually(holds: Callable[[], object], seconds: float = 30) -> None:
    """Wait until a condition is true; raise AssertionError after `seconds`."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, f"not within {seconds:g} s"
        time.sleep(0.2)


@dataclass
class Load:
    """Constant requests from several clients while a `with` lasts, half of them on connections that are kept.

    `answers` counts bodies of status 200; `lost` holds everything else: a refused or broken connection, a silence of
    5 s, another status.
    """

    address: str
    clients: int = 4
    path: str = "/"
    body: bytes | None = None
    answers: Counter[str] = field(default_factory=Counter)
    lost: list[str] = field(default_factory=list)
    slowest: float = 0.0

    def __enter__(self) -> Self:
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(n % 2 == 0,)) for n in range(self.clients)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _ask(self, keep: bool) -> None:
        connection = http.client.HTTPConnection(self.address, timeout=5)
        while not self._over.is_set():
            began = time.monotonic()
            try:
                self._once(connection)
            except (OSError, http.client.HTTPException) as error:
                self.lost.append(repr(error))
                connection.close()
            self.slowest = max(self.slowest, time.monotonic() - began)
            if not keep:
                connection.close()
            time.sleep(0.005)
        connection.close()

    def _once(self, connection: http.client.HTTPConnection) -> None:
        headers = {} if self.body is None else {"Content-Type": "application/json"}
        connection.request("GET" if self.body is None else "POST", self.path, self.body, headers)
        answer = connection.getresponse()
        text = answer.read().decode()
        if answer.status == 200:
            self.answers[text] += 1
        else:
            self.lost.append(f"{answer.status} {text}")


def known(one: dict[str, Any]) -> dict[str, Any]:
    """A manifest as Kubernetes 1.20 knows it."""
    one = for_1_20(one)
    if one["kind"] == "PodDisruptionBudget":
        del one["spec"]["unhealthyPodEvictionPolicy"]
    if one["kind"] == "HorizontalPodAutoscaler":
        del one["spec"]["behavior"]["scaleDown"]  # so that a test need not wait for five minutes
    if one["kind"] == "Deployment":
        one["spec"]["template"]["spec"]["containers"][0].pop("lifecycle", None)  # preStop.sleep
        one["spec"]["template"]["spec"]["containers"][0]["resources"]["requests"]["cpu"] = "100m"  # two processors
    return one


def versions(load: Load) -> Counter[str]:
    """The number of answers of each version of the model."""
    found: Counter[str] = Counter()
    for text, times in load.answers.items():
        found[json.loads(text)["version"]] += times
    return found
