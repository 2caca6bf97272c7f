"""Manifests have the plan's services, are valid by the newest Kubernetes schemas, and refuse what has no form there."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from projects import STACK, compare, plan, stack

from estiba import project
from estiba.cli.main import run
from estiba.core.errors import BadProject
from estiba.deploy.compose.render import ComposeOptions
from estiba.deploy.compose.render import render as render_compose
from estiba.deploy.kubernetes.options import AutoscaleOptions, CanaryOptions, KubernetesOptions
from estiba.deploy.kubernetes.render import OVERLAYS, render
from estiba.deploy.output import files as rendered
from estiba.deploy.output.files import Rendered
from estiba.model.registry.registry import open_registry
from estiba.planning import lower

EVERYTHING = KubernetesOptions(
    host="shop.example",
    gateway="edge/public",
    external_secrets="vault",
    monitoring=True,
    storage_class="fast",
    autoscale=AutoscaleOptions(requests_per_second=50),
    canary={"churn": CanaryOptions(weight=20)},
)

MODELS = """
[models.churn]
train = "shop:train"
port = 8001
"""

Manifest = dict[str, Any]


def documents(files: Rendered) -> list[Manifest]:
    """The objects of all files, kustomizations left out."""
    found = [one for text in (*files.texts.values(), *files.once.values()) for one in yaml.safe_load_all(text)]
    return [one for one in found if one["kind"] not in ("Kustomization", "Component")]


@pytest.fixture(scope="session")
def everything_s_folder(toy_registry: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project: the stack, a model with a port of its own and its canary."""
    folder = tmp_path_factory.mktemp("everything")
    shutil.copytree(toy_registry, folder / "registry")
    open_registry(folder / "registry").set_alias("churn", "candidate", 1)
    (folder / "web").mkdir()
    (folder / "web" / "app.py").write_text("print('hello')\n")
    canary = '[kubernetes]\nhost="shop.example"\ngateway="edge/public"\n[kubernetes.canary.churn]\nweight = 20\n'
    text = STACK.replace('name = "shop"', f'name = "shop"\nregistry = "{folder}/registry"') + MODELS + canary
    (folder / "estiba.toml").write_text(text)
    return folder


@pytest.fixture(scope="session")
def everything(everything_s_folder: Path) -> Rendered:
    """All that can be rendered, with all options."""
    return render(lower(project.load(everything_s_folder), canaries=True), EVERYTHING)


@pytest.fixture(scope="session")
def objects(everything: Rendered) -> list[Manifest]:
    return documents(everything)


@pytest.fixture(scope="session")
def workloads(objects: list[Manifest]) -> list[Manifest]:
    return [one for one in objects if one["kind"] in ("Deployment", "StatefulSet", "Job")]


def named(objects: list[Manifest], kind: str, name: str) -> Manifest:
    return next(one for one in objects if one["kind"] == kind and one["metadata"]["name"] == name)


def containers(workloads: list[Manifest]) -> Iterator[tuple[Manifest, Manifest]]:
    """Each pod's specification with its container."""
    for one in workloads:
        pod = one["spec"]["template"]["spec"]
        assert len(pod["containers"]) == 1
        yield pod, pod["containers"][0]


def test_the_whole(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """The names of what is built depend on this machine's Python; all else is as it is written here."""
    found = stack(tmp_path)
    files = render(found, KubernetesOptions(host="shop.example", tls_secret="shop-tls"))
    tags = "|".join(found[name].image.rpartition(":")[2] for name in ("web", "setup"))
    for path, text in (files.texts | files.once).items():
        text = re.sub(r"setup-[0-9a-f]{8}\b", "setup-CHANGED", text)
        text = re.sub(f'(["]?)({tags})\\1', "TAG", text)  # a tag that begins with a digit is quoted
        compare(text, f"kubernetes/{path}", request)


@pytest.mark.slow
def test_the_newest_schemas_take_every_object(objects: list[Manifest]) -> None:
    import kubernetes_validate

    known = {one["kind"] for one in objects} - CUSTOM
    assert {"Deployment", "StatefulSet", "Job", "HorizontalPodAutoscaler", "PodDisruptionBudget"} <= known
    for one in objects:
        if one["kind"] not in CUSTOM:
            kubernetes_validate.validate(one, kubernetes_validate.latest_version(), strict=True)


CUSTOM = {"HTTPRoute", "ServiceMonitor", "PrometheusRule", "ExternalSecret"}
"""Kinds of others, whose schemas no package brings: their shape is asked for below."""


def test_schemas_do_find_mistakes(workloads: list[Manifest]) -> None:
    import kubernetes_validate

    wrong = {**workloads[0], "spec": {**workloads[0]["spec"], "replica": 2}}
    with pytest.raises(kubernetes_validate.ValidationError, match="replica"):
        kubernetes_validate.validate(wrong, kubernetes_validate.latest_version(), strict=True)


def test_pods_are_restricted(workloads: list[Manifest]) -> None:
    """All that the restricted pod security standard asks, and a read-only root beyond it."""
    for pod, container in containers(workloads):
        rights = pod["securityContext"]
        assert rights["runAsNonRoot"] is True
        assert rights["runAsUser"] > 0
        assert rights["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["automountServiceAccountToken"] is False
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        kinds = {kind for volume in pod["volumes"] for kind in volume if kind != "name"}
        assert kinds <= {"configMap", "emptyDir", "projected", "persistentVolumeClaim"}
        assert "hostPort" not in str(container)


def test_pods_may_use_so_much_and_no_more(workloads: list[Manifest]) -> None:
    for _, container in containers(workloads):
        resources = container["resources"]
        assert set(resources["limits"]) == set(resources["requests"]) == {"cpu", "memory"}
        assert resources["limits"]["memory"] == resources["requests"]["memory"]
        assert not container["image"].endswith(":latest")
        assert ":" in container["image"]


def test_probes_ask_ports_that_are_there_and_liveness_is_the_last_to_judge(workloads: list[Manifest]) -> None:
    for _, container in containers(workloads):
        ports = {port["name"] for port in container.get("ports", [])}
        if ports:
            probes = [container[f"{name}Probe"] for name in ("startup", "readiness", "liveness")]
            asked = {
                one["port"] for probe in probes for one in probe.values() if isinstance(one, dict) and "port" in one
            }
            assert asked <= ports
            _, ready, live = probes
            assert live["periodSeconds"] * live["failureThreshold"] > 5 * ready["periodSeconds"] * 2


def test_a_model_server_is_alive_while_it_is_not_ready(objects: list[Manifest]) -> None:
    container = named(objects, "Deployment", "churn")["spec"]["template"]["spec"]["containers"][0]
    paths = {name: container[f"{name}Probe"]["httpGet"]["path"] for name in ("startup", "readiness", "liveness")}
    assert paths == {"startup": "/health/startup", "readiness": "/health/ready", "liveness": "/health/live"}


def test_pods_have_time_to_be_noticed_and_to_drain(objects: list[Manifest]) -> None:
    pod = named(objects, "Deployment", "models")["spec"]["template"]["spec"]
    arguments = pod["containers"][0]["args"]
    delay = float(arguments[arguments.index("--shutdown-delay") + 1])
    assert pod["terminationGracePeriodSeconds"] > delay + 10  # the drain of [server]
    db = named(objects, "StatefulSet", "db")["spec"]["template"]["spec"]
    wait = db["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert db["terminationGracePeriodSeconds"] > wait + 10


def test_a_new_pod_is_ready_before_an_old_one_ends(objects: list[Manifest]) -> None:
    for one in objects:
        if one["kind"] == "Deployment":
            assert one["spec"]["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}


def matching(labels: dict[str, str], workloads: list[Manifest]) -> list[str]:
    found = [one["spec"]["template"]["metadata"]["labels"] for one in workloads]
    return [one["app.kubernetes.io/name"] for one in found if labels.items() <= one.items()]


def test_selectors_find_their_own_pods_and_no_others(objects: list[Manifest], workloads: list[Manifest]) -> None:
    for one in workloads:
        if one["kind"] != "Job":
            labels = one["spec"]["selector"]["matchLabels"]
            assert matching(labels, workloads) == [one["metadata"]["name"]]
    for one in objects:
        if one["kind"] == "Service":
            (name,) = matching(one["spec"]["selector"], workloads)
            assert one["metadata"]["name"].removesuffix("-pods") == name
        if one["kind"] == "PodDisruptionBudget":
            assert matching(one["spec"]["selector"]["matchLabels"], workloads) == [one["metadata"]["name"]]


def test_services_lead_to_ports_that_are_there(objects: list[Manifest], workloads: list[Manifest]) -> None:
    listening = {
        one["spec"]["template"]["metadata"]["labels"]["app.kubernetes.io/name"]: {
            port["name"]: port["containerPort"] for port in container.get("ports", [])
        }
        for one, (_, container) in zip(workloads, containers(workloads), strict=True)
    }
    for one in objects:
        if one["kind"] == "Service":
            ports = listening[one["spec"]["selector"]["app.kubernetes.io/name"]]
            assert all(ports[port["targetPort"]] == port["port"] for port in one["spec"]["ports"])


def test_policies_name_pods_that_are_there(objects: list[Manifest], workloads: list[Manifest]) -> None:
    policies = {one["metadata"]["name"]: one["spec"] for one in objects if one["kind"] == "NetworkPolicy"}
    assert policies["deny-all"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    assert set(policies) == {"deny-all", "allow-dns", *(matching({}, workloads))}
    ends = [
        end["podSelector"]["matchLabels"]
        for spec in policies.values()
        for way, side in (("ingress", "from"), ("egress", "to"))
        for rule in spec.get(way, [])
        for end in rule.get(side, [])
        if "podSelector" in end
    ]
    assert ends
    assert all(len(matching(labels, workloads)) == 1 for labels in ends)


def test_what_one_policy_lets_out_another_lets_in(objects: list[Manifest]) -> None:
    def pods(name: str, way: str, side: str) -> set[str]:
        rules = named(objects, "NetworkPolicy", name)["spec"].get(way, [])
        ends = [end["podSelector"]["matchLabels"] for rule in rules for end in rule[side] if "podSelector" in end]
        return {labels["app.kubernetes.io/name"] for labels in ends}

    assert pods("web", "egress", "to") == {"db"}
    assert pods("db", "ingress", "from") == {"web"}
    assert pods("churn", "ingress", "from") == {"prometheus"}
    assert pods("prometheus", "egress", "to") >= {"web", "models", "churn", "churn-canary"}


def test_what_scales_by_itself_says_no_number_of_pods(objects: list[Manifest]) -> None:
    scaled = [one for one in objects if one["kind"] == "HorizontalPodAutoscaler"]
    assert {one["metadata"]["name"] for one in scaled} == {"models", "churn", "churn-canary"}
    for one in scaled:
        target = named(objects, "Deployment", one["spec"]["scaleTargetRef"]["name"])
        assert "replicas" not in target["spec"]
    metric = named(objects, "HorizontalPodAutoscaler", "churn")["spec"]["metrics"][1]
    assert metric["pods"]["target"] == {"type": "AverageValue", "averageValue": "50000m"}


def test_secrets_are_only_named(everything: Rendered, objects: list[Manifest]) -> None:
    assert not any(one["kind"] == "Secret" for one in objects)
    pod = named(objects, "StatefulSet", "db")["spec"]["template"]["spec"]
    source = next(one for one in pod["volumes"] if one["name"] == "secrets")["projected"]["sources"]
    assert source == [{"secret": {"name": "db-password", "items": [{"key": "value", "path": "db-password"}]}}]
    wanted = named(objects, "ExternalSecret", "db-password")["spec"]
    assert wanted["data"] == [{"secretKey": "value", "remoteRef": {"key": "shop/db-password"}}]
    assert wanted["secretStoreRef"] == {"kind": "ClusterSecretStore", "name": "vault"}


def test_requests_are_split_between_two_versions(objects: list[Manifest]) -> None:
    route = named(objects, "HTTPRoute", "churn")["spec"]
    assert route["parentRefs"] == [{"namespace": "edge", "name": "public"}]
    backends = {one["name"]: one["weight"] for one in route["rules"][0]["backendRefs"]}
    assert backends == {"churn": 80, "churn-canary": 20}
    for name in backends:
        named(objects, "Service", name)


def test_the_image_of_a_canary_is_built_with_the_others(
    everything_s_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["build", "-C", str(everything_s_folder), "--print"]) == 0
    assert "image of churn-canary in shop" in capsys.readouterr().out


def test_the_operator_finds_services_by_their_labels(objects: list[Manifest]) -> None:
    monitors = [one for one in objects if one["kind"] == "ServiceMonitor"]
    services = [one for one in objects if one["kind"] == "Service"]
    assert {one["metadata"]["name"] for one in monitors} == {"models", "churn", "churn-canary", "web"}
    for one in monitors:
        labels, port = one["spec"]["selector"]["matchLabels"], one["spec"]["endpoints"][0]["port"]
        found = [each for each in services if labels.items() <= each["metadata"]["labels"].items()]
        assert [each["spec"]["ports"][0]["name"] for each in found] == [port]
    rules = named(objects, "PrometheusRule", "shop")["spec"]["groups"]
    assert all({"alert", "expr", "for", "labels", "annotations"} == set(rule) for rule in rules[0]["rules"])


def test_each_pod_is_scraped(objects: list[Manifest]) -> None:
    text = named(objects, "ConfigMap", "prometheus-config")["data"]["prometheus.yml"]
    jobs = {job["job_name"]: job for job in yaml.safe_load(text)["scrape_configs"]}
    (found,) = jobs["churn"]["dns_sd_configs"]
    assert (found["names"], found["port"]) == (["churn-pods"], 8000)
    service = named(objects, "Service", "churn-pods")["spec"]
    assert service["clusterIP"] == "None"
    assert service["publishNotReadyAddresses"] is True


def test_a_job_has_its_volumes_and_another_name_when_it_changes(tmp_path: Path) -> None:
    def job(text: str) -> tuple[Manifest, list[Manifest]]:
        (tmp_path / "web").mkdir(exist_ok=True)
        objects = documents(render(plan(tmp_path, text), KubernetesOptions()))
        return next(one for one in objects if one["kind"] == "Job"), objects

    first, objects = job(STACK)
    volumes = first["spec"]["template"]["spec"]["volumes"]
    claim = next(one["persistentVolumeClaim"]["claimName"] for one in volumes if "persistentVolumeClaim" in one)
    named(objects, "PersistentVolumeClaim", claim)
    second, _ = job(STACK.replace("/done'", "/finished'"))
    assert first["metadata"]["name"] != second["metadata"]["name"]


def test_pods_are_replaced_when_a_file_that_they_read_changes(tmp_path: Path) -> None:
    def stamp(text: str) -> str:
        (tmp_path / "a.txt").write_text(text)
        found = plan(tmp_path, '[services.a]\nimage="a:1"\nuser=7\nfiles.x="a.txt:/x/a.txt"')
        (one,) = [one for one in documents(render(found, KubernetesOptions())) if one["kind"] == "Deployment"]
        return str(one["spec"]["template"]["metadata"]["annotations"]["estiba.org/files"])

    assert stamp("one") == stamp("one") != stamp("two")


def test_settings_without_a_default_are_left_to_the_overlay(tmp_path: Path) -> None:
    settings = named(documents(render(stack(tmp_path), KubernetesOptions())), "ConfigMap", "settings")
    assert settings["data"] == {"MODE": "fast"}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_kustomize_builds_each_overlay(everything: Rendered, tmp_path: Path, overlay: str) -> None:
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not installed")
    rendered.write(everything, tmp_path)
    folder = tmp_path / "overlays" / overlay
    text = (folder / "kustomization.yaml").read_text()
    (folder / "kustomization.yaml").write_text(text + "components: [../../components/monitoring]\n")
    command = ["kubectl", "kustomize", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "KUBECONFIG": os.devnull})
    assert (done.returncode, done.stderr) == (0, "")
    found = list(yaml.safe_load_all(done.stdout))
    spaces = {one["metadata"].get("namespace") for one in found} - {None}
    assert spaces == {"shop" if overlay == "production" else f"shop-{overlay}"}
    assert named(found, "Namespace", spaces.pop())["metadata"]["labels"]["pod-security.kubernetes.io/enforce"]
    named(found, "StatefulSet", "prometheus")
    least = {one["spec"]["minReplicas"] for one in found if one["kind"] == "HorizontalPodAutoscaler"}
    assert least == ({1} if overlay == "dev" else {1, 2})


APP = '[services.a]\nimage="a:1"\nport=90\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (APP, "services.a.user: required, because the image may run as root"),
        (f"{APP}user=0", "services.a.user: the namespace admits no pods that run as root"),
        (
            f'{APP}user=7\nreplicas=2\nvolumes={{d="/d"}}',
            "services.a.replicas: a service with volumes cannot",
        ),
        ("[kubernetes]\nautoscale={minimum=3, maximum=2}", "kubernetes.autoscale.maximum: must be at least"),
        ("[kubernetes.canary.x]", "kubernetes.canary: needs kubernetes.gateway and kubernetes.host"),
        ('[kubernetes]\nhost="a.b"\ngateway="a/b"\ncanary.x={}', "kubernetes.canary.x: there is no model 'x'"),
        (f'{APP}user=7\nfiles.x="big.bin:/x/y"', "big.bin is not text"),
        (f'{APP}user=7\nfiles.x="large.txt:/x/y"', "too large for a ConfigMap"),
    ],
)
def test_what_kubernetes_cannot_do_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "big.bin").write_bytes(b"\xff\x00")
    (tmp_path / "large.txt").write_text("x" * 1_100_000)
    found = plan(tmp_path, text)
    with pytest.raises(BadProject) as error:
        render(found, project.load(tmp_path).kubernetes)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[kubernetes]\nhosts = 'x'", "kubernetes.hosts: unknown key; did you mean 'host'?"),
        ("[kubernetes]\nnamespace = 'No Name'", "kubernetes.namespace: "),
        ("[kubernetes]\ngateway = 'nameless'", "kubernetes.gateway: "),
        ("[kubernetes]\nautoscale.cpu = 200", "kubernetes.autoscale.cpu: must be at most 100"),
    ],
)
def test_options_are_checked(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "estiba.toml").write_text(text)
    with pytest.raises(BadProject) as error:
        project.load(tmp_path)
    assert message in str(error.value)


def test_secrets_are_asked_for_where_they_are_needed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    always = '[services.app]\nimage = "app:1"\nuser = 1000\nsecrets = ["key"]\n'
    extra = '[services.store]\nimage = "store:1"\nuser = 1000\nsecrets = ["key", "password"]\nprofile = "stores"\n'
    (tmp_path / "estiba.toml").write_text(f'[project]\nname = "shop"\n{always}{extra}')
    assert run(["kubernetes"]) == 0
    create = "kubectl create secret generic {0} -n shop-staging --from-file=value=.estiba/secrets/{0}"
    assert [line.strip() for line in capsys.readouterr().out.partition("Next:\n")[2].splitlines()] == [
        "estiba build --push",
        "kubectl apply -f deploy/kubernetes/overlays/staging/namespace.yaml",
        create.format("key"),
        "estiba deploy kubernetes staging",
        "# before that, where the overlay names components/stores:",
        create.format("password"),
    ]


def test_the_command_writes_them_and_keeps_overlays(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stack(tmp_path)
    assert run(["kubernetes", "-C", str(tmp_path)]) == 0
    assert "kubectl create secret generic db-password -n shop-staging --from-file=value=/" in capsys.readouterr().out
    mine = tmp_path / "deploy" / "kubernetes" / "overlays" / "staging" / "kustomization.yaml"
    mine.write_text("mine")
    assert run(["kubernetes", "-C", str(tmp_path), "--check"]) == 0
    assert run(["kubernetes", "-C", str(tmp_path)]) == 0
    assert mine.read_text() == "mine"


def test_no_overlay_includes_a_component_that_nobody_has_named(everything: Rendered) -> None:
    """So production holds what staging rehearsed, and neither generated traffic nor notebooks."""
    texts = [everything.once[f"overlays/{name}/kustomization.yaml"] for name in OVERLAYS]
    assert ["components" in yaml.safe_load(text) for text in texts] == [False, False, False]
    assert len({tuple(line for line in text.splitlines() if "components/" in line) for text in texts}) == 1


def liveness(folder: Path, keys: str) -> dict[str, Any]:
    found = plan(folder, f'[services.a]\nimage="a:1"\nuser=7\n{keys}')
    (workload,) = [each for each in documents(render(found, KubernetesOptions())) if each["kind"] == "Deployment"]
    (container,) = workload["spec"]["template"]["spec"]["containers"]
    probe: dict[str, Any] = container["livenessProbe"]
    return probe


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ('port = 90\nhealth = "/health"', {"tcpSocket": {"port": "http"}}),
        ('port = 90\nhealth = "/health"\nlive = "/live"', {"httpGet": {"path": "/live", "port": "http"}}),
        ('port = 90\nhealth = ["check"]', {"tcpSocket": {"port": "tcp"}}),
        ('health = ["check"]', {"exec": {"command": ["check"]}}),
    ],
)
def test_a_health_check_that_fails_for_want_of_a_database_restarts_no_pod(
    tmp_path: Path, keys: str, expected: dict[str, Any]
) -> None:
    assert expected.items() <= liveness(tmp_path, keys).items()


def test_tmp_is_as_large_as_in_compose(tmp_path: Path) -> None:
    found = plan(tmp_path, '[services.a]\nimage="a:1"\nuser=7\ntmp="70MB"\nwritable=["/w"]')
    (workload,) = [each for each in documents(render(found, KubernetesOptions())) if each["kind"] == "Deployment"]
    volumes = workload["spec"]["template"]["spec"]["volumes"]
    assert [volume["emptyDir"]["sizeLimit"] for volume in volumes] == ["70000000", "70000000"]
    rendered_compose = render_compose(found, ComposeOptions()).texts["compose.yaml"]
    assert yaml.safe_load(rendered_compose)["services"]["a"]["tmpfs"] == [
        "/tmp:size=70000000,mode=1777,uid=7",
        "/w:size=70000000,mode=1777,uid=7",
    ]
