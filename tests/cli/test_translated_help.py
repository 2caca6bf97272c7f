"""The help, errors and tables of commands in Spanish."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

SPANISH = {**os.environ, "ESTIBA_LANG": "es", "COLUMNS": "100"}
ENGLISH = {**os.environ, "ESTIBA_LANG": "en", "LANG": "es_MX.UTF-8"}


def estiba(*words: str, folder: Path, environment: dict[str, str] = SPANISH) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "estiba", *words]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment, check=False)


def test_help_is_in_spanish(tmp_path: Path) -> None:
    shown = estiba("--help", folder=tmp_path).stdout
    assert shown.startswith("Uso: estiba [OPCIONES] ORDEN")
    assert "Entrena los modelos que han cambiado y ejecuta el proyecto." in shown
    assert "Muestra este mensaje y termina." in shown


def test_lists_of_subcommands_are_in_spanish(tmp_path: Path) -> None:
    shown = estiba("models", "--help", folder=tmp_path).stdout
    assert "Órdenes:" in shown
    assert "Apunta un alias a una versión\n" in shown
    assert "sirve la versión 3 desde ahora" in shown


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("upp",), 2, "error: No existe la orden 'upp'; ¿quería decir 'up'?\nconsejo: estiba [OPCIONES] ORDEN"),
        (("up",), 4, "consejo: Cree un proyecto con: estiba init, o pase su carpeta con -C DIR.\n"),
        (("serve", "iris", "--registry", "none"), 4, "error: No existe el modelo 'iris' en el registro "),
        (("healthcheck", "--timeout", "x"), 2, "error: Valor no válido para '--timeout': 'x' no es un valor válido"),
    ],
)
def test_errors_are_in_spanish(tmp_path: Path, words: tuple[str, ...], code: int, said: str) -> None:
    done = estiba(*words, folder=tmp_path)
    assert (done.returncode, said in done.stderr) == (code, True), done.stderr


def test_a_mistake_in_the_project_file_is_in_spanish(tmp_path: Path) -> None:
    (tmp_path / "estiba.toml").write_text('[models.iris]\ntrian = "iris:train"\n')
    said = estiba("train", folder=tmp_path).stderr
    assert "estiba.toml: models.iris.trian: clave desconocida; ¿quería decir 'train'?" in said
    assert "consejo: Claves de [models.iris]:" in said


def test_english_is_the_source(tmp_path: Path) -> None:
    done = estiba("upp", folder=tmp_path, environment=ENGLISH)
    assert "There is no command 'upp'; did you mean 'up'?" in done.stderr
