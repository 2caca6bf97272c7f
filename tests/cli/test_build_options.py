"""Options of `estiba build` that do not go together are refused before anything is built."""

from __future__ import annotations

import pytest

from estiba.cli.main import run


@pytest.mark.parametrize(
    ("options", "message"),
    [(["--base", "base.tar"], "--base is for --oci")],
)
def test_what_would_have_no_effect_is_refused(
    options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["build", *options]) == 2
    assert message in capsys.readouterr().err
