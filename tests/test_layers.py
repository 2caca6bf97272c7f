"""Imports go downwards only, and what belongs to one place stays there."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parent.parent / "src"

LAYERS = (
    "core",
    "model",
    "serving",
    "gateway",
    "monitoring",
    "deploy",
    "project",
    "lowering",
    "local",
    "local_server",
    "local_services",
    "local_watch",
    "cli",
    "__main__",
)
"""From the bottom up. A package imports from those before it, and any may import `estiba` itself, which is lazy."""

ORDER = {
    "core": "errors log ids endings cpus options stores.disk stores.files shell guard groups ports",
    "model": """
        signature trained rows values record_type compiled frames artifact archive records registry pull coding
        predictions golden loadpath soundness skops_file formats card tables answers infer onnx_graph
        onnx_wrapping engines.wire engines.columns engines.trees engines.rules engines.lowering engines.program
        engines.exact engines engines.onnx engines.python engines.isolated convert onnx_file draft load score
        saved pack stamps tracking train train_worker
        """,
    "serving": """
        listening request http trace telemetry options metrics deadline access_log otlp problems pages messages
        client bridge openapi_common openapi_protocols openapi batcher bodies bulk tensors endpoint
        open_inference mlflow_scoring kserve_v1 native protocols routes server worker process lookout versions
        door supervisor
        """,
    "deploy": """
        references services images plan registry secrets dotenv yaml rendered alerts dashboards observability
        pipelines here health environments scene life processes watch elf trim rootfs recipe front compose published
        steady stack delivery dockerfile requirements wheels
        sharedlibs included context engines weigh verify_image sbom oci daemonless push building export scan
        kubernetes.options kubernetes.files kubernetes.registry kubernetes.workload kubernetes.network
        kubernetes.scaling kubernetes.render kubernetes rollout
        doctor doctor.faults doctor.syntax doctor.stages doctor.context
        doctor.contents doctor.nodes doctor.composefile doctor.merging doctor.stacks doctor.elsewhere
        doctor.commands doctor.sources doctor.containers doctor.bases
        doctor.dockerfile doctor.layers doctor.secrets doctor.access doctor.rights doctor.presence
        doctor.requirements doctor.modelfiles doctor.composed doctor.examine doctor.symptoms doctor.running
        """,
    "cli": """
        terminal places summary progress writing services up train serve predict pack models verify init doctor
        build export scan compose kubernetes deploy ci healthcheck version main
        """,
}
"""Inside a package, a module imports from those named before it: never sideways without being listed."""


@cache
def modules() -> dict[str, ast.Module]:
    found = {}
    for path in sorted(SOURCE.rglob("*.py")):
        name = ".".join(path.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__")
        found[name] = ast.parse(path.read_text())
    return found


def imports(name: str) -> Iterator[str]:
    """What a module imports of estiba, also inside functions; not what only the type checker sees."""
    tree = modules()[name]
    unseen = {id(inner) for node in ast.walk(tree) if _only_typing(node) for inner in ast.walk(node)}
    for node in ast.walk(tree):
        if id(node) in unseen:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.partition(".")[0] == "estiba")
        elif isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "estiba":
            full = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (part if part in modules() else str(node.module) for part in full)


def _only_typing(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def place(name: str) -> tuple[str, str]:
    """The package and the module inside it; what a converter consists of counts as one."""
    _, _, rest = name.partition(".")
    package, _, inner = rest.partition(".")
    return package, "convert" if inner.startswith("convert.") else inner


@pytest.mark.parametrize("name", [name for name in modules() if name != "estiba"])
def test_imports_go_downwards(name: str) -> None:
    package, inner = place(name)
    order = ORDER.get(package, "").split()
    for other in imports(name):
        below, module = place(other)
        if below == package:
            placed = module in order and inner in order and module != inner
            assert not placed or order.index(module) < order.index(inner), f"{name} imports {other} beside or above it"
        elif below:
            assert LAYERS.index(below) < LAYERS.index(package), f"{name} imports {other} above it"


@pytest.mark.parametrize("package", ORDER)
def test_every_module_has_its_place_in_the_order(package: str) -> None:
    inside = {inner for found, inner in map(place, modules()) if found == package and inner}
    assert inside - {"stores"} == set(ORDER[package].split())


@pytest.mark.parametrize(
    ("library", "homes"),
    [
        ("httptools", {"estiba.serving.http"}),
        ("starlette", {"estiba.serving.routes", "estiba.serving.protocols", "estiba.serving.bridge"}),
        (
            "subprocess",
            {"estiba.core.shell", "estiba.core.groups", "estiba.serving.process", "estiba.model.engines.isolated"},
        ),
        ("opentelemetry", {"estiba.serving.otlp"}),
        ("fsspec", {"estiba.core.stores.files"}),
        ("rich", {name for name in modules() if name.startswith("estiba.cli.")}),
        ("click", {name for name in modules() if name.startswith("estiba.cli.")}),
        ("mlflow", {"estiba.model.tracking"}),
        ("yaml", {"estiba.deploy.doctor.nodes"}),
    ],
)
def test_a_library_is_known_in_one_place(library: str, homes: set[str]) -> None:
    users = {
        name
        for name, tree in modules().items()
        for node in ast.walk(tree)
        if (isinstance(node, ast.Import) and any(a.name.partition(".")[0] == library for a in node.names))
        or (isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == library)
    }
    assert users <= homes


def test_only_the_command_line_prints() -> None:
    printing = {
        name
        for name, tree in modules().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    }
    assert {name for name in printing if not name.startswith("estiba.cli.")} == set()


def test_nobody_is_a_manager() -> None:
    words = ("Manager", "Factory", "Helper", "Base")
    classes = [node.name for tree in modules().values() for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    assert [name for name in classes if any(name.startswith(word) or name.endswith(word) for word in words)] == []
