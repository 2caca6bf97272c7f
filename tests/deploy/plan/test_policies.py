"""Keys and the log of predictions in rendered files: state store, first key, and what one SQLite file cannot serve."""

from __future__ import annotations

import stat
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from projects import STACK, compare

from estiba import project
from estiba.core.errors import BadProject, EstibaError
from estiba.deploy.compose import render as compose
from estiba.deploy.compose.render import ComposeOptions
from estiba.deploy.kubernetes import render as kubernetes
from estiba.deploy.kubernetes.options import AutoscaleOptions, KubernetesOptions
from estiba.deploy.plan import policies, secrets
from estiba.deploy.plan.plan import API_KEY, Build, Http, Plan, PlannedModel, Service
from estiba.deploy.plan.policies import Reach
from estiba.gateway.keys import is_well_formed
from estiba.gateway.options import CacheOptions, GatewayOptions, LimitsOptions, LogOptions
from estiba.planning import lower, lower_for_compose, lower_for_kubernetes
from estiba.state.options import StateOptions

DATABASE = "postgresql://postgres@db:5432/postgres?password_file=/run/secrets/db-password"
ONE_POD = KubernetesOptions(autoscale=AutoscaleOptions(minimum=1, maximum=1), monitoring=True)


def server(name: str = "models", **settings: Any) -> Service:
    return Service(
        name,
        f"shop/{name}:1",
        build=Build("models", "scratch", "3.11"),
        port=8000,
        published=8000,
        health=Http("/health/ready"),
        metrics="/metrics",
        models=(PlannedModel("churn", "1", "0" * 64, Path("/none"), "onnx", {}),),
        **settings,
    )


def keyed(folder: Path, options: GatewayOptions, state: StateOptions, address: str = "127.0.0.1") -> Plan:
    """The plan of STACK with a model server and its policies."""
    (folder / "web").mkdir(exist_ok=True)
    (folder / "web" / "app.py").write_text("print('hello')\n")
    (folder / "estiba.toml").write_text(STACK)
    loaded = project.load(folder)
    plan = lower(loaded)
    described = policies.describe(options, state, loaded.services)
    return policies.apply(replace(plan, services=(server(), *plan.services), policies=described), Reach(address))


REQUIRED = GatewayOptions(keys="required", log=LogOptions(enabled=True, redact=("age",)))
IN_POSTGRES, IN_SQLITE = StateOptions(service="db"), StateOptions()


def compose_services(plan: Plan) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(compose.render(plan, ComposeOptions()).texts["compose.yaml"])["services"]
    return found


def test_compose_files_with_keys_in_postgres(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    files = compose.render(keyed(tmp_path, REQUIRED, IN_POSTGRES), ComposeOptions())
    compare(files.texts["compose.yaml"], "keys/compose.yaml", request)
    compare(files.texts["config/prometheus/prometheus.yml"], "keys/prometheus.yml", request)


def test_manifests_with_keys_in_postgres_and_in_sqlite(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    files = kubernetes.render(keyed(tmp_path, REQUIRED, IN_POSTGRES), KubernetesOptions())
    compare(files.texts["base/models.yaml"], "keys/kubernetes-postgres.yaml", request)
    files = kubernetes.render(keyed(tmp_path, REQUIRED, IN_SQLITE), ONE_POD)
    compare(files.texts["base/models.yaml"], "keys/kubernetes-sqlite.yaml", request)
    monitor = next(yaml.safe_load_all(files.texts["components/operator/monitoring.yaml"]))
    (endpoint,) = monitor["spec"]["endpoints"]
    assert endpoint["authorization"] == {"type": "Bearer", "credentials": {"name": API_KEY, "key": "value"}}


def test_a_server_gets_the_database_of_its_project_and_the_first_key(tmp_path: Path) -> None:
    found = compose_services(keyed(tmp_path, REQUIRED, IN_POSTGRES))["models"]
    assert found["environment"] == {
        "ESTIBA_STATE": DATABASE,
        "ESTIBA_KEYS": "required",
        "ESTIBA_SERVER_KEY_FILE": "/run/secrets/estiba-key",
    }
    assert found["secrets"] == ["db-password", "estiba-key"]
    assert found["depends_on"] == {"db": {"condition": "service_healthy", "restart": False}}
    assert "volumes" not in found


def test_the_only_container_keeps_sqlite_on_a_volume(tmp_path: Path) -> None:
    found = compose_services(keyed(tmp_path, REQUIRED, IN_SQLITE))["models"]
    assert found["environment"]["ESTIBA_STATE"] == "sqlite:////state/state.db"
    assert found["volumes"] == [{"type": "volume", "source": "models-state", "target": "/state"}]


def test_a_log_alone_needs_no_key(tmp_path: Path) -> None:
    plan = keyed(tmp_path, GatewayOptions(log=LogOptions(enabled=True)), IN_SQLITE)
    found = compose_services(plan)
    assert found["models"]["environment"] == {"ESTIBA_STATE": "sqlite:////state/state.db"}
    assert API_KEY not in plan.secrets


def test_this_machine_needs_no_key_and_others_do(tmp_path: Path) -> None:
    alone = keyed(tmp_path, GatewayOptions(), IN_POSTGRES)
    assert "environment" not in compose_services(alone)["models"]
    assert API_KEY not in alone.secrets
    public = keyed(tmp_path, GatewayOptions(), IN_POSTGRES, "0.0.0.0")
    assert compose_services(public)["models"]["environment"]["ESTIBA_KEYS"] == "required"
    with pytest.raises(EstibaError, match=r"Serving on 0\.0\.0\.0 without keys"):
        keyed(tmp_path, GatewayOptions(keys="off"), IN_POSTGRES, "0.0.0.0")


@pytest.mark.parametrize(
    ("toml", "asked"),
    [
        ("", False),
        ('[compose]\nbind = "0.0.0.0"', True),
        ('[compose]\nbind = "0.0.0.0"\n[server]\ninsecure = true', False),
        ('[gateway]\nkeys = "required"', True),
    ],
)
def test_a_project_file_decides_on_keys_in_compose(tmp_path: Path, toy_registry: Path, toml: str, asked: bool) -> None:
    plan = lower_for_compose(loaded(tmp_path, toy_registry, toml))
    assert plan.policies.needs_keys == asked
    assert (API_KEY in plan.secrets) == asked
    assert API_KEY not in plan.external_secrets


def test_a_host_outside_of_the_cluster_needs_keys(tmp_path: Path, toy_registry: Path) -> None:
    one = "[kubernetes.autoscale]\nminimum = 1\nmaximum = 1\n"
    plan = lower_for_kubernetes(loaded(tmp_path, toy_registry, one))
    assert not plan.policies.needs_keys
    plan = lower_for_kubernetes(loaded(tmp_path, toy_registry, '[kubernetes]\nhost = "shop.example"\n' + one))
    assert plan.policies.needs_keys


def loaded(folder: Path, registry: Path, toml: str, more: str = "") -> project.Project:
    head = f'[project]\nname = "shop"\nregistry = "{registry}"\n[models.churn]\ntrain = "a:b"\n'
    (folder / "estiba.toml").write_text(head + more + toml)
    return project.load(folder)


@pytest.mark.parametrize(
    ("toml", "more", "message"),
    [
        ("", "port = 8001\n", "Here 2 serve models: models, churn"),
        ("[images]\nreplicas = 3", "", "Here up to 3 may run"),
        ('[compose]\nfront = "nginx:1.29"', "", "Here up to 2 may run"),
    ],
)
def test_one_sqlite_file_serves_one_container(
    tmp_path: Path, toy_registry: Path, toml: str, more: str, message: str
) -> None:
    found = loaded(tmp_path, toy_registry, '[gateway]\nkeys = "required"\n' + toml, more)
    with pytest.raises(BadProject, match=message) as error:
        lower_for_compose(found)
    assert "an SQLite file, which only one container can use" in error.value.message


def test_one_sqlite_file_serves_one_pod(tmp_path: Path, toy_registry: Path) -> None:
    found = loaded(tmp_path, toy_registry, '[gateway]\nkeys = "required"')
    with pytest.raises(BadProject, match="Here up to 6 may run") as error:
        lower_for_kubernetes(found)
    assert "minimum = 1 and maximum = 1 in [kubernetes.autoscale]" in str(error.value.hint)


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (StateOptions(service="postgres"), "there is no service 'postgres'"),
        (StateOptions(service="web"), "web does not read its password from a secret"),
        (StateOptions(service="setup"), "setup has no port"),
        (StateOptions(url="postgresql://me:secret@db.example/x"), r"the password of postgresql://me:\*\*\*@db.example"),
        (StateOptions(url="postgresql://me@localhost/x"), "means the container itself"),
        (StateOptions(url="postgresql://me@db.example/x?password_file=/home/me/pw"), "do not have the file /home/me"),
    ],
)
def test_a_state_store_that_containers_cannot_use_is_refused(tmp_path: Path, state: StateOptions, message: str) -> None:
    with pytest.raises(BadProject, match=message):
        keyed(tmp_path, REQUIRED, state)


def limited(**options: Any) -> GatewayOptions:
    return GatewayOptions(limits=LimitsOptions(rate=50, **options))


def test_several_containers_count_limits_in_redis(tmp_path: Path) -> None:
    plan = keyed(tmp_path, limited(service="db"), IN_SQLITE)  # any service with a port
    found = compose_services(plan)["models"]
    assert found["environment"] == {"ESTIBA_LIMITS_STORE": "redis://db:5432/0"}
    assert found["depends_on"] == {"db": {"condition": "service_healthy", "restart": False}}
    plan = keyed(tmp_path, limited(store="redis://limits.example:7000/1"), IN_SQLITE)
    assert "environment" not in compose_services(plan)["models"]  # it is in the settings of the image
    objects = yaml.safe_load_all(kubernetes.render(plan, KubernetesOptions()).texts["base/models.yaml"])
    (policy,) = [each for each in objects if each["kind"] == "NetworkPolicy"]
    assert [rule["ports"] for rule in policy["spec"]["egress"]] == [[{"protocol": "TCP", "port": 7000}]]


def test_several_containers_share_answers_in_redis(tmp_path: Path) -> None:
    cache = CacheOptions(enabled=True, service="db")
    plan = keyed(tmp_path, GatewayOptions(cache=cache, limits=LimitsOptions(rate=50, service="db")), IN_SQLITE)
    found = compose_services(plan)["models"]
    shared = {"ESTIBA_LIMITS_STORE": "redis://db:5432/0", "ESTIBA_CACHE_STORE": "redis://db:5432/1"}
    assert found["environment"] == shared
    assert found["depends_on"] == {"db": {"condition": "service_healthy", "restart": False}}
    elsewhere = CacheOptions(enabled=True, store="redis://cache.example:7000/1")
    plan = keyed(tmp_path, GatewayOptions(cache=elsewhere), IN_SQLITE)
    objects = yaml.safe_load_all(kubernetes.render(plan, KubernetesOptions()).texts["base/models.yaml"])
    (policy,) = [each for each in objects if each["kind"] == "NetworkPolicy"]
    assert [rule["ports"] for rule in policy["spec"]["egress"]] == [[{"protocol": "TCP", "port": 7000}]]
    plan = keyed(tmp_path, GatewayOptions(cache=CacheOptions(enabled=True)), IN_SQLITE)
    assert "environment" not in compose_services(plan)["models"]  # each container keeps its own


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"service": "rediss"}, "gateway.cache.service: there is no service 'rediss'"),
        ({"store": "redis://:secret@cache.example/0"}, "gateway.cache.store: its password would be readable"),
        ({"store": "redis://localhost/0"}, "gateway.cache.store: .* means the container itself"),
    ],
)
def test_a_store_of_answers_that_containers_cannot_use_is_refused(
    tmp_path: Path, options: dict[str, str], message: str
) -> None:
    with pytest.raises(BadProject, match=message):
        keyed(tmp_path, GatewayOptions(cache=CacheOptions(enabled=True, **options)), IN_SQLITE)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"service": "rediss"}, "there is no service 'rediss'"),
        ({"service": "setup"}, "setup has no port"),
        ({"store": "redis://:secret@limits.example/0"}, "its password would be readable"),
        ({"store": "redis://localhost/0"}, "means the container itself"),
    ],
)
def test_a_store_of_limits_that_containers_cannot_use_is_refused(
    tmp_path: Path, options: dict[str, str], message: str
) -> None:
    with pytest.raises(BadProject, match=message):
        keyed(tmp_path, limited(**options), IN_SQLITE)


@pytest.mark.parametrize(
    ("toml", "more", "message"),
    [("", "port = 8001\n", "Here 2 serve models"), ("[images]\nreplicas = 3", "", "Here up to 3 may run")],
)
def test_containers_do_not_count_limits_apart(
    tmp_path: Path, toy_registry: Path, toml: str, more: str, message: str
) -> None:
    found = loaded(tmp_path, toy_registry, "[gateway.limits]\nrate = 50\n" + toml, more)
    with pytest.raises(BadProject, match=message):
        lower_for_compose(found)


def test_the_only_container_counts_limits_itself(tmp_path: Path, toy_registry: Path) -> None:
    plan = lower_for_compose(loaded(tmp_path, toy_registry, "[gateway.limits]\nrate = 50\n"))
    assert plan.policies.options.limits.rate == 50
    assert "environment" not in compose_services(plan)["models"]


def test_a_database_elsewhere_is_reached_with_a_password_that_nobody_generates(tmp_path: Path) -> None:
    url = "postgresql://me@db.example/x?password_file=${secrets.state-password}"
    plan = keyed(tmp_path, REQUIRED, StateOptions(url=url))
    found = compose_services(plan)["models"]
    assert (
        found["environment"]["ESTIBA_STATE"] == "postgresql://me@db.example/x?password_file=/run/secrets/state-password"
    )
    assert plan.external_secrets == ("state-password",)
    objects = yaml.safe_load_all(kubernetes.render(plan, KubernetesOptions()).texts["base/models.yaml"])
    (policy,) = [each for each in objects if each["kind"] == "NetworkPolicy"]
    assert [rule["ports"] for rule in policy["spec"]["egress"]] == [[{"protocol": "TCP", "port": 5432}]]


def test_the_secret_of_a_key_is_a_key(tmp_path: Path) -> None:
    path = secrets.ensure(tmp_path, [API_KEY])[API_KEY]
    assert is_well_formed(path.read_bytes())
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    before = path.read_bytes()
    secrets.copy_to(tmp_path, [API_KEY], tmp_path / "out")
    assert (tmp_path / "out" / API_KEY).read_bytes() == before


def test_settings_of_an_image_hold_the_policies_and_change_its_tag(tmp_path: Path, toy_registry: Path) -> None:
    from estiba.deploy.image.spec import image_spec

    plain = lower(loaded(tmp_path, toy_registry, ""))
    plan = lower(loaded(tmp_path, toy_registry, '[gateway]\nkeys = "required"\n[gateway.log]\nenabled = true'))
    assert plan["models"].image != plain["models"].image
    spec = image_spec(plan, plan["models"])
    assert spec.contents.settings["gateway"] == {"keys": "required", "log": {"enabled": True}}
    assert (spec.contents.store, spec.runtime.volumes) == ("sqlite", ("/state",))
    assert "gateway" not in image_spec(plain, plain["models"]).contents.settings


def test_a_server_whose_models_an_init_container_fetches_has_its_keys_and_not_the_registry_s_credentials(
    tmp_path: Path,
) -> None:
    plan = keyed(tmp_path, REQUIRED, IN_POSTGRES)
    registry = {"AWS_SHARED_CREDENTIALS_FILE": "${secrets.s3}"}
    first = replace(
        plan["models"],
        environment={**registry, **plan["models"].environment},
        secrets=("s3", *plan["models"].secrets),
    )
    plan = replace(plan, registry="s3://bucket/models", services=(first, *plan.services[1:]))
    objects = list(yaml.safe_load_all(kubernetes.render(plan, KubernetesOptions()).texts["base/models.yaml"]))
    pod = next(each for each in objects if each["kind"] == "Deployment")["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert [each["name"] for each in container["env"]] == ["ESTIBA_STATE", "ESTIBA_KEYS", "ESTIBA_SERVER_KEY_FILE"]
    mounted = {each["mountPath"] for each in container["volumeMounts"]}
    assert {"/run/secrets/estiba-key", "/run/secrets/db-password"} <= mounted
    assert not mounted & {"/run/secrets", "/run/secrets/s3"}
    assert plan.external_secrets == ("s3",)
