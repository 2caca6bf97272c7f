"""Find the program that listens on a port."""

from __future__ import annotations

import itertools
import os
import socket
from pathlib import Path

import pytest

from estiba.core import ports


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_free_port_is_no_outgoing_connections_and_each_time_another(
    host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = [ports.free(host) for _ in range(50)]
    assert len(set(found)) == 50
    assert 20_000 <= min(found) <= max(found) < 30_000
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, taken := ports.free(host)), family=family):
        monkeypatch.setattr(ports, "_NEXT", itertools.count(taken - 20_000))
        assert ports.free(host) != taken


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_it_is_this_process_that_listens(family: socket.AddressFamily) -> None:
    with socket.socket(family) as listener:
        listener.bind(("127.0.0.1" if family == socket.AF_INET else "::1", 0))
        port = listener.getsockname()[1]
        assert ports.listening_process(port) == ""
        listener.listen()
        assert ports.listening_process(port).startswith(f"process {os.getpid()} (")
        assert "python" in ports.listening_process(port)
        assert port in ports.listening_ports([os.getpid()])
        host = listener.getsockname()[0]
        assert ports.conflict(host, port).startswith(f"Address already in use, by process {os.getpid()} (")
    assert ports.listening_process(port) == ""
    assert ports.conflict("127.0.0.1", port) == ""


def test_ports_of_a_container_are_unknown_where_its_process_is_another_machines() -> None:
    """The number of a process of another machine is mostly that of a process of this one, too."""
    groups = Path("/proc/self/cgroup").read_text()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        assert port in (ports.listening_in_container(os.getpid(), groups) or ())
        assert ports.listening_in_container(os.getpid(), "0" * 64) is None
        assert ports.listening_in_container(2**22 + 1, groups) is None
