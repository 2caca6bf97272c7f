"""Servers of the portfolio's models, each started once per run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from functools import cache

import pytest
from applications import Served, served


@pytest.fixture(scope="session")
def serve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Gives the address of a server of the named models, of all that one can train here; ended with the tests."""
    folder = tmp_path_factory.mktemp("portfolio")
    with ExitStack() as stack:

        @cache
        def start(*models: str) -> str:
            return stack.enter_context(served(models, folder / f"{'-'.join(models)}.log"))

        yield start
