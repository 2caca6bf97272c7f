"""Enforces NetworkPolicies (networking.k8s.io/v1) with iptables: the cluster's network plugin knows nothing of them.

Once a second the rules of every pod that a policy selects are made anew from the API and put in place at once, if they
changed; a pod is open until then. What is forbidden is refused instead of dropped, so that a test hears of it.

Names are answered by the node itself, which counts as the pod `k8s-app: kube-dns` of kube-system. This machine, from
which tests call services, is outside the cluster, unless a namespace says with the annotation
`estiba.test/machine: app=gate,tier=edge` that it counts as a pod there with those labels. What the node itself does,
such as the kubelet's probes, is never forbidden. Not known: `endPort` (newer than 1.20), SCTP.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from ipaddress import IPv4Network
from typing import Any

from api import get

CHAIN = "ESTIBA-POLICY"
Json = dict[str, Any]


@dataclass(frozen=True)
class Pod:
    """A pod, or what counts as one for others' policies (`guest`) and obeys none itself."""

    namespace: str
    address: str
    labels: dict[str, str]
    ports: dict[str, int] = field(default_factory=dict)
    guest: bool = False


@dataclass(frozen=True)
class World:
    """The input of the rules: the labels of namespaces, the pods that have an address, and the policies."""

    namespaces: dict[str, dict[str, str]]
    pods: list[Pod]
    policies: list[Json]


def look() -> World:
    namespaces, pods = {}, [Pod("kube-system", os.environ["NODE_IP"], {"k8s-app": "kube-dns"}, {"dns": 53}, guest=True)]
    for namespace in get("/api/v1/namespaces")["items"]:
        name, notes = namespace["metadata"]["name"], namespace["metadata"].get("annotations", {})
        # From 1.21 on every namespace carries its name as a label, and policies count on it.
        namespaces[name] = {"kubernetes.io/metadata.name": name} | namespace["metadata"].get("labels", {})
        if (guest := notes.get("estiba.test/machine")) is not None:
            labels = dict(pair.split("=", 1) for pair in guest.split(",") if pair)
            pods.append(Pod(name, os.environ["MACHINE_IP"], labels, guest=True))
    for pod in get("/api/v1/pods")["items"]:
        if pod["status"].get("podIP") and not pod["spec"].get("hostNetwork") and not over(pod):
            head, listed = pod["metadata"], [port for c in pod["spec"]["containers"] for port in c.get("ports", [])]
            ports = {port["name"]: port["containerPort"] for port in listed if "name" in port}
            pods.append(Pod(head["namespace"], pod["status"]["podIP"], head.get("labels", {}), ports))
    return World(namespaces, pods, get("/apis/networking.k8s.io/v1/networkpolicies")["items"])


def over(pod: Json) -> bool:
    """Return True if a pod's address may belong to another pod by now."""
    return pod["status"].get("phase") in ("Succeeded", "Failed")


def chosen(selector: Json, labels: dict[str, str]) -> bool:
    """Return True if a label selector matches these labels; an empty one matches all."""
    same = all(labels.get(key) == value for key, value in selector.get("matchLabels", {}).items())
    return same and all(holds(one, labels) for one in selector.get("matchExpressions", []))


def holds(expression: Json, labels: dict[str, str]) -> bool:
    key, values = expression["key"], expression.get("values", [])
    match expression["operator"]:
        case "In":
            return labels.get(key) in values
        case "NotIn":
            return labels.get(key) not in values
        case "Exists":
            return key in labels
        case _:
            return key not in labels


def peers(world: World, home: str, listed: list[Json] | None) -> Iterator[tuple[str, Pod | None]]:
    """The peers of a rule of a policy in namespace `home`: networks, each with its pod if it is one."""
    if not listed:
        yield "0.0.0.0/0", None
    for peer in listed or []:
        if "ipBlock" in peer:
            yield from ((str(network), None) for network in networks(peer["ipBlock"]))
            continue
        for pod in world.pods:
            near = (
                chosen(peer["namespaceSelector"], world.namespaces.get(pod.namespace, {}))
                if "namespaceSelector" in peer
                else pod.namespace == home
            )
            if near and chosen(peer.get("podSelector", {}), pod.labels):
                yield f"{pod.address}/32", pod


def networks(block: Json) -> list[IPv4Network]:
    """A block without its exceptions."""
    left = [IPv4Network(block["cidr"])]
    for less in map(IPv4Network, block.get("except", [])):
        left = [part for one in left for part in ([*one.address_exclude(less)] if less.subnet_of(one) else [one])]
    return left


def port_matches(listed: list[Json] | None, target: Pod | None) -> Iterator[str]:
    """The ports of a rule as matches of iptables; a port's name means that port of the pod that is called."""
    if not listed:
        yield ""
    for entry in listed or []:
        protocol = f"-p {entry.get('protocol', 'TCP').lower()}"
        port = entry.get("port")
        if isinstance(port, str):
            port = target.ports.get(port) if target is not None else None
            if port is None:
                continue
        yield protocol if port is None else f"{protocol} --dport {port}"


def allowances(world: World, pod: Pod, policy: Json, way: str) -> Iterator[str]:
    """The traffic that a policy lets a pod receive (`ingress`) or send (`egress`), as matches of iptables."""
    flag, listed = ("-s", "from") if way == "ingress" else ("-d", "to")
    for rule in policy["spec"].get(way) or []:
        for network, peer in peers(world, policy["metadata"]["namespace"], rule.get(listed)):
            for ports in port_matches(rule.get("ports"), pod if way == "ingress" else peer):
                yield f"{flag} {network} {ports}".strip()


def selected_by(world: World, pod: Pod, way: str) -> list[Json]:
    found = []
    for policy in world.policies:
        spec = policy["spec"]
        kinds = spec.get("policyTypes") or ["Ingress", *(["Egress"] if "egress" in spec else [])]
        if policy["metadata"]["namespace"] == pod.namespace and way.capitalize() in kinds:
            found += [policy] if chosen(spec.get("podSelector", {}), pod.labels) else []
    return found


def chains(world: World) -> dict[str, list[str]]:
    """The rules of every chain: one that asks the others, and one per pod and way that a policy forbids by default."""
    rules: dict[str, list[str]] = {CHAIN: ["-m conntrack --ctstate ESTABLISHED,RELATED -j RETURN"]}
    for way, flag in (("egress", "-s"), ("ingress", "-d")):
        for pod in world.pods:
            if not pod.guest and (policies := selected_by(world, pod, way)):
                name = f"ESTIBA-{way[:2].upper()}-{pod.address}"
                allowed = [match for policy in policies for match in allowances(world, pod, policy, way)]
                rules[name] = [*(f"{match} -j RETURN" for match in dict.fromkeys(allowed)), "-j REJECT"]
                rules[CHAIN].append(f"{flag} {pod.address} -j {name}")
    return rules


def restored(new: dict[str, list[str]], old: dict[str, list[str]]) -> str:
    """The input of iptables-restore that puts `new` in place of `old` in one step."""
    gone = [name for name in old if name not in new]
    lines = ["*filter", *(f":{name} - [0:0]" for name in [*new, *gone])]
    lines += [f"-A {name} {rule}" for name, rules in new.items() for rule in rules]
    return "\n".join([*lines, *(f"-X {name}" for name in gone), "COMMIT", ""])


def put(new: dict[str, list[str]], old: dict[str, list[str]]) -> None:
    command = ["iptables-restore", "--noflush", "--wait"]
    subprocess.run(command, input=restored(new, old), text=True, check=True)
    # First again each time: the proxy puts a rule before others' that accepts what comes from this machine.
    names = ["-d", os.environ["NODE_IP"], "-p", "udp", "--dport", "53"]
    for chain, what in (("FORWARD", []), ("INPUT", names)):
        if old:
            subprocess.run(["iptables", "--wait", "-D", chain, *what, "-j", CHAIN], check=True)
        subprocess.run(["iptables", "--wait", "-I", chain, "1", *what, "-j", CHAIN], check=True)


def main() -> None:
    current: dict[str, list[str]] = {}
    while True:
        try:
            new = chains(look())
            if new != current:
                put(new, current)
                current = new
        except (OSError, subprocess.CalledProcessError) as error:
            print("rules stay as they are:", error, flush=True)
        time.sleep(1)


if __name__ == "__main__":
    main()
