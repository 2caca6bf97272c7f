"""What is said of a disk that fails."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import pytest

from estiba.core.errors import EstibaError
from estiba.core.stores.disk import explained


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
