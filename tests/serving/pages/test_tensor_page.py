"""The docs page in a real browser, with models of tensors on a real server: as JSON, and from an image file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from browser import Browser, browsing, missing
from PIL import Image
from tensor_toys import brightness, two_outputs
from toys import Live

import estiba

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(missing()), reason=f"{missing()} is not installed"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

ANSWERED = "return document.querySelector('.prediction, .problem, table') !== null"


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory, start_server: Callable[..., Live]) -> Live:
    registry = tmp_path_factory.mktemp("page") / "registry"
    fields = {"pixels": {"kind": "tensor", "image": {}}}
    estiba.pack(two_outputs(), {"x": np.ones((2, 3), np.float32)}, name="two", registry=registry)
    estiba.pack(
        brightness(), {"pixels": np.ones((1, 3, 8, 8), np.float32)}, name="bright", registry=registry, fields=fields
    )
    return start_server("two", "bright", registry=str(registry))


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browsing(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


def test_a_tensor_is_a_text_area_with_the_example(live: Live, tab: Browser) -> None:
    tab.open(f"{live.url}/docs#two")
    tab.wait("return document.querySelector('.field textarea') !== null")
    assert tab.run("return document.querySelector('.field textarea').value") == "[1,1,1]"
    assert tab.run("return document.querySelector('.field textarea').placeholder") == "float32 [3] as JSON"
    tab.click("//button[.='Predict']")
    tab.wait(ANSWERED)
    shown = str(tab.run("return document.querySelector('.prediction').innerText"))
    assert "LOGIT [1]" in shown.upper()
    assert "[-0.5]" in shown


def test_an_image_file_is_sent(live: Live, tab: Browser, tmp_path: Path) -> None:
    Image.new("RGB", (4, 5), (10, 20, 30)).save(tmp_path / "plain.png")
    tab.open(f"{live.url}/docs#bright")
    tab.wait("return document.querySelector('.field input[type=file]') !== null")
    tab.press("//input[@type='file']", str(tmp_path / "plain.png"))
    tab.wait("return document.querySelector('.field textarea').value.length > 20")
    tab.click("//button[.='Predict']")
    tab.wait(ANSWERED)
    assert "[10,20,30]" in str(tab.run("return document.querySelector('.prediction').innerText"))
