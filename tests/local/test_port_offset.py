"""`estiba up --port` moves all ports, and a taken port names the section and the command that move it."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from estiba import project
from estiba.core import ports
from estiba.core.errors import EstibaError
from estiba.local import port_offset
from estiba.local.run_plan import UpRequest, plan, plan_again
from estiba.project import Project

TEXT = """
[server]
port = {server}
[models.churn]
port = {churn}
train = "churn:train"
[models.iris]
train = "iris:train"
[services.web]
command = "sleep 1 ${{port}} ${{services.models.url}}"
port = {web}
[services.task]
command = "sleep 1"
"""


def loaded(folder: Path, server: int = 8000, churn: int = 8001, web: int = 8501) -> Project:
    (folder / "estiba.toml").write_text(TEXT.format(server=server, churn=churn, web=web))
    return project.load(folder)


def shown(project: Project) -> tuple[int, int | None, int | None, int | None, int | None]:
    models, services = project.models, project.services
    return (
        project.server.port,
        models["churn"].port,
        models["iris"].port,
        services["web"].port,
        services["task"].port,
    )


def test_all_ports_move_by_one_offset(tmp_path: Path) -> None:
    before = loaded(tmp_path)
    assert shown(port_offset.move(before, 9000)) == (9000, 9001, None, 9501, None)
    assert shown(port_offset.move(before, 7990)) == (7990, 7991, None, 8491, None)
    assert port_offset.move(before, None) == before


def test_a_free_port_leaves_the_distances_as_they_are(tmp_path: Path) -> None:
    server, churn, _, web, _ = shown(port_offset.move(loaded(tmp_path), 0))
    assert server != 8000
    assert (churn, web) == (server + 1, server + 501)


def test_a_project_that_asks_for_a_free_port_keeps_the_others(tmp_path: Path) -> None:
    server, *others = shown(port_offset.move(loaded(tmp_path, server=0), None))
    assert server
    assert others == [8001, None, 8501, None]


def test_a_port_beyond_the_last_is_named(tmp_path: Path) -> None:
    with pytest.raises(EstibaError, match=r"8501 of \[services.web\] would become 65901"):
        port_offset.move(loaded(tmp_path), 65400)
    with pytest.raises(EstibaError, match=r"1200 of \[services.web\] would become -6799"):
        port_offset.move(loaded(tmp_path, web=1200), 1)


def test_references_and_the_next_plan_have_the_moved_ports(tmp_path: Path) -> None:
    loaded(tmp_path)
    first = plan(UpRequest(lambda: project.load(tmp_path), ["web"], port=0))
    port = first.project.server.port
    web = first.applications[0]
    assert web.port == port + 501
    assert first.target.argv(web) == ["sleep", "1", str(port + 501), f"http://127.0.0.1:{port}"]
    assert plan_again(first).project.server.port == port


def test_a_taken_port_names_its_section_and_a_command_with_free_ports(tmp_path: Path) -> None:
    server, web = ports.free("127.0.0.1"), ports.free("127.0.0.1")
    request = UpRequest(lambda: project.load(tmp_path), port=None, command="estiba up -C here")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        churn = taken.getsockname()[1]
        loaded(tmp_path, server, churn, web)
        with pytest.raises(EstibaError) as error:
            plan(request)
    by = f"Address already in use, by process {os.getpid()} ("
    assert error.value.message.startswith(f"The model churn cannot listen on 127.0.0.1:{churn}: {by}")
    hint = error.value.hint or ""
    assert "change port in [models.churn]" in hint
    command, _, port = hint.rpartition(" --port ")
    assert command.endswith("estiba up -C here")
    moved = plan(UpRequest(request.load, port=int(port))).project
    assert shown(moved) == (int(port), churn + int(port) - server, None, web + int(port) - server, None)
