"""Schemathesis reads a server's own OpenAPI document and looks for answers that it does not promise."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from toys import Live

from estiba.model.registry.registry import open_registry

pytestmark = pytest.mark.slow

EXAMPLES = os.environ.get("ESTIBA_SCHEMATHESIS_EXAMPLES", "3")

RUNS = {
    # Forms of other people's protocols say less than a model asks for: how many fields, which values.
    "every answer": [*("--exclude-checks", "positive_data_acceptance,negative_data_rejection")],
    # 0 and 1 for a truth value lose nothing and are taken, although the schema asks for true or false.
    "every refusal": [
        *("--checks", "negative_data_rejection"),
        *("--exclude-path-regex", "^/(models/churn/.*)?predict$"),
    ],
}

CHANGES = ("set_route", "remove_route")
"""Operations that would change what other tests of a server are answered."""

# OpenAPI 3.1 cannot declare QUERY, which paths that predict take and list in Allow:
# tests/serving/protocols/test_query.py holds them to it. All other paths have to refuse it.
SETTINGS = """
[[operations]]
include-path-regex = "(predict|/infer|^/invocations)$"

[operations.phases.coverage]
unexpected-methods = ["get", "put", "post", "delete", "options", "patch", "trace"]

[operations.checks.allow_header_conformance]
enabled = false
"""


@pytest.mark.parametrize("options", RUNS.values(), ids=RUNS.keys())
def test_the_document_is_kept_to(server: Live, options: list[str], tmp_path: Path) -> None:
    check(server, [*options, *(each for name in CHANGES for each in ("--exclude-operation-id", name))], tmp_path)


def test_changes_of_routes_are_as_the_document_says(
    toy_registry: Path, start_server: Callable[..., Live], tmp_path: Path
) -> None:
    registry = shutil.copytree(toy_registry, tmp_path / "registry")
    open_registry(registry).set_alias("churn", "production", 1)
    live = start_server("churn", registry=str(registry))
    named = [each for name in CHANGES for each in ("--include-operation-id", name)]
    check(live, [*named, "--exclude-checks", "positive_data_acceptance"], tmp_path)


def check(server: Live, options: list[str], folder: Path) -> None:
    pytest.importorskip("schemathesis")
    program = str(Path(sys.executable).with_name("schemathesis"))
    common = ["--max-examples", EXAMPLES, "--seed", "1", "--generation-database", "none", "--no-color"]
    command = [program, "run", f"{server.url}/openapi.json", *common, *options]
    (folder / "schemathesis.toml").write_text(SETTINGS)
    ran = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=110, check=False)
    print(*re.findall(r"\d+ generated.*", ran.stdout))
    assert ran.returncode == 0, ran.stdout[-6000:]
