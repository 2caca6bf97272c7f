"""Every curl command of the protocols page works and gives the answer that the page shows."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from toys import Live

PAGE = (Path(__file__).parents[3] / "docs/reference/protocols.md").read_text()
BLOCKS: list[tuple[str, str]] = re.findall(r"```(\w+)\n(.*?)```", PAGE, re.DOTALL)
SHELL = [text for kind, text in BLOCKS if kind == "sh"]
SHOWN = [(BLOCKS[i - 1][1], json.loads(text)) for i, (kind, text) in enumerate(BLOCKS) if kind == "json"]


def run(live: Live, script: str) -> list[str]:
    """The output of each curl command of a script, run with the address of the test server."""
    script = script.replace("http://localhost:8000", live.url)
    script = re.sub(r"^curl ", "curl --silent --show-error --fail-with-body --write-out '\\\\0' ", script, flags=re.M)
    ran = subprocess.run(["bash", "-ec", script], capture_output=True, text=True, timeout=20, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout.split("\\0")[:-1]


def rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: rounded(each) for key, each in value.items() if key != "id" or each == "42"}
    if isinstance(value, list):
        return [rounded(each) for each in value]
    return round(value, 2) if isinstance(value, float) else value


@pytest.mark.parametrize("script", SHELL)
def test_every_curl_works(server: Live, script: str) -> None:
    assert run(server, script)


@pytest.mark.parametrize(("script", "shown"), SHOWN)
def test_what_is_shown_is_what_comes(server: Live, script: str, shown: Any) -> None:
    answers = [rounded(json.loads(text)) for text in run(server, script) if text.strip().startswith("{")]
    assert rounded({k: v for k, v in shown.items() if v != "..."}) in answers


@pytest.mark.slow
def test_the_python_on_the_page_runs(server: Live) -> None:
    pytest.importorskip("tritonclient.http")
    (script,) = (text for kind, text in BLOCKS if kind == "python")
    script = script.replace("localhost:8000", f"127.0.0.1:{server.port}")
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert (ran.returncode, ran.stdout) == (0, "label\n"), ran.stderr
