"""What the page says about modalities that are missing or alone, and what it gives as files."""

from __future__ import annotations

import csv
import dataclasses

import numpy as np
import pytest
from matplotlib import image

from maven_jax.video.show.page import write_page
from tests.support.browsed import PATIENCE_S, opened
from tests.support.predictions import beside, prediction_of

# The colours of a column of pixels within the lane of a modality, on the screen.
_LANE = """
const [t, k] = arguments, scale = window.devicePixelRatio || 1;
const y = 2 * LANE + (data.words.length ? WORDS : 0) + k * partHeight;
const x = Math.round(xOf(t) * scale), h = Math.round((partHeight - 6) * scale);
const found = canvas.getContext("2d").getImageData(x, Math.round(y * scale), 1, h).data;
const shades = new Set();
for (let i = 0; i < h; i++) shades.add([...found.slice(4 * i, 4 * i + 3)].join(" "));
return [...shades];
"""


@pytest.fixture(scope="module")
def alone():
    """Ten seconds of sound; a face in the first half of them, and no words at all."""
    whole = prediction_of(label="untrained, all of it")
    half = np.arange(240) < 120
    added = np.where(half[:, None], np.float32(0.5), np.float32(np.nan)).repeat(2, axis=1)
    nothing = np.full_like(added, np.nan)
    return dataclasses.replace(
        whole,
        words=(),
        observed={"visual": half, "audio": np.ones(240, bool), "text": np.zeros(240, bool)},
        contributions={"visual": added, "audio": added, "text": nothing},
    )


def test_lanes_are_grey_where_a_modality_is_missing_and_barred_where_it_is_alone(
    chromium, alone, tmp_path
):
    (tmp_path / "crops").mkdir()
    write_page(alone, tmp_path / "page.html", tmp_path / "crops")
    page = opened(chromium, tmp_path / "page.html")
    rows = page.find_elements("css selector", "#shares th")
    assert [row.text for row in rows] == ["visual", "audio"]  # the words are nowhere
    assert page.execute_script("return observed.length") == 2

    def has(time_s: float, lane: int, colour: str) -> bool:
        probe = "const c = colours()[arguments[0]].match(/\\d+/g); return c.join(' ')"
        return page.execute_script(probe, colour) in page.execute_script(_LANE, time_s, lane)

    assert has(7.5, 0, "shade")
    assert not has(7.5, 0, "muted")
    assert has(7.5, 1, "muted")
    assert not has(2.5, 0, "shade")
    assert not has(2.5, 1, "muted")
    assert "a bar where it was alone" in page.find_element("id", "legend").text


def test_numbers_and_curves_can_be_saved(chromium, alone, tmp_path):
    from selenium.webdriver.support.ui import WebDriverWait

    (tmp_path / "crops").mkdir()
    alone = dataclasses.replace(alone, extra=beside(len(alone)))
    write_page(alone, tmp_path / "page.html", tmp_path / "crops")
    saved = tmp_path / "saved"
    where = {"behavior": "allow", "downloadPath": str(saved)}
    chromium.execute_cdp_cmd("Browser.setDownloadBehavior", where)
    page = opened(chromium, tmp_path / "page.html")
    for name in ("csv", "png"):
        page.find_element("id", name).click()
        WebDriverWait(page, PATIENCE_S, poll_frequency=0.05).until(
            lambda _, name=name: (saved / f"clip.{name}").exists()
        )
    alone.to_csv(tmp_path / "clip.csv")
    with (tmp_path / "clip.csv").open() as file, (saved / "clip.csv").open() as other:
        expected, found = list(csv.DictReader(file)), list(csv.DictReader(other))
    names = ["time_s", "valence", "arousal", "valence_smoothed", "arousal_smoothed"]
    names += ["dominance", "expr_Calm", "expr_=Happy"]
    assert list(found[0]) == [*names, "modalities", "label"]
    assert found == [{k: row[k] for k in found[0]} for row in expected]
    assert image.imread(saved / "clip.png").shape[1] > 500
    assert page.get_log("browser") == []


def test_a_part_of_a_video_begins_where_it_does(chromium, alone, tmp_path):
    later = dataclasses.replace(alone, frame=alone.frame + 48, time_s=alone.time_s + 2)
    (tmp_path / "crops").mkdir()
    write_page(later, tmp_path / "page.html", tmp_path / "crops")
    page = opened(chromium, tmp_path / "page.html")
    assert page.execute_script("zoom(0); return [now, view[0], view[1]]") == pytest.approx(
        [2, 2, 12]
    )
