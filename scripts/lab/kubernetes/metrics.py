"""Processor and memory of pods for the autoscaler and `kubectl top`: the resource metrics API (metrics.k8s.io/v1beta1).

Debian has no metrics-server. Like that one, this asks the kubelet for each container's counters every few seconds and
answers with what was used between the last two. Only the API server can reach it.
"""

from __future__ import annotations

import json
import os
import ssl
import threading
import time
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

from api import get, keys

SECONDS = 2.0
GROUP = "metrics.k8s.io/v1beta1"
RESOURCES = [
    {"name": "nodes", "singularName": "", "namespaced": False, "kind": "NodeMetrics", "verbs": ["get", "list"]},
    {"name": "pods", "singularName": "", "namespaced": True, "kind": "PodMetrics", "verbs": ["get", "list"]},
]

Key = tuple[str, str, str]
"""Namespace, pod and container."""


class Counters:
    """The last two readings of every container: (nanoseconds of processor, bytes of memory, when)."""

    def __init__(self) -> None:
        self.last: dict[Key, tuple[int, int, float]] = {}
        self.used: dict[Key, tuple[float, int]] = {}

    def read(self) -> None:
        summary = get(f"/api/v1/nodes/{os.environ['NODE']}/proxy/stats/summary")
        now: dict[Key, tuple[int, int, float]] = {}
        for pod in summary.get("pods", []):
            for container in pod.get("containers", []):
                if "usageCoreNanoSeconds" in container.get("cpu", {}) and "workingSetBytes" in container.get(
                    "memory", {}
                ):
                    at = datetime.fromisoformat(container["cpu"]["time"]).timestamp()
                    key = (pod["podRef"]["namespace"], pod["podRef"]["name"], container["name"])
                    now[key] = (container["cpu"]["usageCoreNanoSeconds"], container["memory"]["workingSetBytes"], at)
        self.used = {key: self._between(key, reading) for key, reading in now.items() if key in self.last}
        # A reading that the kubelet has not renewed yet says nothing about the time since.
        self.last |= {key: new for key, new in now.items() if key not in self.last or new[2] > self.last[key][2]}

    def _between(self, key: Key, new: tuple[int, int, float]) -> tuple[float, int]:
        old = self.last[key]
        if new[2] <= old[2]:
            return self.used.get(key, (0.0, new[1]))
        return (new[0] - old[0]) / (new[2] - old[2]), new[1]

    def follow(self) -> None:
        while True:
            try:
                self.read()
            except OSError as error:
                print("no reading:", error, flush=True)
            time.sleep(SECONDS)


def pod_metrics(pod: dict[str, Any], used: dict[Key, tuple[float, int]]) -> dict[str, Any] | None:
    name, namespace = pod["metadata"]["name"], pod["metadata"]["namespace"]
    containers = [
        {"name": key[2], "usage": {"cpu": f"{round(nanocores)}n", "memory": f"{memory >> 10}Ki"}}
        for key, (nanocores, memory) in used.items()
        if key[:2] == (namespace, name)
    ]
    if not containers:
        return None
    labels = pod["metadata"].get("labels", {})
    return {
        "metadata": {"name": name, "namespace": namespace, "labels": labels},
        "timestamp": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "window": f"{SECONDS:g}s",
        "containers": containers,
    }


def answer(path: str, query: str, used: dict[Key, tuple[float, int]]) -> dict[str, Any] | None:
    """The object that a path below /apis/metrics.k8s.io/v1beta1 names; None where there is none."""
    head = {"apiVersion": GROUP}
    if not path:
        return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": GROUP, "resources": RESOURCES}
    if path.split("/")[0] == "nodes":
        return head | {"kind": "NodeMetricsList", "metadata": {}, "items": []}
    # Which pods a selector means is the API's own answer to the same path.
    resource = get(f"/api/v1/{path}" + (f"?{query}" if query else ""))
    if "items" not in resource:
        usage = pod_metrics(resource, used)
        return usage and head | {"kind": "PodMetrics"} | usage
    items = [usage for pod in resource["items"] if (usage := pod_metrics(pod, used)) is not None]
    return head | {"kind": "PodMetricsList", "metadata": {}, "items": items}


def handler(counters: Counters) -> type[BaseHTTPRequestHandler]:
    class Request(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked = urlsplit(self.path)
            path = asked.path.removeprefix(f"/apis/{GROUP}").strip("/")
            try:
                content = answer(path, asked.query, counters.used) if asked.path.startswith(f"/apis/{GROUP}") else None
            except OSError:
                content = None
            body = json.dumps(content).encode()
            self.send_response(404 if content is None else 200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Every few seconds the same line would say nothing."""

    return Request


def main() -> None:
    counters = Counters()
    threading.Thread(target=counters.follow, daemon=True).start()
    server = ThreadingHTTPServer((os.environ["NODE_IP"], 4443), handler(counters))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(keys() / "metrics.crt", keys() / "metrics.key")
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
