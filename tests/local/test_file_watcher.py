"""FileWatcher reports a change once it is complete, to the services that the file belongs to."""

from __future__ import annotations

import os
from pathlib import Path

from estiba.local.file_watcher import FileWatcher


def names(watch: FileWatcher) -> dict[str, list[str]]:
    """Changed files by service: the first call sees a change, the second finds it complete and reports it."""
    assert watch.changes() == {}
    return {name: [path.name for path in paths] for name, paths in watch.changes().items()}


def test_a_change_is_told_once_it_is_over_to_those_it_belongs_to(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    (tmp_path / "one/app.py").write_text("1")
    watch = FileWatcher(
        {"all": [tmp_path], "one": [tmp_path / "one"], "two": [tmp_path / "two", tmp_path / "absent.toml"]}
    )
    assert names(watch) == {}
    (tmp_path / "one/app.py").write_text("22")
    assert names(watch) == {"all": ["app.py"], "one": ["app.py"]}
    assert names(watch) == {}
    (tmp_path / "absent.toml").write_text("")
    (tmp_path / "one/app.py").unlink()
    assert names(watch) == {"all": ["absent.toml", "app.py"], "one": ["app.py"], "two": ["absent.toml"]}


def test_a_file_that_is_replaced_by_one_of_the_same_time_and_size_has_changed(tmp_path: Path) -> None:
    path, fresh = tmp_path / "app.py", tmp_path / "fresh~"
    path.write_text("1")
    fresh.write_text("2")
    os.utime(fresh, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns))
    watch = FileWatcher({"app": [tmp_path]})
    fresh.replace(path)
    assert names(watch) == {"app": ["app.py"]}


def test_what_programs_write_for_themselves_does_not_count(tmp_path: Path) -> None:
    (tmp_path / "env").mkdir()
    (tmp_path / "env/pyvenv.cfg").write_text("")
    watch = FileWatcher({"app": [tmp_path]})
    for name in (".estiba/x", "__pycache__/app.cpython-311.pyc", ".git/index", "env/lib.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    for name in (".app.py.swp", "app.py~", "4913", ".#app.py", "data.db-wal", "app.log"):
        (tmp_path / name).write_text("")
    assert names(watch) == {}
    (tmp_path / ".streamlit").mkdir()
    (tmp_path / ".streamlit/config.toml").write_text("")
    assert names(watch) == {"app": ["config.toml"]}


def test_places_can_change(tmp_path: Path) -> None:
    watch = FileWatcher({"app": [tmp_path / "one"]})
    watch.set_paths("app", [tmp_path / "two"])
    (tmp_path / "one").write_text("")
    assert names(watch) == {}
    (tmp_path / "two").write_text("")
    assert names(watch) == {"app": ["two"]}
