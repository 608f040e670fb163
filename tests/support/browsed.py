"""A page in a browser: opened, waited for, and what it shows at the moment."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

_INSTALL = "apt-get install chromium chromium-driver"
_FLAGS = (
    "headless",
    "no-sandbox",
    "disable-gpu",
    "disable-quic",
    "no-first-run",
    "disable-background-networking",
    "disable-component-update",
    "disable-sync",
    "disable-dev-shm-usage",
    "window-size=1280,1000",
)
# Much longer than anything takes, even beside other work.
PATIENCE_S = 60

# The time of the page, of its video, and where playhead and dot are.
_STATE = """
const line = document.getElementById("timeline").getBoundingClientRect();
const head = document.getElementById("playhead").getBoundingClientRect();
const dot = document.getElementById("dot");
return {
  time: now,
  video: media && media.currentTime,
  head: head.left + 1 - line.left,
  wanted: xOf(now),
  dot: [Number(dot.getAttribute("cx")), -Number(dot.getAttribute("cy"))],
  word: document.querySelector("#transcript .spoken")?.textContent ?? null,
  values: DIMENSIONS.map((name) => document.getElementById(`now-${name}`).textContent),
  modalities: document.getElementById("now-modalities").textContent,
  boxed: document.getElementById("box") ? !document.getElementById("box").hidden : false,
};
"""


@contextlib.contextmanager
def driven(profile: Path, *flags: str) -> Iterator[Any]:
    """A driver of a headless Chromium; the test is skipped where there is none.

    Args:
        profile: an empty folder.
        flags: more of its flags, without dashes.
    """
    webdriver = pytest.importorskip("selenium.webdriver", reason="pip install selenium")
    browser, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (browser and driver):
        pytest.skip(f"pages are tested in Chromium, which is not installed: {_INSTALL}")
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for flag in (*_FLAGS, f"user-data-dir={profile}", *flags):
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    service = webdriver.ChromeService(executable_path=driver)
    found = webdriver.Chrome(options=options, service=service)
    try:
        yield found
    finally:
        found.quit()


def opened(chromium, path):
    """Shows a page from the disk, with the logs of earlier pages out of the way."""
    for kind in ("browser", "performance"):
        chromium.get_log(kind)
    chromium.get(path.as_uri())
    return chromium


def requests(chromium) -> list[str]:
    """The addresses that the page has asked for since it was opened.

    The browser's own first page may still be loading meanwhile: it does not count.
    """
    messages = (json.loads(row["message"])["message"] for row in chromium.get_log("performance"))
    sent = [m["params"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    return [p["request"]["url"] for p in sent if not p["documentURL"].startswith("chrome:")]


def settled(chromium) -> dict:
    """The page's state once its video is where the page wants it."""
    from selenium.webdriver.support.ui import WebDriverWait

    WebDriverWait(chromium, PATIENCE_S, poll_frequency=0.05).until(
        lambda c: c.execute_script("return !media || (media.readyState > 1 && !media.seeking)")
    )
    return chromium.execute_script(_STATE)
