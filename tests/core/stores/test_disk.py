"""Error messages of a failing disk, and files that are left after a signal at any moment."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from pathlib import Path

import pytest

from estiba.core.errors import EstibaError
from estiba.core.stores.disk import explained, place, temporary, write_whole

# Files that were being opened, folders that were being read.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


def test_of_a_whole_tree_that_could_not_be_copied_one_reason_is_told(tmp_path: Path) -> None:
    (tmp_path / "from").mkdir()
    for name in ("a", "b"):
        (tmp_path / "from" / name).write_text(name)

    def full(source: str, target: str) -> str:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), source, None, target)

    with pytest.raises(EstibaError) as caught, explained("write", tmp_path / "to"):
        shutil.copytree(tmp_path / "from", tmp_path / "to", copy_function=full)
    assert caught.value.message == f"Cannot write {tmp_path / 'to'}: No space left on device."
    assert caught.value.hint is not None
    assert "The disk is full" in caught.value.hint


def interrupted_everywhere(deed: Callable[[], object], check: Callable[[], object]) -> int:
    """Does something again and again, with Ctrl-C after its first call into C, its second, and so on, until none came.

    Python looks for signals where a call returns. After each, `check` is made. Returns how often it was interrupted.
    """
    for moment in count():
        left = moment

        def look(frame: object, event: str, called: object) -> None:
            nonlocal left
            if event == "c_return" and called is not sys.setprofile:
                left -= 1
                if left < 0:
                    sys.setprofile(None)
                    raise KeyboardInterrupt

        with suppress(KeyboardInterrupt, OSError):  # rmtree of Python 3.11 may close a folder twice then
            sys.setprofile(look)
            deed()
            sys.setprofile(None)
            return moment
        check()
    raise AssertionError


def test_a_temporary_folder_is_gone_whenever_a_signal_comes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def use() -> None:
        with temporary("test") as folder:
            (folder / "inside").mkdir()
            (folder / "inside" / "file").write_bytes(b"content")

    def check() -> None:
        assert list(tmp_path.iterdir()) == []

    assert interrupted_everywhere(use, check) > 20
    check()


def test_a_temporary_folder_is_its_owners_alone() -> None:
    with temporary("test") as folder:
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert folder.name.startswith("estiba-test-")
    assert not folder.exists()


def test_where_no_temporary_folder_can_be_made_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: ["/proc/nowhere"])
    with pytest.raises(EstibaError) as caught, temporary("test"):
        pass
    assert caught.value.message.startswith("No folder for temporary files can be created: ")
    assert caught.value.hint is not None
    assert "TMPDIR" in caught.value.hint
    assert "--tmpfs /tmp" in caught.value.hint


@pytest.mark.slow
@pytest.mark.parametrize("what", ["file", "folder"])
def test_what_is_interrupted_is_there_whole_or_not_at_all(tmp_path: Path, what: str) -> None:
    target = tmp_path / "target"
    whole = {"one": b"1", "two": b"22"}

    def fill(folder: Path) -> None:
        for name, content in whole.items():
            (folder / name).write_bytes(content)

    def use() -> None:
        if what == "folder":
            place(target, fill)
        else:
            write_whole(target, b"content")

    def check() -> None:
        assert set(tmp_path.iterdir()) <= {target}
        if target.is_dir():
            assert {path.name: path.read_bytes() for path in target.iterdir()} == whole
            shutil.rmtree(target)
        elif target.exists():
            assert target.read_bytes() == b"content"
            target.unlink()

    assert interrupted_everywhere(use, check) > 10
    assert target.exists()


@pytest.mark.parametrize("mode", [0o600, 0o644])
def test_a_file_is_written_with_the_mode_that_was_asked_for(tmp_path: Path, mode: int) -> None:
    target = tmp_path / "target"
    write_whole(target, b"content", mode=mode)
    assert (target.read_bytes(), stat.S_IMODE(target.stat().st_mode)) == (b"content", mode)
