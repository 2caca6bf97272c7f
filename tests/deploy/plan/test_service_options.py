"""Services of a project file: what is refused, and the plan that the rest becomes."""

from __future__ import annotations

from pathlib import Path

import pytest

from estiba import project
from estiba.core.errors import BadProject
from estiba.deploy.plan.plan import Command, Http, Plan, Tcp, in_container
from estiba.deploy.plan.references import references, resolve
from estiba.planning import lower


def load(folder: Path, text: str) -> project.Project:
    (folder / "estiba.toml").write_text(text)
    return project.load(folder)


def plan(folder: Path, text: str) -> Plan:
    return lower(load(folder, text))


CHURN = '[models.churn]\ntrain = "a:b"\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[services.Web]\ncommand = "x"', "'Web' cannot be the name of a service"),
        ('[services.models]\ncommand = "x"', "already the server of all models"),
        (CHURN + '[services.churn]\ncommand = "x"', "already the model churn"),
        ("[services.web]\nport = 5000", "needs a command or an image"),
        ('[services.web]\ncommand = "say \\"hi"', "services.web.command: no closing quotation"),
        ('[services.web]\ncommand = "x"\nport = 8000', "services.web.port: 8000 is also server.port"),
        ('[services.a]\ncommand = "x"\nport = 90\n[services.b]\ncommand = "x"\nport = 90', "also services.a.port"),
        ('[services.a]\ncommand = "x"\nneeds = ["b"]\n[services.b]\ncommand = "x"\nneeds = ["a"]', "a needs b needs a"),
        ('[services.web]\ncommand = "x"\nneeds = ["postgress"]\n[services.postgres]\nimage = "p"', "mean 'postgres'"),
        ('[services.web]\ncommand = "x ${services.db.host}"', "${services.db} is not defined"),
        ('[services.web]\ncommand = "x ${service.db.host}"', "is not a known reference"),
        ('[services.web]\ncommand = "x $HOME"', "begins no reference"),
        ('[services.web]\ncommand = "x ${port}"', "but the service has no port"),
        ('[services.web]\ncommand = "x"\nhealth = "health"', "must be a path such as /health"),
        ('[services.web]\ncommand = "x"\nhealth = "/health"', "there is no port to send the request to"),
        ('[services.web]\ncommand = "x"\nmemory = "lots"', "services.web.memory"),
        ('[services.web]\ncommand = "x"\nvolumes.data = "here"', "must be an absolute path"),
        ('[services.web]\ncommand = "x"\nfiles.conf = "here"', "must be from:/to"),
        ('[services.web]\ncommand = "x"\nsecrets = ["../key"]', "'../key' cannot be a name here"),
        ('[services.web]\nimage = "x"\ncommand = "x"\nrequirements = "r.txt"', "brings its own packages"),
        ('[services.web]\ncommand = "x"\nprogram = "y"', "services.web.program: is only for a service with an image"),
        ('[services.web]\ncommand = "x"\nrequirements = "r.txt"', "there is no r.txt in"),
        ('[services.web]\ncommand = "x"\ninclude = ["src"]', "services.web.include: there is no src in"),
        ('[models.b_c]\ntrain = "a:b"\nport = 8001', "models.b_c.port: 'b_c' cannot be the name of a service"),
        ('[services.web]\ncommand = "x"\nneeds = ["models"]', "services.web.needs: the project has no models"),
        ('[services.web]\ncommand = "x ${services.models.url}"', "services.web.command: the project has no models"),
        ('[services.web]\ncommand = "x"\nhealth = []', "services.web.health: the command is empty"),
        ('[services.web]\ncommand = "x"\nport = 90\nhealth = "/$x"', "must be a path such as /health"),
        ('[services.web]\ncommand = ["x", "\\u0000"]', "services.web.command: an argument cannot contain a NUL"),
        ('[services.web]\ncommand = "x"\nenvironment = { "A=B" = "c" }', "'A=B' cannot be the name of a variable"),
        ('[services.web]\ncommand = "x"\ninclude = ["/etc"]', "services.web.include: '/etc' is not inside the project"),
        ('[services.web]\ncommand = "x"\nfolder = "../x"', "services.web.folder: '../x' is not inside the project"),
        ('[services.web]\ncommand = "x"\nwritable = ["run"]', "services.web.writable: must be an absolute path"),
        ('[services.web]\nimage = "x:${env.TAG}"', "services.web.image: 'x:${env.TAG}' cannot be the name of an image"),
        (
            '[services.a]\ncommand = "x"\nvolumes.b-c = "/v"\n[services.a-b]\ncommand = "x"\nvolumes.c = "/v"',
            "services.a-b.volumes.c: 'a-b-c' is also the volume of services.a.volumes.b-c",
        ),
        ('[services.web]\ncomand = "x"', "did you mean 'command'"),
    ],
)
def test_a_mistake_is_named_by_its_path(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(BadProject) as error:
        plan(tmp_path, text)
    assert message in str(error.value)


STACK = """
[services.web]
command = "web --db ${services.db.host}:${services.db.port} --on ${host}:${port} $$5"
port = 5000
health = "/health"
needs = { db = "healthy", setup = "completed" }
environment = { TOKEN = "${secrets.token}", MODE = "${env.MODE:-fast}" }
secrets = ["token"]
profile = "apps"
[services.db]
image = "postgres:17"
port = 5432
health = ["pg_isready", "-p", "${port}"]
volumes = { data = "/var/lib/postgresql/data" }
[services.setup]
command = ["touch", "${volumes.here}/done"]
volumes = { here = "/here" }
"""


def test_services_stand_behind_what_they_need(tmp_path: Path) -> None:
    found = plan(tmp_path, STACK)
    names = [service.name for service in found.services]
    assert names.index("web") > max(names.index("db"), names.index("setup"))
    assert found.profiles == ("apps",)
    assert found.secrets == ("db-password", "token")  # the first is that of PostgreSQL


def test_health_is_a_path_a_command_or_a_connection(tmp_path: Path) -> None:
    found = plan(tmp_path, STACK + '[services.cache]\nimage = "acme/cache:8"\nport = 6379\n')
    assert found["web"].health == Http("/health")
    assert found["db"].health == Command(("pg_isready", "-p", "${port}"))
    assert found["cache"].health == Tcp()
    assert found["setup"].health is None


def test_without_a_health_check_started_or_done_is_as_good_as_healthy(tmp_path: Path) -> None:
    text = """
[services.web]
command = "x"
needs = ["worker", "setup"]
[services.worker]
command = "x"
[services.setup]
command = "x"
restart = false
"""
    assert dict(plan(tmp_path, text)["web"].needs) == {"worker": "started", "setup": "completed"}


def test_references_in_a_container(tmp_path: Path) -> None:
    found = plan(tmp_path, STACK)
    web = found["web"]
    words = [resolve(word, lambda r: in_container(found, web, r, "")) for word in web.command]
    assert words == ["web", "--db", "db:5432", "--on", "0.0.0.0:5000", "$5"]
    token = resolve(web.environment["TOKEN"], lambda r: in_container(found, web, r, ""))
    assert token == "/run/secrets/token"


def test_a_default_of_a_variable(tmp_path: Path) -> None:
    (reference,) = references("${env.MODE:-fast}", "here")
    assert (reference.name, reference.default) == ("MODE", "fast")


def test_a_tag_changes_with_what_goes_in(tmp_path: Path) -> None:
    (tmp_path / "web").mkdir()
    (tmp_path / "web" / "app.py").write_text("one")
    text = '[services.web]\ncommand = "python app.py"\nfolder = "web"\n'
    before = plan(tmp_path, text)["web"].image
    assert plan(tmp_path, text)["web"].image == before
    (tmp_path / "web" / "app.py").write_text("two")
    assert plan(tmp_path, text)["web"].image != before


def test_models_become_a_service_for_all_and_one_for_each_with_a_port(tmp_path: Path, toy_registry: Path) -> None:
    text = f"""
[project]
registry = "{toy_registry}"
[models.churn]
train = "a:b"
port = 8001
[models.price]
train = "a:b"
[services.web]
command = "web ${{models.churn.url}} ${{models.price.url}}"
needs = ["churn", "price"]
"""
    found = plan(tmp_path, text)
    assert [(service.name, service.published) for service in found.services[:2]] == [("models", 8000), ("churn", 8001)]
    assert [model.name for model in found["models"].models] == ["churn", "price"]
    assert dict(found["web"].needs) == {"churn": "healthy", "models": "healthy"}
    words = [resolve(word, lambda r: in_container(found, found["web"], r, "")) for word in found["web"].command]
    assert words[1:] == ["http://churn:8000/models/churn", "http://models:8000/models/price"]


@pytest.mark.parametrize(
    ("folder", "name"),
    [("My Project", "my-project"), ("proyecto_ñandú", "proyecto-nandu"), ("-1.", "1"), ("港", "project")],
)
def test_a_project_of_any_folder_has_a_name_that_every_target_takes(tmp_path: Path, folder: str, name: str) -> None:
    (tmp_path / folder).mkdir()
    found = plan(tmp_path / folder, '[services.web]\ncommand = "x"')
    assert found.project == name
    assert found["web"].image.startswith(f"{name}/web:")


def test_a_tag_changes_with_what_goes_into_the_image_and_with_nothing_else(tmp_path: Path) -> None:
    def tag(port: int = 90) -> str:
        return plan(tmp_path, f'[services.web]\ncommand = "x"\nport = {port}\ninclude = ["app", "."]')["web"].image

    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "code.py").write_text("1")
    tag()  # the project file itself is in it
    first = tag()
    for name in (".estiba/volumes/data", "deploy/compose/secrets/key", "deploy/compose/compose.yaml", ".env"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("not in it")
    assert tag() == first
    assert tag(91) != first
    (tmp_path / "app" / "code.py").write_text("2")
    assert tag() != first


def test_a_program_cannot_start_in_a_folder_that_its_image_does_not_get(tmp_path: Path) -> None:
    (tmp_path / "web").mkdir()
    (tmp_path / "lib").mkdir()
    with pytest.raises(BadProject, match=r"services\.web\.folder: web is not included in the image"):
        plan(tmp_path, '[services.web]\ncommand = "x"\nfolder = "web"\ninclude = ["lib"]')
