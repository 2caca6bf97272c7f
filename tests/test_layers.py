"""Imports go downwards only, folder by folder, and a library is known in one place."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parent.parent / "src"

ORDER = {
    "estiba": """
        core state model serving client gateway monitoring deploy serve project planning doctor local cli __main__
        """,
    "estiba.core": """
        installation errors durations variables language log ids suggest addresses child termination cpus memory options
        stores guard shell cli_program process_group ports python_command
        """,
    "estiba.core.stores": "disk files",
    "estiba.state": "options database sqlite postgres migrations store",
    "estiba.gateway": """
        options keys key_snapshot jwks jwt policy access browsers limit_memory redis_connection limits_redis limits
        answer_form feedback quality feedback_store cache_key cache_memory cache_redis cache prediction_log
        log_retention log_query routes worker
        """,
    "estiba.model": """
        schema coding artifact registry estimators convert engines onnx_import inference explanation packing training
        """,
    "estiba.model.schema": """
        binary_tensors tensor_types signature signature_difference answer_text signature_checks json_schema rows
        json_pointer json_values values text_input estimator_columns infer
        """,
    "estiba.model.coding": """
        kernel terms arrow thrift_compact table_limits csv_file bounded_zip xlsx_file xlsx_writer pandas_series
        record_type known_names coder handover predictions npy npz images tensor_coder
        """,
    "estiba.model.artifact": "tail artifact archive golden_rows golden_tensors profile made_rows model_card",
    "estiba.model.registry": "records route_record registry routes mirror",
    "estiba.model.estimators": """
        object_graph estimator_facts booster_outputs multi_output outputs own_modules own_answers tree_checks skops
        by_value own_code catboost_files booster_categories
        old_pickles saved_files
        """,
    "estiba.model.convert": """
        wire graph near_ties functions columns sparse trees context tables curves kernel_maps iterative_imputer
        pairwise gblinear boosters catboost_trees foreign forests nearest_ties kernels knn_imputer linear compose
        wrappers texts transforms ensembles several models
        """,
    "estiba.model.engines": """
        onnx_reader columns trees rules lower_onnx program exact onnx tensor_engine own_code tail python isolated
        """,
    "estiba.model.onnx_import": "inspect_graph several_outputs wrapping_nodes wrap tensor_graph",
    "estiba.model.inference": "load score_files",
    "estiba.model.explanation": "mixtures shapley scales tree_values explain",
    "estiba.model.packing": """
        training_result model_columns candidate unseen_words sample_size from_file converted content split_probe split
        pack_tensors proof pack
        """,
    "estiba.model.training": "fingerprints mlflow runner worker",
    "estiba.serving": """
        http exchange telemetry options edge memory_share pipeline batcher tensor_batcher protocols route_spec routing
        catalog field_split shadow version_metrics server_status pages api server workers
        """,
    "estiba.serving.http": """
        listen tls request proxies compression trace_context deadline problem_details buffered header_checks unsent
        connection
        """,
    "estiba.serving.telemetry": "metric_table metrics sink access_log tracing otlp_exporter",
    "estiba.serving.protocols": """
        body_parsing repeated_keys arrow_parquet tensors tensor_bodies endpoint open_inference mlflow kserve_v1 native
        tensor_native tensor_inference tensor_instances
        """,
    "estiba.serving.api": """
        asgi_bridge openapi_drift openapi_common openapi_prediction openapi_protocols openapi_route openapi
        explain_routes feedback_routes drift_routes protocol_routes route_api management_routes
        """,
    "estiba.serving.workers": """
        messages routes serving worker worker_process store_query policy_follower certificate_watch hot_swap acceptor
        auxiliary_process
        supervisor
        """,
    "estiba.monitoring": """
        options layout significance comparison windows store silence gauges counter keeper sentences report file_check
        reports worker
        """,
    "estiba.deploy": "plan output target observability image compose kubernetes",
    "estiba.deploy.plan": """
        references service_options image_options timing plan known_images health model_source planned_models policies
        secrets dotenv
        """,
    "estiba.deploy.output": "yaml files ci_pipelines",
    "estiba.deploy.observability": "alerts dashboards config_files",
    "estiba.deploy.image": """
        slim spec dockerfile requirements wheels shared_libraries entrypoint_check build_context container_engine
        size_report golden_check verify sbom oci_layout oci_builder push build bundle vulnerability_scan
        """,
    "estiba.deploy.image.slim": "elf trim_packages rootfs",
    "estiba.deploy.compose": """
        reverse_proxy render development project secrets_in_use last_good container_state port_check stability_check
        compare rolling_update failure start deploy
        """,
    "estiba.deploy.kubernetes": """
        options config_maps model_init_container workloads networking autoscaling render image_digests cluster compare
        rollout deploy
        """,
    "estiba.doctor": "finding read rule rules catalogue explain examine running",
    "estiba.doctor.read": """
        dockerfile_syntax dockerfile_stages build_context image_names image_files yaml_nodes compose_file compose_merge
        compose_projects find_context command_lines python_sources containers requirement_files pickled_models
        inspected_container
        """,
    "estiba.doctor.rules": """
        base_images dockerfile copy_missing image_size secrets ports servers health_checks permissions missing_files
        requirements pickles compose exits project_file
        """,
    "estiba.local": """
        virtualenvs health_probe file_watcher containers host_gateway target debugger port_offset status endings
        service_runner container_launch orchestrate up model_server run_plan session reload
        """,
    "estiba.cli": """
        translated_help terminal common_options group completion model_table progress write_files service_display up
        train serve keys route log feedback quality drift predict explain pack models verify init doctor build export
        scan compose kubernetes deploy ci healthcheck version main
        """,
}
"""By folder, its files and folders from the bottom up: each imports from those before it, type-checking included."""


@cache
def modules() -> dict[str, ast.Module]:
    paths = sorted(SOURCE.rglob("*.py"))
    names = (".".join(path.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__") for path in paths)
    return {name: ast.parse(path.read_text()) for name, path in zip(names, paths, strict=True)}


def imports(name: str) -> Iterator[str]:
    """Modules of estiba that a module imports, also inside functions and for the type checker."""
    for node in ast.walk(modules()[name]):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.partition(".")[0] == "estiba")
        elif isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "estiba":
            full = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (part if part in modules() else str(node.module) for part in full)


def arrows() -> Iterator[tuple[str, str, str, str]]:
    """(folder, from, to, module) of every import, at the folder where the paths of its two ends part."""
    for name in modules():
        for other in imports(name):
            start, end = name.split("."), other.split(".")
            depth = next((i for i, (a, b) in enumerate(zip(start, end, strict=False)) if a != b), None)
            if depth is not None:
                yield ".".join(start[:depth]), start[depth], end[depth], name


def test_imports_go_downwards() -> None:
    upwards = {
        (folder, start, end): name
        for folder, start, end, name in arrows()
        if ORDER[folder].split().index(end) > ORDER[folder].split().index(start)
    }
    assert upwards == {}


def test_every_file_has_a_place_in_the_order_of_its_folder() -> None:
    folders: dict[str, set[str]] = {}
    for name in modules():
        parent, _, child = name.rpartition(".")
        if parent:
            folders.setdefault(parent, set()).add(child)
    assert {folder: set(order.split()) for folder, order in ORDER.items()} == folders


@pytest.mark.parametrize(
    ("library", "homes"),
    [
        ("httptools", {"estiba.serving.http.connection"}),
        (
            "starlette",
            {
                "estiba.serving.api.drift_routes",
                "estiba.serving.api.explain_routes",
                "estiba.serving.api.feedback_routes",
                "estiba.serving.api.management_routes",
                "estiba.serving.api.protocol_routes",
                "estiba.serving.api.asgi_bridge",
            },
        ),
        (
            "subprocess",
            {
                "estiba.core.shell",
                "estiba.core.process_group",
                "estiba.serving.workers.auxiliary_process",
                "estiba.serving.workers.worker_process",
                "estiba.model.engines.isolated",
            },
        ),
        ("opentelemetry", {"estiba.serving.telemetry.otlp_exporter"}),
        ("fsspec", {"estiba.core.stores.files"}),
        ("rich", {name for name in modules() if name.startswith("estiba.cli.")}),
        ("click", {name for name in modules() if name.startswith("estiba.cli.")}),
        ("mlflow", {"estiba.model.training.mlflow"}),
        ("yaml", {"estiba.doctor.read.yaml_nodes"}),
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


def test_no_class_is_a_manager() -> None:
    words = ("Manager", "Factory", "Helper", "Base")
    classes = [node.name for tree in modules().values() for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    assert [name for name in classes if any(name.startswith(word) or name.endswith(word) for word in words)] == []
