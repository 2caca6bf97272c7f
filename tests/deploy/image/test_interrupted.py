"""Builds, exports and pushes that are interrupted or find a disk full: a clear word, and nothing half-written."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from images_made import SERVER, WEB

from estiba.cli.main import run
from estiba.deploy.image import build

pytestmark = [pytest.mark.slow, pytest.mark.timeout(200)]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with one small application, whose images nobody will take in."""
    if not sys.platform.startswith("linux"):
        pytest.skip("images are made on Linux")
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "server.py").write_text(SERVER)
    (folder / "requirements.txt").write_text("idna==3.10\n")
    (folder / "estiba.toml").write_text('[project]\nname = "toys"\n[images]\nrepository = "127.0.0.1:1/shop"\n' + WEB)
    return folder


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A disk of 8 MB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("this user may not mount a small disk")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture
def temporary(tmp_path: Path) -> Path:
    """A place for temporary files of its own, in which nothing may be left."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    return folder


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@pytest.mark.parametrize("words", [["build", "--no-verify", "--oci", "layout"], ["export", "-o", "all.tar.gz"]])
def test_a_full_disk_where_it_is_to_go(
    project: Path, small: Path, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    *words, target = words
    assert run([*words, str(small / target), "-C", str(project)]) == 1
    said = capsys.readouterr().err
    assert f"Cannot write {small / target}: No space left on device." in said
    assert "The disk is full" in said
    assert files(small) == []
    assert not (project / build.KEPT).exists()


def estiba(project: Path, temporary: Path, *words: str) -> subprocess.Popen[str]:
    """The command as a user runs it, in a terminal of its own."""
    command = [sys.executable, "-m", "estiba", *words, "-C", str(project)]
    environment = os.environ | {"TMPDIR": str(temporary)}
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True)


def test_a_full_disk_for_temporary_files(project: Path, small: Path, tmp_path: Path) -> None:
    with estiba(project, small, "build", "--no-verify", "--oci", str(tmp_path / "layout")) as child:
        _, said = child.communicate(timeout=100)
    assert child.returncode == 1
    assert "No space left on device" in said
    assert "TMPDIR" in said
    assert "Traceback" not in said
    assert files(small) == []
    assert not (tmp_path / "layout").exists()


def interrupted(child: subprocess.Popen[str], last: str, number: signal.Signals) -> str:
    """Send a signal after the line `last`, and return the standard error from that line on."""
    assert child.stderr is not None
    said = next(line for line in child.stderr if line.startswith(last))
    child.send_signal(number)
    return said + child.stderr.read()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("words", [["build", "--no-verify", "--oci"], ["export", "-o"]], ids=["layout", "export"])
def test_what_is_interrupted_leaves_nothing(
    project: Path, temporary: Path, tmp_path: Path, words: list[str], number: signal.Signals
) -> None:
    (tmp_path / "there").mkdir()
    last = "web: writing" if words[0] == "build" else "web: gathering"
    with estiba(project, temporary, *words, str(tmp_path / "there" / "it")) as child:
        said = interrupted(child, last, number)
        assert child.wait(30) == 128 + number
    assert "Traceback" not in said
    assert files(tmp_path / "there") == []
    assert files(temporary) == []
    assert not (project / build.KEPT).exists()


def test_an_interrupted_push_leaves_the_image_whole_and_no_program(
    project: Path, temporary: Path, tmp_path: Path
) -> None:
    """To a registry that takes the call and says nothing."""
    if shutil.which("skopeo") is None:
        pytest.skip("skopeo is not installed: scripts/lab/oci brings it")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        settings = project / "estiba.toml"
        settings.write_text(settings.read_text().replace("127.0.0.1:1/", f"127.0.0.1:{silent.getsockname()[1]}/"))
        words = ("build", "--no-verify", "--push", "--oci", str(tmp_path / "layout"))
        with estiba(project, temporary, *words) as child:
            connection, _ = silent.accept()
            said = interrupted(child, "web: pushing", signal.SIGINT)
            assert child.wait(30) == 130
        connection.settimeout(10)
        while connection.recv(1 << 16):  # until it has hung up
            pass
        connection.close()
    assert "Traceback" not in said
    assert files(temporary) == []
    assert (tmp_path / "layout" / "index.json").is_file()
    assert (project / build.KEPT / "web" / "provenance.json").is_file()
