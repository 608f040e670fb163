"""The page in a real browser: what plays, moves and is clicked; nothing leaks in or out."""

from __future__ import annotations

import re

import numpy as np
import pytest

from maven_jax.video.show.page import write_page
from tests.support.browsed import PATIENCE_S, opened, requests, settled
from tests.support.clips import write_clip
from tests.support.predictions import HOSTILE, prediction_of


def check(state: dict, prediction, time_s: float) -> None:
    """Page, video, playhead, dot and word all stand at `time_s`."""
    assert state["time"] == pytest.approx(time_s, abs=0.02)
    if state["video"] is not None:
        assert state["video"] == pytest.approx(state["time"], abs=0.02)
    assert state["head"] == pytest.approx(state["wanted"], abs=1)
    row = np.searchsorted(prediction.time_s, state["time"] + 1e-6, side="right") - 1
    known = np.isfinite(prediction.smoothed[row, 0])
    if known:
        np.testing.assert_allclose(state["dot"], prediction.smoothed[row], atol=1e-3)
    texts = [
        f"{float(v):+z.2f}".replace("-", "−") if known else "–" for v in prediction.smoothed[row]
    ]
    assert state["values"] == texts
    there = prediction.modalities[row]
    assert state["modalities"] == (there.replace("+", " + ") or "nothing")
    said = [w.text for w in prediction.words if w.start_s <= state["time"] < w.end_s]
    assert state["word"] == (said[0] if said else None)
    assert state["boxed"] == bool(prediction.face_found[row])


@pytest.fixture(scope="module")
def played(tmp_path_factory):
    """A prediction with its page and an embedded video."""
    folder = tmp_path_factory.mktemp("page")
    prediction = prediction_of()
    clip = write_clip(folder / "clip.mp4", prediction.time_s)
    write_page(prediction, folder / "a page.html", clip)
    return prediction, folder / "a page.html"


def test_everything_follows_clicks_scrubs_and_keys(chromium, played):
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.keys import Keys

    prediction, path = played
    page = opened(chromium, path)
    check(settled(page), prediction, 0)
    line = page.find_element("id", "timeline")
    left = -line.size["width"] / 2

    def at(time_s: float) -> int:
        return round(left + page.execute_script("return xOf(arguments[0])", time_s))

    def time_of(offset: int) -> float:
        return page.execute_script("return tOf(arguments[0])", offset - left)

    ActionChains(page).move_to_element_with_offset(line, at(7.5), -60).click().perform()
    check(settled(page), prediction, time_of(at(7.5)))
    scrub = ActionChains(page).move_to_element_with_offset(line, at(7.5), -60).click_and_hold()
    for time_s in (6, 5, 4.2):
        scrub.move_to_element_with_offset(line, at(time_s), -60)
    scrub.perform()
    check(settled(page), prediction, time_of(at(4.2)))
    ActionChains(page).release().perform()
    # Over, but no longer held.
    ActionChains(page).move_to_element_with_offset(line, at(1), -60).perform()
    check(settled(page), prediction, time_of(at(4.2)))

    words = page.find_elements("css selector", "#transcript button")
    assert [w.text for w in words] == [w.text for w in prediction.words]
    words[9].click()
    check(settled(page), prediction, prediction.words[9].start_s)

    body = page.find_element("tag name", "body")
    for keys, time_s in (
        (Keys.HOME, 0),
        (Keys.ARROW_RIGHT, 1),
        (".", 1 + 1 / 24),
        (Keys.END, prediction.time_s[-1] + 1 / 24),
    ):
        body.send_keys(keys)
        assert page.execute_script("return now") == pytest.approx(time_s, abs=0.02)
    slider = page.find_element("id", "seek")
    slider.click()
    assert page.execute_script("return now") == pytest.approx(5, abs=0.1)


def test_it_plays_in_step_with_its_video(chromium, played):
    from selenium.webdriver.support.ui import WebDriverWait

    prediction, path = played
    page = opened(chromium, path)
    settled(page)
    button = page.find_element("id", "play")
    button.click()
    WebDriverWait(page, PATIENCE_S, poll_frequency=0.05).until(
        lambda c: c.execute_script("return media.currentTime") > 0.5
    )
    assert button.get_attribute("aria-label") == "Pause"
    button.click()
    page.execute_script("show(media.currentTime)")
    state = settled(page)
    assert state["time"] > 0.5
    check(state, prediction, state["time"])


def test_it_asks_the_network_for_nothing_and_complains_of_nothing(chromium, played):
    page = opened(chromium, played[1])
    settled(page)
    page.execute_script("document.getElementById('numbers').open = true; zoom(0.5); turnTheme()")
    page.find_element("id", "play").click()
    settled(page)
    asked = requests(page)
    assert any(url.startswith("file:") for url in asked)
    assert [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []
    assert [url for url in asked if url.startswith("file:")] == [played[1].as_uri()]
    assert page.get_log("browser") == []


def test_what_others_wrote_does_not_run(chromium, tmp_path):
    prediction = prediction_of(hostile=True, label=HOSTILE)
    clip = write_clip(tmp_path / "clip.avi", prediction.time_s, codec="mpeg4", sound="")
    write_page(prediction, tmp_path / "page.html", clip)
    page = opened(chromium, tmp_path / "page.html")
    check(settled(page), prediction, 0)
    assert page.execute_script("return window.hurt") is None
    assert page.find_element("id", "title").text == HOSTILE
    assert HOSTILE in page.find_element("class name", "banner").text
    assert page.find_elements("css selector", "#transcript button")[1].text == HOSTILE
    assert page.find_element("css selector", "#notes li").text == HOSTILE
    assert page.get_log("browser") == []
    # Were it written into the page all the same, the page's policy would still not run it.
    harm = "const s = document.createElement('script'); s.textContent = 'window.hurt = 3';"
    page.execute_script(harm + "document.body.append(s)")
    assert page.execute_script("return window.hurt") is None


def test_thumbnails_follow_the_clock_where_browsers_play_no_video(chromium, tmp_path):
    from selenium.webdriver.support.ui import WebDriverWait

    prediction = prediction_of()
    clip = write_clip(tmp_path / "clip.avi", prediction.time_s, codec="mpeg4", sound="")
    write_page(prediction, tmp_path / "page.html", clip)
    page = opened(chromium, tmp_path / "page.html")
    picture = page.find_element("css selector", "#picture img")
    first = picture.get_attribute("src")
    page.execute_script("seek(8)")
    check(settled(page), prediction, 8)
    assert picture.get_attribute("src") != first
    page.find_element("id", "play").click()
    WebDriverWait(page, PATIENCE_S, poll_frequency=0.05).until(
        lambda c: c.execute_script("return now") > 8.2
    )


def test_all_that_can_be_used_has_a_name(chromium, played):
    page = opened(chromium, played[1])
    for element in page.find_elements("css selector", "button, input, select, svg[role], canvas"):
        if element.get_attribute("id") == "file":
            continue  # only where there is a file to give
        assert element.accessible_name.strip(), element.get_attribute("outerHTML")
    assert page.find_element("tag name", "html").get_attribute("lang") == "en"


def test_the_file_names_no_address(played):
    text = played[1].read_text()
    addresses = set(
        re.findall(r"(?:https?:)?//[a-z][\w.]+", re.sub(r"[A-Za-z0-9+/=]{200,}", "", text))
    )
    assert addresses <= {"http://www.w3.org"}
