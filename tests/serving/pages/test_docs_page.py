"""The docs page in a real browser: it asks nothing of the internet, predicts, and shows errors where they belong."""

from __future__ import annotations

import re
from collections.abc import Iterator

import httpx
import pytest
from browser import Browser, browsing, missing
from docs_server import serving

from estiba.serving import pages
from estiba.serving.pages import page

pytestmark = pytest.mark.slow

needs_browser = pytest.mark.skipif(bool(missing()), reason=f"{missing()} is not installed")

SIZE_LIMIT = 60_000
FILES = [f"docs/{name}" for name in pages.FILES]
PREDICT, JSON, FORM, EXAMPLE = (f"//button[.='{text}']" for text in ("Predict", "JSON", "Form", "Example"))
ARROW_RIGHT, ENTER = "\ue014", "\ue007"
ANSWERED = "return document.querySelector('.prediction, .problem, table') !== null"


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with serving() as address:
        yield address


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browsing(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


def text(tab: Browser, selector: str) -> str:
    return str(tab.run("return document.querySelector(arguments[0])?.innerText ?? ''", selector))


def note(tab: Browser, label: str) -> str:
    """The message beside the field of that label."""
    script = "return [...document.querySelectorAll('.field')].find(f => f.firstChild.firstChild.data === arguments[0])"
    return str(tab.run(f"{script}.querySelector('.note').innerText", label))


def test_the_page_is_small_and_has_no_inline_code() -> None:
    html, kind = page("docs") or (b"", "")
    assert kind == "text/html; charset=utf-8"
    assert not re.search(rb"<style|style=|\son\w+=|<script(?![^>]*src)", html)
    always = [path for path in ("docs", *FILES) if not path.endswith(".json")]  # translations are loaded when needed
    assert sum(len((page(path) or (b"",))[0]) for path in always) < SIZE_LIMIT


@pytest.mark.parametrize("path", FILES)
def test_every_file_is_served_and_none_names_another_place(path: str) -> None:
    content, kind = page(path) or (b"", "")
    assert kind.split(";")[0] in {"text/javascript", "text/css", "image/svg+xml", "application/json"}
    assert re.findall(rb"https?://(?!www\.w3\.org/2000/svg)", content) == []


@pytest.mark.parametrize("path", ["", "doc", "docs/", "docs/docs.html", "docs/../__init__.py", "/docs"])
def test_nothing_else_is_served(path: str) -> None:
    assert page(path) is None


@needs_browser
def test_it_loads_from_its_own_origin_with_a_quiet_console(tab: Browser, url: str) -> None:
    tab.open("about:blank", wait="")
    tab.requested()
    tab.open(f"{url}/docs")
    tab.click(PREDICT)
    tab.wait(ANSWERED)
    asked = [address for address in tab.requested() if not address.startswith("about:")]
    assert f"{url}/openapi.json" in asked
    assert [address for address in asked if not address.startswith(f"{url}/")] == []
    assert tab.console() == []


@needs_browser
def test_a_filled_form_is_answered(tab: Browser, url: str) -> None:
    tab.open(f"{url}/docs#iris")
    tab.fill("sepal length (cm)", "6.5")
    assert '"sepal length (cm)": 6.5' in text(tab, ".call code")
    tab.click(PREDICT)
    tab.wait(ANSWERED)
    assert text(tab, ".headline dd") == "versicolor"
    assert text(tab, ".classes .chosen").split() == ["versicolor", "91.3", "%"]
    assert re.fullmatch(r"200 [\d.,]+ ms", text(tab, ".status-line"))


@needs_browser
def test_an_answer_is_explained(tab: Browser, url: str) -> None:
    tab.open(f"{url}/docs#bankchurn")
    assert "Predicts 0 (stays) / 1 (leaves) from 10 fields." in text(tab, ".heading")
    tab.click(PREDICT)
    tab.wait(ANSWERED)
    assert text(tab, ".headline dd") == "1 leaves"
    assert text(tab, ".meanings").splitlines()[0] == (
        "churn 1 (leaves) from a probability of 27 % on, otherwise 0 (stays)."
    )
    assert text(tab, ".classes").split()[:4] == ["probabilities", "0", "stays", "28.3"]


@needs_browser
def test_simulated_data_is_a_banner(tab: Browser, url: str) -> None:
    tab.open(f"{url}/docs#bankchurn")
    assert text(tab, ".banner").startswith("Simulated data.")
    assert "SIMULATED" not in text(tab, ".heading")
    tab.open(f"{url}/docs#iris")
    assert text(tab, ".banner") == ""


@needs_browser
def test_endpoints_stand_with_their_model(tab: Browser, url: str) -> None:
    tab.open(f"{url}/docs#iris")
    summary = "each.innerText.split('\\n').slice(0, 2).join(' ')"
    lines = f"[...card.querySelectorAll('.endpoint > summary')].map((each) => {summary})"
    own, other = tab.run(f"return [...document.querySelectorAll('main > .card')].map((card) => {lines})")
    assert own[:2] == ["POST /models/iris/predict", "POST /models/iris/versions/1/predict"]
    assert {"GET /models/iris/predict", "POST /v2/models/iris/infer", "POST /v1/models/iris:predict"} <= set(own)
    assert not [line for line in own if "cars" in line]
    assert not [line for line in other if "iris" in line]
    assert "GET /health" in other
    document = httpx.get(f"{url}/openapi.json").json()["paths"]
    models = re.compile(r"/models/(bankchurn|cars|iris)\b")
    of_the_server = [path for path in document if not models.search(path)]
    assert sorted(other) == sorted(f"{m.upper()} {path}" for path in of_the_server for m in document[path])


@needs_browser
def test_a_wrong_value_is_said_beside_its_field(tab: Browser, url: str) -> None:
    tab.open(f"{url}/docs#bankchurn")
    tab.fill("Age", "17")
    tab.click(PREDICT)
    tab.wait(ANSWERED)
    assert "18" in note(tab, "Age")
    assert note(tab, "Balance") == ""
    assert "See Age." in text(tab, ".problem")
    assert tab.run("return document.activeElement.getAttribute('aria-invalid')") == "true"
    tab.click(EXAMPLE)
    assert note(tab, "Age") == ""
    assert text(tab, ".problem") == text(tab, ".status-line") == ""
    assert "Press Predict" in text(tab, ".answer")
    # The browser itself logs each answer of 4xx; that is the only thing said.
    assert [line for line in tab.console() if "422" not in line] == []


@needs_browser
def test_an_unseen_category_is_answered_with_a_warning(tab: Browser, url: str) -> None:
    tab.open(f"{url}/docs#cars")
    tab.fill("model", "rambler")
    tab.click(PREDICT)
    tab.wait(ANSWERED)
    assert text(tab, ".headline").split() == ["price", "18,450.25", "US", "dollars", "class", "middle"]
    assert note(tab, "model") == "unseen category"


@needs_browser
def test_the_json_tab_and_the_form_show_the_same_record(tab: Browser, url: str) -> None:
    tab.open(f"{url}/docs#bankchurn")
    tab.fill("Age", "55")
    tab.click(JSON)
    body = "JSON.parse(document.querySelector('textarea').value)"
    assert tab.run(f"return {body}.records[0].Age") == 55
    tab.edit("textarea", '{"records": [{"Age": 33}]}')
    tab.click(FORM)
    assert tab.value("Age") == "33"


@needs_browser
def test_the_keyboard_alone_will_do(tab: Browser, url: str) -> None:
    tab.open(f"{url}/docs#iris")
    tab.press(FORM, ARROW_RIGHT)
    assert tab.run("return document.activeElement.innerText") == "JSON"
    assert tab.run("return document.querySelector('textarea').offsetParent !== null")
    tab.press(JSON, ARROW_RIGHT)
    tab.press("//input[1]", ENTER)
    tab.wait(ANSWERED)
    assert text(tab, ".headline dd") == "versicolor"


@needs_browser
def test_many_records_are_answered_with_a_table(tab: Browser, url: str) -> None:
    tab.open(f"{url}/docs#iris")
    tab.click(JSON)
    record = tab.run("return JSON.parse(document.querySelector('textarea').value).records[0]")
    tab.edit("textarea", {"records": [record] * 3})
    tab.click(PREDICT)
    tab.wait("return document.querySelectorAll('tbody tr').length === 3")
    tab.click(FORM)
    assert "this body has 3" in text(tab, ".input")
    tab.edit("textarea", "{oops")
    tab.click(PREDICT)
    assert "This is not JSON" in text(tab, ".input")


@needs_browser
def test_the_reference_opens_to_the_real_fields(tab: Browser, url: str) -> None:
    tab.open(f"{url}/docs#bankchurn")
    tab.click("//summary[contains(., '/models/bankchurn/predict')]")
    tab.wait("return document.querySelector('.endpoint[open] .media') !== null")
    tab.click("//details[contains(@class, 'endpoint')][@open]//summary[starts-with(., 'or ')]")
    tab.wait("return document.querySelector('.endpoint[open]').innerText.includes('Germany')")
    assert "[object" not in text(tab, "main")
    assert tab.console() == []


@needs_browser
@pytest.mark.parametrize("width", [320, 390, 800])
@pytest.mark.parametrize("model", ["bankchurn", "iris", "cars"])
def test_no_width_needs_sideways_scrolling(tab: Browser, url: str, model: str, width: int) -> None:
    tab.open(f"{url}/docs#{model}", width=width)
    tab.click(PREDICT)
    tab.wait(ANSWERED)
    tab.run("document.querySelectorAll('.endpoint').forEach(each => { each.open = true; })")
    assert tab.run("return document.documentElement.scrollWidth") == width


@needs_browser
def test_every_control_has_a_name_and_every_tab_its_panel(tab: Browser, url: str) -> None:
    tab.open(f"{url}/docs#cars")
    unnamed = "[...document.querySelectorAll('input, select, textarea')].filter(c => !c.labels.length).length"
    assert tab.run(f"return {unnamed}") == 0
    tabs = "[...document.querySelectorAll('[role=tab]')].map(t => t.getAttribute('aria-controls'))"
    assert tab.run(f"return {tabs}.map(id => document.getElementById(id).role)") == ["tabpanel"] * 4
    assert tab.run("return document.querySelector('.answer').getAttribute('aria-live')") == "polite"


CONTRAST = """
const channel = (c) => { c /= 255; return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4; };
const light = (rgb) => 0.2126 * channel(rgb[0]) + 0.7152 * channel(rgb[1]) + 0.0722 * channel(rgb[2]);
const rgba = (text) => text.match(/[\\d.]+/g).map(Number);
const ground = (node) => { const c = rgba(getComputedStyle(node).backgroundColor);
  return c.length === 4 && c[3] === 0 ? (node.parentElement ? ground(node.parentElement) : [255, 255, 255]) : c; };
const ratio = (node) => {
  const [a, b] = [light(rgba(getComputedStyle(node).color)), light(ground(node))].sort((x, y) => y - x);
  return (a + 0.05) / (b + 0.05); };
const texts = [...document.body.querySelectorAll('*')].filter((node) => node.offsetParent
  && [...node.childNodes].some((child) => child.nodeType === 3 && child.data.trim()));
return [...new Set(texts.filter((node) => ratio(node) < 4.5).map((node) => `${node.tagName}.${node.className}`))];
"""


@needs_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_contrasts_as_wcag_asks(tab: Browser, url: str, scheme: str) -> None:
    """At least 4.5 to 1 for every text, in both schemes. Source: WCAG 2.2, success criterion 1.4.3."""
    tab.open(f"{url}/docs#bankchurn", scheme=scheme)
    tab.fill("Age", "17")
    tab.click(PREDICT)
    tab.wait(ANSWERED)
    assert tab.run(CONTRAST) == []
    tab.click(EXAMPLE)
    tab.click(PREDICT)
    tab.wait("return document.querySelector('.prediction') !== null")
    assert tab.run(CONTRAST) == []


@needs_browser
def test_the_page_is_in_spanish_for_a_browser_that_asks_for_it(tab: Browser, url: str) -> None:
    tab.speak("es-MX,es;q=0.9,en;q=0.5")
    tab.open(f"{url}/docs#bankchurn")
    assert tab.run("return document.documentElement.lang") == "es"
    assert text(tab, ".try h2") == "Entrada"
    tab.fill("Age", "17")
    tab.click("//button[.='Predecir']")
    tab.wait(ANSWERED)
    assert text(tab, ".problem h3") == "La entrada no cumple la firma del modelo."
    assert note(tab, "Age") == "debe ser al menos 18, y llegó 17"
    assert "Vea Age." in text(tab, ".problem")


@needs_browser
def test_the_switch_changes_the_language_and_is_remembered(tab: Browser, url: str) -> None:
    tab.speak("es-MX,es")
    tab.open(f"{url}/docs#bankchurn")
    tab.click("//button[.='English']")
    tab.wait("return document.documentElement.lang === 'en' && document.querySelector('h1') !== null")
    tab.open(f"{url}/docs#bankchurn")
    assert text(tab, ".try h2") == "Input"
    tab.run("localStorage.clear()")
    tab.speak("de-DE")
    tab.open(f"{url}/docs#bankchurn")
    assert text(tab, ".try h2") == "Input"
    tab.click("//button[.='Español']")
    tab.wait("return document.querySelector('.try h2')?.innerText === 'Entrada'")
    tab.run("localStorage.clear()")
    tab.speak("en-US,en")
