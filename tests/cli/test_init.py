"""`estiba init` creates projects that work, in each language; one of them is a product from end to end."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from command_line import Estiba
from lab import Docker, docker_engine
from toys import until

from estiba import project
from estiba.core.language import LANGUAGES
from estiba.core.ports import free

FLOWER = {"sepal_length": 5.1, "sepal_width": 3.5, "petal_length": 1.4, "petal_width": 0.2}
SPANISH = ("español", "modelo", "página", "función", "años", "los ")


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("template", ["iris", "e2e"])
def test_a_template_is_whole_in_each_language(estiba: Estiba, tmp_path: Path, template: str, language: str) -> None:
    folder = tmp_path / "Mi tienda"
    assert estiba("init", folder, "--template", template, "--lang", language).code == 0
    assert project.load(folder).name == "mi-tienda"
    texts = {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()}
    assert [path for path, text in texts.items() if "@NAME@" in text] == []
    for path, text in texts.items():
        if path.endswith(".py"):
            compile(text, path, "exec")
    assert any(word in texts["README.md"] for word in SPANISH) == (language == "es")
    other = tmp_path / "other"
    estiba("init", other, "--template", template, "--lang", next(name for name in LANGUAGES if name != language))
    assert {path.relative_to(other).as_posix() for path in other.rglob("*") if path.is_file()} == set(texts)


def test_the_locale_chooses_the_language(estiba: Estiba, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ESTIBA_LANG", "es")
    said = estiba("init", tmp_path / "flores").out
    assert said.splitlines()[1].startswith("Ahora ejecute: estiba up -C ")
    assert "la función train" in (tmp_path / "flores/estiba.toml").read_text()


def test_files_that_are_there_are_kept(estiba: Estiba, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("mine")
    assert estiba("init", tmp_path).code == 0
    assert (tmp_path / "README.md").read_text() == "mine"
    again = estiba("init", tmp_path)
    assert (again.code, "estiba.toml exists already." in again.err) == (5, True)


def asked(url: str, body: Any = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=20) as response:
        return json.load(response)


def answers(url: str) -> bool:
    try:
        urllib.request.urlopen(f"{url}/health", timeout=5).close()
    except OSError:
        return False
    return True


def check_product(url: str, *, cached: bool) -> None:
    """Ask the frontend as its page does, twice for the same flower."""
    first, second = (asked(f"{url}/api/predict", FLOWER) for _ in range(2))
    assert (first["species"], first["cached"], second["cached"]) == ("setosa", False, cached)
    newest = asked(f"{url}/api/predictions?limit=1")
    assert [(row["id"], row["species"]) for row in newest] == [(second["id"], "setosa")]
    with pytest.raises(urllib.error.HTTPError) as refused:
        asked(f"{url}/api/predict", {**FLOWER, "sepal_length": -1})
    assert refused.value.code == 422
    refused.value.close()
    with urllib.request.urlopen(url, timeout=5) as page:
        assert b"<form>" in page.read()


@pytest.mark.slow
def test_the_product_runs_on_a_laptop(estiba: Estiba, tmp_path: Path) -> None:
    """All ports move by the same offset, so one that is free three times over is looked for."""
    estiba("init", tmp_path / "shop", "--template", "e2e")
    port = free("127.0.0.1")
    while port + 80 > 65535 or not all(unused(port + offset) for offset in (10, 80)):
        port = free("127.0.0.1")
    log = (tmp_path / "log").open("w")
    command = [sys.executable, "-m", "estiba", "up", "--port", str(port)]
    running = subprocess.Popen(command, cwd=tmp_path / "shop", stdout=log, stderr=log, start_new_session=True)
    try:
        url = f"http://127.0.0.1:{port + 80}"
        assert until(lambda: answers(url) or running.poll() is not None, 100), (tmp_path / "log").read_text()
        check_product(url, cached=False)
    finally:
        running.send_signal(signal.SIGINT)
        assert running.wait(30) == 0
        log.close()


def unused(port: int) -> bool:
    from estiba.core import ports

    return not ports.conflict("127.0.0.1", port)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_product_runs_in_containers_with_its_stores(estiba: Estiba, tmp_path: Path) -> None:
    with docker_engine() as docker:
        docker.need("python:3.11-slim", "debian:bookworm-slim", "postgres:17", "redis:8")
        folder = tmp_path / docker.name
        estiba("init", folder, "--template", "e2e")
        for command in (["train"], ["build", "--no-verify"], ["compose"]):
            done = estiba(*command, "-C", folder)
            assert done.code == 0, done.err
        compose = folder / "deploy" / "compose"
        port = free("127.0.0.1")
        with (compose / ".env").open("a") as settings:
            settings.write(f"DATABASE_HOST=postgres\nCACHE_HOST=redis\nESTIBA_PORT_FRONTEND={port}\n")
            settings.write(f"ESTIBA_PORT_MODELS={free('127.0.0.1')}\n")
        try:
            run(docker, compose, "up", "--detach", "--wait")
            check_product(f"http://127.0.0.1:{port}", cached=True)
            run(docker, compose, "restart", "backend")
            assert until(lambda: stays(f"http://127.0.0.1:{port}"), 60)
        finally:
            run(docker, compose, "down", "--volumes", "--timeout", "1")
            for image in docker("image", "ls", "--quiet", f"{docker.name}/*").split():
                docker.attempt("rmi", "--force", image)


def run(docker: Docker, folder: Path, *arguments: str) -> None:
    docker("compose", "--profile", "stores", *arguments, folder=folder, seconds=300)


def stays(url: str) -> bool:
    """True if the predictions of before are still there."""
    try:
        return len(asked(f"{url}/api/predictions")) == 2
    except OSError:
        return False


@pytest.mark.slow
def test_the_product_is_rendered_for_a_cluster(estiba: Estiba, tmp_path: Path) -> None:
    estiba("init", tmp_path / "shop", "--template", "e2e")
    assert estiba("train", "-C", tmp_path / "shop").code == 0
    done = estiba("kubernetes", "-C", tmp_path / "shop", "-o", tmp_path / "shop/k8s")
    assert done.code == 0, done.err
    assert {"backend.yaml", "frontend.yaml", "models.yaml"} <= {p.name for p in (tmp_path / "shop/k8s/base").iterdir()}
