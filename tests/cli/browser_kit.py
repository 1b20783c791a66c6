"""Headless Chromium through ChromeDriver's own HTTP protocol (W3C WebDriver)."""

from __future__ import annotations

import base64
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

KEYS = {"tab": "\ue004", "enter": "\ue007"}
ARGUMENTS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
)


class Browser:
    """One window."""

    def __init__(self, driver: str) -> None:
        self.http = httpx.Client(base_url=driver, timeout=60)
        options = {"args": ARGUMENTS}
        wanted = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
        made = self.call("POST", "/session", capabilities={"alwaysMatch": wanted})
        self.at = f"/session/{made['sessionId']}"

    def call(self, method: str, path: str, **body: Any) -> Any:
        said = self.http.request(method, path, json=body if method == "POST" else None)
        found = said.json()["value"]
        assert said.is_success, found
        return found

    def close(self) -> None:
        self.call("DELETE", self.at)
        self.http.close()

    def prefer(self, scheme: str) -> None:
        """As if its user had chosen "light" or "dark" pages."""
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.tool("Emulation.setEmulatedMedia", features=features)

    def open(self, url: str, *, width: int, height: int = 900) -> None:
        """Show ``url`` in a viewport of this size."""
        self.tool(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )
        self.call("POST", f"{self.at}/url", url=url)

    def tool(self, name: str, **parameters: Any) -> Any:
        """One command of the DevTools protocol."""
        return self.call("POST", f"{self.at}/goog/cdp/execute", cmd=name, params=parameters)

    def ask(self, script: str) -> Any:
        """The value of a script that the test runs; the page has none of its own."""
        return self.call("POST", f"{self.at}/execute/sync", script=f"return {script}", args=[])

    def press(self, *names: str) -> None:
        """Keys, one after another."""
        actions = [{"type": kind, "value": KEYS[name]} for name in names for kind in ("keyDown", "keyUp")]
        keyboard = {"type": "key", "id": "keyboard", "actions": actions}
        self.call("POST", f"{self.at}/actions", actions=[keyboard])

    def complaints(self) -> list[str]:
        """What the console had to say since it was last asked."""
        return [one["message"] for one in self.call("POST", f"{self.at}/se/log", type="browser")]

    def picture(self, path: Path) -> None:
        """The whole page as PNG."""
        found = self.tool("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(found["data"]))


@contextmanager
def driver() -> Iterator[str]:
    """A running ChromeDriver's address; the test is skipped where there is none."""
    program, chromium = shutil.which("chromedriver"), shutil.which("chromium") or shutil.which("chrome")
    if program is None or chromium is None:
        pytest.skip("no Chromium with ChromeDriver (Debian: apt-get install chromium chromium-driver)")
    started = subprocess.Popen([program, "--port=0"], stdout=subprocess.PIPE, text=True)
    try:
        assert started.stdout is not None
        lines = iter(started.stdout)
        port = next(found[1] for line in lines if (found := re.search(r"on port (\d+)\.", line)))
        yield f"http://127.0.0.1:{port}"
    finally:
        started.terminate()
        started.communicate()
