"""Names of services for pods: `web`, `web.shop`, `web.shop.svc.cluster.local`, and the pods behind a headless one.

Debian has no CoreDNS. This answers A questions over UDP from the API itself, which is slow and never out of date. Names
outside the cluster do not exist: nothing in the laboratory has a way out.
"""

from __future__ import annotations

import os
import socketserver
import struct
from ipaddress import IPv4Address

from api import get

ZONE = [b"svc", b"cluster", b"local"]
ADDRESS, INTERNET = 1, 1
NO_ERROR, FAILURE, NO_SUCH_NAME = 0, 2, 3


def addresses(labels: list[bytes]) -> list[str] | None:
    """The addresses of a name's labels, from left to right; None where there is no such service or pod."""
    if labels[-3:] != ZONE or len(labels) not in (5, 6):
        return None
    *pod, service, namespace = (label.decode() for label in labels[:-3])
    path = f"/api/v1/namespaces/{namespace}"
    listed = get(f"{path}/services?fieldSelector=metadata.name%3D{service}")["items"]
    if not listed:
        return None
    if not pod and listed[0]["spec"]["clusterIP"] != "None":
        return [listed[0]["spec"]["clusterIP"]]
    behind = get(f"{path}/endpoints?fieldSelector=metadata.name%3D{service}")["items"]
    ready = [
        endpoint for group in behind for part in group.get("subsets", []) for endpoint in part.get("addresses", [])
    ]
    ips = [endpoint["ip"] for endpoint in ready if not pod or endpoint.get("hostname") == pod[0]]
    return ips if ips or not pod else None


def labels_of(question: bytes) -> tuple[list[bytes], int]:
    """The labels of the name that a question begins with, in lower case, and where its type begins."""
    labels, at = [], 0
    while size := question[at]:
        labels.append(question[at + 1 : at + 1 + size].lower())
        at += 1 + size
    return labels, at + 1


def answer(message: bytes) -> bytes:
    """The answer to one message (RFC 1035, section 4)."""
    labels, at = labels_of(message[12:])
    kind, space = struct.unpack_from("!HH", message, 12 + at)
    try:
        ips = addresses(labels)
        code = NO_SUCH_NAME if ips is None else NO_ERROR
    except OSError:
        ips, code = None, FAILURE
    listed = (ips or []) if (kind, space) == (ADDRESS, INTERNET) else []
    head = message[:2] + struct.pack("!HHHHH", 0x8580 | code, 1, len(listed), 0, 0)
    # 0xC00C points back at the name asked for; five seconds of life.
    records = [struct.pack("!HHHIH", 0xC00C, ADDRESS, INTERNET, 5, 4) + IPv4Address(ip).packed for ip in listed]
    return head + message[12 : 12 + at + 4] + b"".join(records)


class Question(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        message, socket = self.request
        socket.sendto(answer(message), self.client_address)


if __name__ == "__main__":
    with socketserver.ThreadingUDPServer((os.environ["NODE_IP"], 53), Question) as server:
        server.serve_forever()
