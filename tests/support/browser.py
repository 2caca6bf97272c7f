"""Control a real browser, headless Chromium, through its own driver with the W3C WebDriver protocol."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
]


def missing() -> str:
    """The program that is missing for browser tests; empty if none is."""
    return next((name for name in ("chromium", "chromedriver") if shutil.which(name) is None), "")


LOADED = "return document.querySelector('h1') !== null"


class Browser:
    """A browser tab. `run` executes the body of a function in the page and returns its result."""

    def __init__(self, driver: str, profile: Path) -> None:
        self._driver = driver
        options = {"binary": shutil.which("chromium"), "args": [*FLAGS, f"--user-data-dir={profile}"]}
        logging = {"browser": "ALL", "performance": "ALL"}
        always = {"goog:chromeOptions": options, "goog:loggingPrefs": logging}
        made = self._call("POST", "/session", {"capabilities": {"alwaysMatch": always}})
        self._session = f"/session/{made['sessionId']}"

    def speak(self, languages: str) -> None:
        """Ask for pages in these languages from now on, as in the header Accept-Language."""
        agent = self.run("return navigator.userAgent")
        self._devtools("Emulation.setUserAgentOverride", userAgent=agent, acceptLanguage=languages)

    def open(
        self, url: str, *, width: int = 1280, height: int = 900, scheme: str = "light", wait: str = LOADED
    ) -> None:
        """Load the page again, in a window of `width` by `height` CSS pixels."""
        self._devtools(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 500
        )
        self._devtools("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self._call("POST", f"{self._session}/url", {"url": "about:blank"})
        self._call("POST", f"{self._session}/url", {"url": url})
        if wait:
            self.wait(wait)

    def run(self, script: str, *arguments: object) -> Any:
        return self._call("POST", f"{self._session}/execute/sync", {"script": script, "args": list(arguments)})

    def wait(self, script: str, *arguments: object, seconds: float = 10) -> None:
        end = time.monotonic() + seconds
        while not self.run(script, *arguments):
            assert time.monotonic() < end, f"still not true after {seconds} s: {script}"
            time.sleep(0.05)

    def click(self, xpath: str) -> None:
        self._call("POST", f"{self._session}/element/{self._find(xpath)}/click", {})

    def press(self, xpath: str, keys: str) -> None:
        """Send keys to an element, which takes the focus. Source of the codes: W3C WebDriver, section 17.4.2."""
        self._call("POST", f"{self._session}/element/{self._find(xpath)}/value", {"text": keys})

    def fill(self, label: str, text: str) -> None:
        """Type into the control with this label, as a person would."""
        element = f"{self._session}/element/{self._labelled(label)}"
        self._call("POST", f"{element}/clear", {})
        self._call("POST", f"{element}/value", {"text": text})

    def edit(self, selector: str, content: object) -> None:
        """Replace the content of a text area with a text, or with another value as JSON."""
        text = content if isinstance(content, str) else json.dumps(content)
        script = "n.value = arguments[1]; n.dispatchEvent(new Event('input', {bubbles: true}))"
        self.run(f"const n = document.querySelector(arguments[0]); {script}", selector, text)

    def value(self, label: str) -> str:
        return str(self._call("GET", f"{self._session}/element/{self._labelled(label)}/property/value", None))

    def screenshot(self, path: Path) -> None:
        """Write the window's content as PNG."""
        path.write_bytes(base64.b64decode(self._devtools("Page.captureScreenshot", format="png")["data"]))

    def console(self) -> list[str]:
        """Console messages since the last call: errors, warnings, violations of the content security policy."""
        return [entry["message"] for entry in self._log("browser")]

    def requested(self) -> list[str]:
        """The URLs that pages requested since the last call."""
        events = [json.loads(entry["message"])["message"] for entry in self._log("performance")]
        return [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]

    def _labelled(self, label: str) -> str:
        return self._find(f"//*[@id=//label[.='{label}' or .='{label} optional']/@for]")

    def _find(self, xpath: str) -> str:
        found = self._call("POST", f"{self._session}/element", {"using": "xpath", "value": xpath})
        return str(next(iter(found.values())))

    def _devtools(self, command: str, **params: object) -> Any:
        return self._call("POST", f"{self._session}/goog/cdp/execute", {"cmd": command, "params": params})

    def _log(self, kind: str) -> list[dict[str, Any]]:
        entries: list[dict[str, Any]] = self._call("POST", f"{self._session}/se/log", {"type": kind})
        return entries

    def _call(self, method: str, path: str, body: object) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._driver + path, data, {"content-type": "application/json"}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as response:
                return json.load(response)["value"]
        except urllib.error.HTTPError as error:
            raise AssertionError(json.load(error)["value"]["message"]) from None

    def close(self) -> None:
        self._call("DELETE", self._session, {})


@contextmanager
def browsing(profile: Path) -> Iterator[Browser]:
    """A browser with an empty profile and its driver, both ended with the block."""
    driver, port = _started()
    with driver:
        try:
            browser = Browser(f"http://127.0.0.1:{port}", profile)
            yield browser
            browser.close()
        finally:
            driver.terminate()
            try:
                driver.wait(10)
            except subprocess.TimeoutExpired:  # it was seen to ignore SIGTERM, with its browser gone
                driver.kill()


def _started() -> tuple[subprocess.Popen[str], int]:
    """A driver and its port.

    On a busy machine it was seen to end at once, before it had a port: then it gets another try.
    """
    command, said = [shutil.which("chromedriver") or "", "--port=0"], ""
    for _ in range(5):
        driver = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert driver.stdout is not None
        for line in driver.stdout:
            if "started successfully on port" in line:
                return driver, int(line.rstrip(".\n").split()[-1])
            said += line
        with driver:  # closes the pipe, and waits
            pass
    raise AssertionError(f"chromedriver does not start: {said}")
