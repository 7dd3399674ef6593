"""Pages in a real browser, Debian's Chromium, where it is installed; and what a page does that it should not."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here")


@contextmanager
def chromium() -> Iterator[Any]:
    """A browser of Playwright's; skips where there is none."""
    playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("there is no Chromium here")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


@dataclass
class Heard:
    """What a page asked for and complained of."""

    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def failed(self, request: Any) -> None:
        if request.failure != "net::ERR_ABORTED":  # as when one goes to another page
            self.complaints.append(f"{request.failure}: {request.url}")


@contextmanager
def visit(browser: Any, path: Path, width: int = 1280, height: int = 900, **context: Any) -> Iterator[Any]:
    """A page with what is `heard` of it. In the end nothing may have been complained of, and nothing been asked for but
    files beside the page."""
    opened = browser.new_context(viewport={"width": width, "height": height}, **context)
    page, heard = opened.new_page(), Heard()
    page.set_default_timeout(10_000)
    page.heard = heard
    page.on("request", lambda request: heard.requests.append(request.url))
    page.on("requestfailed", heard.failed)
    page.on("console", lambda message: heard.complaints.append(message.text))
    page.on("pageerror", lambda error: heard.complaints.append(str(error)))
    page.on("dialog", lambda dialog: (heard.complaints.append(f"dialog: {dialog.message}"), dialog.dismiss()))
    page.on("popup", lambda other: heard.complaints.append(f"popup: {other.url}"))
    page.goto(path.as_uri())
    yield page
    opened.close()
    folder = path.parent if path.parent.name != "gallery" else path.parent.parent
    assert not heard.complaints
    assert all(url.startswith((folder.as_uri() + "/", "data:")) for url in heard.requests)


def dumped(path: Path) -> str:
    """The document as Chromium has it once scripts ran."""
    assert CHROMIUM is not None
    command = [CHROMIUM, "--headless", *ARGUMENTS, "--virtual-time-budget=5000", "--dump-dom"]
    with tempfile.TemporaryDirectory() as profile:
        done = subprocess.run(
            [*command, f"--user-data-dir={profile}", path.as_uri()], capture_output=True, text=True, timeout=120
        )
    return done.stdout
