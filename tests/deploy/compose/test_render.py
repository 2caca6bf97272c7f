"""Compose files have the plan's services, are valid for Docker, and refuse settings that Compose has no form for."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from projects import STACK, compare, plan, stack

from estiba import project
from estiba.cli.main import run
from estiba.core.errors import BadProject
from estiba.deploy.compose import render
from estiba.deploy.compose.render import ComposeOptions
from estiba.deploy.output import files as rendered
from estiba.deploy.output.files import Rendered
from estiba.deploy.plan.plan import Build, Http, Plan, PlannedModel, Service
from estiba.planning import lower


@pytest.fixture
def files(tmp_path: Path) -> Rendered:
    return render.render(stack(tmp_path), ComposeOptions())


@pytest.fixture
def services(files: Rendered) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(files.texts["compose.yaml"])["services"]
    return found


def test_the_whole_file(files: Rendered, request: pytest.FixtureRequest) -> None:
    compare(files.texts["compose.yaml"], "compose.yaml", request)
    compare(files.texts[".env.example"], "compose.env", request)


def test_every_container_has_only_the_rights_that_it_needs(services: dict[str, Any]) -> None:
    for service in services.values():
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert set(service["deploy"]["resources"]["limits"]) == {"cpus", "memory", "pids"}


def test_what_is_not_public_is_in_no_network_that_leads_outside(services: dict[str, Any]) -> None:
    assert services["db"]["networks"] == ["backend"]
    assert "ports" not in services["db"]


def test_no_password_is_in_any_file(files: Rendered) -> None:
    assert not any("POSTGRES_PASSWORD=" in text or "POSTGRES_PASSWORD:" in text for text in files.texts.values())


def test_dependencies_wait_for_what_they_need(services: dict[str, Any]) -> None:
    assert services["web"]["depends_on"] == {
        "db": {"condition": "service_healthy", "restart": True},
        "setup": {"condition": "service_completed_successfully", "restart": False},
    }


def test_what_prometheus_reads_lies_beside_the_file(files: Rendered) -> None:
    written = yaml.safe_load(files.texts["config/prometheus/prometheus.yml"])
    assert [job["job_name"] for job in written["scrape_configs"]] == ["web"]
    assert written["rule_files"] == ["alerts.yml"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            '[services.a]\nimage="a"\nport=90\n[services.b]\nimage="b"\nneeds=["a"]',
            "a has no health check that Compose can run",
        ),
        ('[services.a]\nimage="a"\nport=90\nreplicas=2', "several containers cannot publish the same port"),
        ('[services.a]\nimage="a"\nfiles.x="estiba:nothing:/x"', "there is no estiba:nothing"),
        ('[services.a]\nimage="a"\ncommand="${env.ESTIBA_BIND}"', "is reserved for a setting of compose.yaml"),
        (
            '[services.a-b]\nimage="a"\nport=90\ncommand="${env.ESTIBA_PORT_A_B}"',
            "is reserved for a setting of compose.yaml",
        ),
    ],
)
def test_what_compose_cannot_do_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(BadProject) as error:
        render.render(plan(tmp_path, text), ComposeOptions())
    assert message in str(error.value)


def test_files_of_one_name_stay_apart_and_a_default_is_taken_as_it_stands(tmp_path: Path) -> None:
    for name in ("a.yml", "b.yml"):
        (tmp_path / name).write_text(name)
    text = """[services.web]
image = "x"
command = ["x", "${env.PRICE:-5$}"]
health = ["ask", "${env.WHOM}"]
files = { a = "a.yml:/etc/a/x.yml", b = "b.yml:/etc/b/x.yml" }
"""
    found = render.render(plan(tmp_path, text), ComposeOptions())
    web = yaml.safe_load(found.texts["compose.yaml"])["services"]["web"]
    assert web["command"] == ["x", "${PRICE:-5$$}"]
    assert "WHOM=\n" in found.texts[".env.example"]
    assert {place: source.name for place, source in found.copies.items()} == {
        "config/web/etc/a/x.yml": "a.yml",
        "config/web/etc/b/x.yml": "b.yml",
    }


def test_settings_are_written_once_and_then_kept(tmp_path: Path, files: Rendered) -> None:
    rendered.write(files, tmp_path / "out")
    (tmp_path / "out" / ".env").write_text("mine")
    became = {file.path: file.became for file in rendered.write(files, tmp_path / "out")}
    assert (became[".env"], became["compose.yaml"]) == ("kept", "same")
    assert (tmp_path / "out" / ".env").read_text() == "mine"


def test_the_command_writes_it_with_secrets_for_nobody_else(tmp_path: Path) -> None:
    stack(tmp_path)
    assert run(["compose", "-C", str(tmp_path)]) == 0
    secrets = tmp_path / "deploy" / "compose" / "secrets"
    assert secrets.stat().st_mode & 0o777 == 0o700
    before = (secrets / "token").read_text()
    assert run(["compose", "-C", str(tmp_path)]) == 0
    assert (secrets / "token").read_text() == before
    assert len(before) >= 32


def test_a_container_reads_its_files_whatever_rights_new_ones_get(tmp_path: Path) -> None:
    stack(tmp_path)
    before = os.umask(0o077)
    try:
        assert run(["compose", "-C", str(tmp_path)]) == 0
    finally:
        os.umask(before)
    made = tmp_path / "deploy" / "compose"
    config = made / "config" / "prometheus" / "prometheus.yml"
    places = (made, made / ".env", config.parent, config)
    assert [f"{place.stat().st_mode & 0o777:o}" for place in places] == ["700", "600", "755", "644"]


def test_check_tells_whether_it_is_up_to_date(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stack(tmp_path)
    assert run(["compose", "-C", str(tmp_path), "--check"]) == 1
    assert "out of date: compose.yaml" in capsys.readouterr().out
    run(["compose", "-C", str(tmp_path)])
    assert run(["compose", "-C", str(tmp_path), "--check"]) == 0


def test_docker_reads_it_without_complaint(tmp_path: Path) -> None:
    probe = ["docker", "compose", "version"]
    if shutil.which("docker") is None or subprocess.run(probe, capture_output=True).returncode:
        pytest.skip("docker compose is not installed")
    stack(tmp_path)
    run(["compose", "-C", str(tmp_path)])
    folder = tmp_path / "deploy" / "compose"
    ran = subprocess.run(
        ["docker", "compose", "--profile", "monitoring", "config", "--quiet"],
        cwd=folder,
        env={**os.environ, "KEY": "x"},
        capture_output=True,
        text=True,
    )
    assert (ran.returncode, ran.stderr) == (0, "")


@pytest.fixture
def fronted() -> Rendered:
    """Two services that serve a model each, and something else, behind a front."""
    nowhere = Path("/nowhere")
    served = [
        Service(
            name,
            f"shop/{name}:1",
            Build("models", "slim", "3.11"),
            port=8000,
            published=published,
            health=Http("/health/ready"),
            replicas=2,
            models=(PlannedModel("iris", "1", "0" * 64, nowhere, "onnx", {}),),
        )
        for name, published in (("models", 8100), ("bankchurn", 8080))
    ]
    web = Service("web", "web:1", port=5000, published=5000, command=("ask", "${services.bankchurn.url}"))
    return render.render(Plan("shop", nowhere, (*served, web)), ComposeOptions(front="nginx:1.29"))


def test_a_front_publishes_what_serves_models(fronted: Rendered) -> None:
    services = yaml.safe_load(fronted.texts["compose.yaml"])["services"]
    assert "ports" not in services["models"]
    assert [port["target"] for port in services["front"]["ports"]] == [8100, 8080]
    assert services["front"]["cap_drop"] == ["ALL"]
    conf = fronted.texts["config/front/nginx.conf"]
    assert re.findall(r"listen (\S+?)(?: backlog=4096)?;", conf) == ["unix:/tmp/alive.sock", "8100", "8080"]
    assert conf.count("{") == conf.count("}")


def test_an_address_that_changes_hands_leads_to_nobody_elses_model(fronted: Rendered) -> None:
    """Every service on the reverse proxy's network listens on one port, which no other service there uses."""
    project = yaml.safe_load(fronted.texts["compose.yaml"])
    services, conf = project["services"], fronted.texts["config/front/nginx.conf"]
    assert {name for name, service in services.items() if "front" in service["networks"]} == {
        "front",
        "models",
        "bankchurn",
    }
    assert project["networks"]["front"] == {"internal": True}
    for name, port in (("models", 8100), ("bankchurn", 8080)):
        assert services[name]["command"][-2:] == ["--port", str(port)]
        assert services[name]["healthcheck"]["test"][-1] == f"http://127.0.0.1:{port}/health/ready"
        assert services[name]["networks"]["front"] == {"aliases": [f"{name}.front"]}
        assert (
            f"listen {port} backlog=4096;\n    set $target {name}.front;\n    location / {{\n      proxy_pass http://$target:{port};"
            in conf
        )
    assert services["web"]["command"] == ["ask", "http://bankchurn:8080"]


@pytest.mark.parametrize("bind", ["10.0.0.7", "::1", "0.0.0.0"])
def test_ports_are_published_at_an_address_of_either_kind(tmp_path: Path, bind: str) -> None:
    found = project.load(written(tmp_path, f'[compose]\nbind = "{bind}"\n[services.a]\nimage = "a"\nport = 90'))
    service = yaml.safe_load(render.render(lower(found), found.compose).texts["compose.yaml"])["services"]["a"]
    assert service["ports"] == [
        {"host_ip": f"${{ESTIBA_BIND:-{bind}}}", "published": "${ESTIBA_PORT_A:-90}", "target": 90}
    ]


@pytest.mark.parametrize("bind", ["", "localhost", "10.0.0.7:80", "[::1]", "fe80::1%eth0", "10.0.0.0/8"])
def test_what_is_no_address_is_refused(tmp_path: Path, bind: str) -> None:
    with pytest.raises(BadProject, match=r"compose\.bind: .* is not an IP address"):
        project.load(written(tmp_path, f'[compose]\nbind = "{bind}"'))


def written(folder: Path, text: str) -> Path:
    (folder / "estiba.toml").write_text(text)
    return folder


def test_what_is_needed_takes_part_with_what_needs_it(tmp_path: Path) -> None:
    text = "".join(
        f'[services.{name}]\nimage = "x"\nprofile = "{profile}"\nneeds = {{ {needs} }}\n'
        for name, profile, needs in (
            ("disk", "stores", ""),
            ("db", "stores", 'disk = "started"'),
            ("always", "", 'disk = "started"'),
            ("board", "monitoring", 'db = "started"'),
        )
    )
    found = plan(tmp_path, text)
    services = yaml.safe_load(render.render(found, ComposeOptions()).texts["compose.yaml"])["services"]
    assert {name: service.get("profiles") for name, service in services.items()} == {
        "disk": None,
        "db": ["monitoring", "stores"],
        "always": None,
        "board": ["monitoring"],
    }


def test_a_signal_is_the_images_own_unless_one_is_said(services: dict[str, Any]) -> None:
    assert services["db"]["stop_signal"] == "SIGINT"
    assert "stop_signal" not in services["prometheus"]


def test_a_container_changes_with_what_is_in_its_files(tmp_path: Path) -> None:
    one, other = stack(tmp_path), plan(tmp_path, STACK.replace('metrics = "/metrics"', 'metrics = "/other"'))
    labels = [
        yaml.safe_load(render.render(each, ComposeOptions()).texts["compose.yaml"])["services"]["prometheus"]["labels"]
        for each in (one, other)
    ]
    assert labels[0] != labels[1]
