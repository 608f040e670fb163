"""A page in a browser: opened, waited for, and what it shows at the moment."""

from __future__ import annotations

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


def opened(chromium, path):
    """Shows a page from the disk, with the logs of earlier pages out of the way."""
    for kind in ("browser", "performance"):
        chromium.get_log(kind)
    chromium.get(path.as_uri())
    return chromium


def settled(chromium) -> dict:
    """The page's state once its video is where the page wants it."""
    from selenium.webdriver.support.ui import WebDriverWait

    WebDriverWait(chromium, PATIENCE_S, poll_frequency=0.05).until(
        lambda c: c.execute_script("return !media || (media.readyState > 1 && !media.seeking)")
    )
    return chromium.execute_script(_STATE)
