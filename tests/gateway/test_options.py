"""When a server asks for keys."""

from __future__ import annotations

import pytest

from estiba.core.errors import EstibaError
from estiba.gateway.options import GatewayOptions, needs_keys
from estiba.serving.options import ServerOptions


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost"])
def test_on_this_machine_only_where_they_are_required(host: str) -> None:
    server = ServerOptions(host=host)
    assert not needs_keys(GatewayOptions(), server)
    assert needs_keys(GatewayOptions(keys="required"), server)
    assert not needs_keys(GatewayOptions(keys="off"), server)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.7", "models.example"])
def test_on_other_hosts_unless_they_are_insecure(host: str) -> None:
    assert needs_keys(GatewayOptions(), ServerOptions(host=host))
    assert not needs_keys(GatewayOptions(), ServerOptions(host=host, insecure=True))
    assert needs_keys(GatewayOptions(keys="required"), ServerOptions(host=host, insecure=True))
    assert not needs_keys(GatewayOptions(keys="off"), ServerOptions(host=host, insecure=True))
    with pytest.raises(EstibaError, match="would let every machine that reaches it use the models"):
        needs_keys(GatewayOptions(keys="off"), ServerOptions(host=host))
