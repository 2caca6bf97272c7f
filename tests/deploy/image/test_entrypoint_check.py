"""A build is refused before it begins when the image lacks the entry point of its command."""

from __future__ import annotations

from pathlib import Path

import pytest

from estiba import project
from estiba.core.errors import BadProject
from estiba.deploy.image import entrypoint_check
from estiba.planning import lower_applications

COMMANDS = ["uvicorn app.main:app --port ${port}", "python app/main.py", "gunicorn app:create()", "python -m app.main"]


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("include", ["", 'include = ["models"]', 'include = ["app"]', 'include = ["app/"]'])
def test_what_the_command_starts_has_to_be_included(tmp_path: Path, command: str, include: str) -> None:
    for name in ("app/__init__.py", "app/main.py", "models/m"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    text = f'[project]\nname = "p"\n[services.api]\ncommand = "{command}"\nport = 8001\n{include}\n'
    (tmp_path / "estiba.toml").write_text(text)
    plan = lower_applications(project.load(tmp_path))
    if "app" in include:
        entrypoint_check.check(plan, plan["api"])
        return
    with pytest.raises(BadProject, match=r"services\.api: the command starts app/") as caught:
        entrypoint_check.check(plan, plan["api"])
    assert 'Add include = ["app"]' in str(caught.value.hint)


OTHERS = ["streamlit run https://a/b.py", "python -m http.server --to models:8000", f"python {__file__}"]


@pytest.mark.parametrize("command", OTHERS)
def test_what_only_looks_like_a_file_of_the_project_is_no_matter(tmp_path: Path, command: str) -> None:
    for name in ("run.py", "models.py"):
        (tmp_path / name).touch()
    text = f'[project]\nname = "p"\n[services.api]\ncommand = "{command}"\nport = 8001\n'
    (tmp_path / "estiba.toml").write_text(text)
    plan = lower_applications(project.load(tmp_path))
    entrypoint_check.check(plan, plan["api"])
