"""References of services to addresses, paths and secrets of this machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from estiba import project
from estiba.core.errors import NotFound
from estiba.local import run_plan
from estiba.local.run_plan import UpRequest

SHOP = """
[services.db]
command = "true"
secrets = ["password"]
volumes = { data = "/data" }
"""


def test_a_lost_secret_of_a_process_with_data_is_not_made_again(tmp_path: Path) -> None:
    (tmp_path / "estiba.toml").write_text(SHOP)
    request = UpRequest(lambda: project.load(tmp_path))
    run_plan.plan(request)
    data, secret = tmp_path / ".estiba/volumes/db/data", tmp_path / ".estiba/secrets/password"
    data.mkdir(parents=True)
    secret.unlink()
    run_plan.plan(request)  # an empty volume was made with nothing
    (data / "table").touch()
    run_plan.plan(request)
    secret.unlink()
    with pytest.raises(NotFound, match=f"password is not in {secret}, but its service has data in {data},") as caught:
        run_plan.plan(request)
    assert f"rm -r {data}" in str(caught.value.hint)
    assert not secret.exists()
