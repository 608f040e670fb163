"""What the page draws: which value where and when, and odd predictions on narrow screens."""

from __future__ import annotations

import dataclasses
import json
import re

import numpy as np
import pytest

from maven_jax.media.frame_times import probe
from maven_jax.video.prediction import VideoPrediction, Word
from maven_jax.video.show import embed
from maven_jax.video.show.page import write_page
from tests.support.browsed import PATIENCE_S, opened, settled
from tests.support.clips import write_clip
from tests.support.predictions import HOSTILE, prediction_of, stepped, without_frames

# Where a column of the canvas has a dimension's colour: the middles of the runs of such pixels.
_LEVELS = """
const [t, name] = arguments, k = window.devicePixelRatio || 1;
const wanted = colours()[name].match(/\\d+/g).slice(0, 3).map(Number);
const rows = canvas.getContext("2d").getImageData(Math.round(xOf(t) * k), 0, 1, canvas.height).data;
const runs = [];
for (let y = 0, open = false; y < canvas.height; y++) {
  const near = wanted.every((v, c) => Math.abs(rows[4 * y + c] - v) < 30);
  if (near && open) runs.at(-1)[1] = y; else if (near) runs.push([y, y]);
  open = near;
}
return runs.map(([a, b]) => (a + b + 1) / 2 / k);
"""
# The middle of the bright square in the picture that the video shows.
_SQUARE = """
const done = arguments[0];
requestAnimationFrame(() => requestAnimationFrame(() => {
  const sheet = document.createElement("canvas"), pen = sheet.getContext("2d");
  sheet.width = media.videoWidth;
  pen.drawImage(media, 0, -Math.round(media.videoHeight / 3) - 20);
  const row = pen.getImageData(0, 0, sheet.width, 1).data;
  let sum = 0, count = 0;
  for (let x = 0; x < sheet.width; x++) if (row[4 * x] > 180) { sum += x; count++; }
  done(sum / count);
}));
"""


def test_each_curve_has_its_lane_its_values_and_its_time(chromium, tmp_path):
    prediction = stepped()
    clip = write_clip(tmp_path / "clip.avi", prediction.time_s, codec="mpeg4", sound="")
    write_page(prediction, tmp_path / "page.html", clip)
    page = opened(chromium, tmp_path / "page.html")
    lane, gap, share, scale = page.execute_script("return [LANE, GAP, SHARE, shareScale]")
    # Before and behind the steps of valence (at a quarter) and arousal (at three quarters).
    for row in (57, 63, 177, 183):
        time_s = prediction.time_s[row]
        for column, name in enumerate(("valence", "arousal")):
            high = lane - gap
            wanted = [column * lane + high * (1 - prediction.va[row, column]) / 2]
            for number, added in enumerate(prediction.contributions.values()):
                level = (share - 6) * (1 - added[row, column] / scale) / 2
                wanted.append(2 * lane + number * share + level)
            np.testing.assert_allclose(page.execute_script(_LEVELS, time_s, name), wanted, atol=1.5)


def test_what_a_modality_adds_stands_in_its_row(chromium, tmp_path):
    prediction = stepped()
    clip = write_clip(tmp_path / "clip.avi", prediction.time_s, codec="mpeg4", sound="")
    write_page(prediction, tmp_path / "page.html", clip)
    page = opened(chromium, tmp_path / "page.html")
    for row in (0, 100, 239):
        page.execute_script("show(arguments[0])", prediction.time_s[row])
        for line in page.find_elements("css selector", "#shares tr"):
            name, *cells = (c.text for c in line.find_elements("css selector", "th, span"))
            added = prediction.contributions[name][row]
            assert cells == [f"{float(v):+z.2f}".replace("-", "−") for v in added]
            for bar, v in zip(line.find_elements("tag name", "i"), added):
                left, width = (float(bar.value_of_css_property(k)[:-2]) for k in ("left", "width"))
                middle = page.execute_script("return arguments[0].parentNode.clientWidth", bar) / 2
                # From the middle to the right what raises, to the left what lowers.
                assert left == pytest.approx(middle if v > 0 else middle - width, abs=1)
                assert width > 1


def test_the_picture_is_the_one_of_the_moment(chromium, tmp_path):
    # A rate whose times browsers do not have exactly, and a start behind the container's.
    clip = write_clip(tmp_path / "clip.mp4", 0.2 + np.arange(60) / 29.97)
    prediction = dataclasses.replace(prediction_of(60, 29.97), time_s=probe(clip).times_s)
    write_page(prediction, tmp_path / "page.html", clip)
    page = opened(chromium, tmp_path / "page.html")
    settled(page)
    for row in (0, 23, 24, 25, 54, 59):
        page.execute_script("seek(time[arguments[0]])", row)
        settled(page)
        assert page.execute_async_script(_SQUARE) == pytest.approx(
            (192 - 40) * row / 59 + 19.5, abs=1.3
        )


def test_a_large_file_plays_when_it_is_given(chromium, tmp_path, monkeypatch):
    from selenium.webdriver.support.ui import WebDriverWait

    def note() -> str:
        return page.find_element("id", "stage-note").text

    monkeypatch.setattr(embed, "EMBEDDED_BYTES", 0)
    prediction = prediction_of(96)
    clip = write_clip(tmp_path / "clip.mp4", prediction.time_s)
    write_page(prediction, tmp_path / "page.html", clip)
    page = opened(chromium, tmp_path / "page.html")
    assert "clip.mp4" in page.find_element("id", "choose").text
    assert page.find_element("css selector", "#picture img").is_displayed()
    page.execute_script("seek(0.5)")
    chooser = page.find_element("id", "file")
    assert chooser.accessible_name.strip()
    other = write_clip(tmp_path / "other.mp4", np.arange(20) / 25)
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"\0" * 5000)
    wait = WebDriverWait(page, PATIENCE_S, poll_frequency=0.05)
    chooser.send_keys(str(broken))
    wait.until(lambda _: "cannot play" in note())
    assert page.find_element("css selector", "#picture img").is_displayed()
    chooser.send_keys(str(other))
    wait.until(lambda _: "is it another one?" in note())
    chooser.send_keys(str(clip))
    wait.until(lambda c: c.execute_script("return media && media.duration > 3"))
    assert note() == ""
    state = settled(page)
    assert (state["time"], state["video"]) == (pytest.approx(0.5, abs=0.01),) * 2
    assert not page.find_element("css selector", "#picture img").is_displayed()
    assert state["boxed"]


def test_play_and_pause_in_one_breath_keep_the_video(chromium, tmp_path):
    prediction = prediction_of(48)
    clip = write_clip(tmp_path / "clip.mp4", prediction.time_s)
    write_page(prediction, tmp_path / "page.html", clip)
    page = opened(chromium, tmp_path / "page.html")
    settled(page)
    page.find_element("id", "title").click()  # without it browsers let nothing play
    # While it seeks it cannot play yet, so that the pause takes the play back.
    both = "seek(1); toggle(); toggle(); const done = arguments[0];"
    again = "media.play().then(() => done('plays'), (error) => done(error.message))"
    assert page.execute_async_script(both + again) == "plays"
    assert page.execute_script("return media !== null && media.isConnected")


def odd() -> dict[str, VideoPrediction]:
    """Predictions that are rare, by name."""
    whole = prediction_of(hostile=True, label=HOSTILE)
    nothing = np.full_like(whole.va, np.nan)
    unseen = {m: np.zeros(len(whole), bool) for m in whole.observed}
    texts = ("w" * 10_000, "שלום", "مرحبا <b>", "日本語", "\u202egnp.exe", "\"'`\\", "a\u2028b")
    words = tuple(Word(float(i), i + 0.5, text) for i, text in enumerate(texts))
    return {
        "single": without_frames(whole, 1),
        "unknown": dataclasses.replace(
            whole, va=nothing, smoothed=nothing, observed=unseen, contributions=None
        ),
        "bare": dataclasses.replace(
            whole, smoothed=None, words=(), contributions=None, observed={}, notes=(), label=""
        ),
        "words": dataclasses.replace(whole, words=words, name="caf\udce9" + "n" * 300, track="2"),
        "empty": without_frames(whole, 0),
    }


@pytest.mark.parametrize("name", odd())
def test_odd_predictions_make_a_page_without_errors(chromium, tmp_path, name):
    prediction = odd()[name]
    media = tmp_path / "crops"
    media.mkdir()
    write_page(prediction, tmp_path / "page.html", media)
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    (data,) = re.findall(r'id="prediction">(.*?)</script>', text)

    def refuse(constant: str):
        raise AssertionError(f"{constant} is no JSON")

    json.loads(data, parse_constant=refuse)
    phone = {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True}
    chromium.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", phone)
    try:
        page = opened(chromium, tmp_path / "page.html")
        page.execute_script("if (n) { zoom(0.5); seek(end); numbers.open = true; seek(0); }")
        assert page.get_log("browser") == []
        wide, seen = page.execute_script(
            "return [document.documentElement.scrollWidth, innerWidth]"
        )
        assert wide <= seen == 390
        title = page.find_element("id", "title").text
        assert title == prediction.title.encode(errors="replace").decode()
        assert title.endswith(", face 2") == (name == "words")
        said = page.execute_script("return wordButtons.map((button) => button.textContent)")
        assert said == [w.text for w in prediction.words if len(prediction)]
        known = page.find_element("id", "now-valence").text != "–"
        assert known == (name in ("single", "bare", "words"))
    finally:
        chromium.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
