"""Ports: who listens."""

from __future__ import annotations

import os
import socket

import pytest

from estiba.core import ports


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_it_is_this_process_that_listens(family: socket.AddressFamily) -> None:
    with socket.socket(family) as listener:
        listener.bind(("127.0.0.1" if family == socket.AF_INET else "::1", 0))
        port = listener.getsockname()[1]
        assert ports.holder(port) == ""
        listener.listen()
        assert ports.holder(port).startswith(f"process {os.getpid()} (")
        assert "python" in ports.holder(port)
        assert port in ports.listened([os.getpid()])
        host = listener.getsockname()[0]
        assert ports.trouble(host, port).startswith(f"Address already in use, by process {os.getpid()} (")
    assert ports.holder(port) == ""
    assert ports.trouble("127.0.0.1", port) == ""
